"""Language models as baselines, on a tiny random base: what is read, learned, kept and resumed."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluate.baselines import TrainingData
from evaluate.baselines.fit_cost import FitCost, fit_and_measure
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.language import LanguageModel, worded
from evaluate.baselines.systems.a_llmrec import ALLMRec, FrozenRecommender, ListOfTitles, TwoStageRanker, next_rows
from evaluate.baselines.systems.genrec_titles import GenRecTitles
from evaluate.baselines.systems.m6_rec import M6Rec
from evaluate.baselines.systems.sasrec import SASRec
from evaluate.baselines.systems.tallrec import TALLRec, labelled
from evaluate.baselines.titles import CHOICE_FILE, TitleRanker
from programs.fusion import Fusion
from programs.lm.model_options import ModelOptions
from programs.prior.encoders import HashingEncoder
from programs.prior.scorers import ContentSimilarity
from programs.ranker import Ranker
from programs.runtime.device import best_device, device_name
from programs.runtime.errors import InputError
from programs.runtime.events import Event, Progress
from signatures.rows import Case
from signatures.types import Interaction, Item
from tests.support.cases import case, training_of
from tests.support.failures import Killed
from tests.support.tiny_model import need_training, write_tiny_model

COLOURS, SHAPES = ("red", "blue", "green"), ("ball", "cube", "car")
ITEMS = {f"{c} {s}": Item(item_id=f"{c} {s}", title=f"{c} {s}") for c, s in itertools.product(COLOURS, SHAPES)}
ITEMS["new"] = Item(item_id="new", title="red next")
ITEMS["other"] = Item(item_id="other", title="blue next")
SHORT = SASRec(dimensions=16, layers=1, dropout=0.0, length=6, batch=16, rate=0.01, epochs=15, validation=0)
SMALL: dict[str, LanguageModel] = {
    "tallrec": TALLRec(users=28, passes=8, dev_users=8, block=7, rate=0.02, patience=9),
    "genrec-titles": GenRecTitles(users=28, passes=8, dev_users=8, block=7, rate=0.02, patience=9),
    "a-llmrec": ALLMRec(
        users=28, passes=8, dev_users=8, block=7, rate=0.02, patience=9, negatives=2, sasrec=SHORT, align_rate=0.01
    ),
    "m6-rec": M6Rec(users=28, passes=8, dev_users=8, block=7, rate=0.02, patience=9, tokens=4, below=1),
}
EACH = pytest.mark.parametrize("name", list(SMALL))


def material() -> TrainingData:
    """Forty shoppers who have blue and green things and then buy a red one; nobody has `new` and `other`."""
    rng = np.random.default_rng(0)
    histories = {}
    for shopper in range(40):
        before = rng.permutation([f"{c} {s}" for c in ("blue", "green") for s in SHAPES])[:3]
        histories[f"u{shopper}"] = (*before.tolist(), f"red {SHAPES[shopper % 3]}")
    vectors = HashingEncoder().encode([item.text for item in ITEMS.values()])
    return TrainingData(training_of(histories), ITEMS, content=ContentSimilarity.of(ITEMS, vectors))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base model; tests are skipped without the packages to train it."""
    need_training()
    return str(write_tiny_model(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def fits(base: str) -> dict[str, Ranker]:
    """A fit of each system."""
    return {name: settings.model_copy(update={"base": base}).fit(material(), 0) for name, settings in SMALL.items()}


@EACH
def test_what_all_buy_next_is_learned_and_items_nobody_has_are_ranked_by_their_titles(
    name: str, fits: dict[str, Ranker]
) -> None:
    asked = case(["green ball", "blue car", "green cube"], ["other", "blue cube", "red ball", "nowhere", "new"])
    ranking = fits[name].rank(asked)
    assert set(ranking.order[:2]) == {"red ball", "new"} and ranking.order[-1] == "nowhere"
    assert all(len(vector) == 5 and np.isfinite(vector).all() for vector in ranking.scores.values())


@EACH
def test_a_history_of_nothing_known_is_ranked(name: str, fits: dict[str, Ranker]) -> None:
    for history in ([], ["nowhere"]):
        assert sorted(fits[name].rank(case(history, ["new", "nowhere"])).order) == ["new", "nowhere"]
    assert fits[name].rank(case([], ["nowhere"])).scores[name] == [0.0]


@EACH
def test_a_killed_fit_goes_on_and_a_kept_one_is_read(
    name: str, base: str, fits: dict[str, Ranker], tmp_path: Path
) -> None:
    settings, data = SMALL[name].model_copy(update={"base": base}), material()
    asked = case(["green ball", "blue car"], list(ITEMS))

    def kill(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 48:
            raise Killed

    with pytest.raises(Killed):
        settings.fit(data, 0, Fitting(tmp_path, kill))
    left = [folder / ".training.safetensors.0.partial" for folder in tmp_path.glob(f"{name}-*/")]
    for file in left:
        file.write_bytes(b"cut")
    seen: list[Event] = []
    resumed = settings.fit(data, 0, Fitting(tmp_path, seen.append)).rank(asked)
    assert next(event.done for event in seen if isinstance(event, Progress)) == 32
    assert resumed == fits[name].rank(asked)
    assert left and not any(file.exists() for file in left), "what the kill left in the middle of a write"
    seen.clear()
    assert settings.fit(data, 0, Fitting(tmp_path, seen.append)).rank(asked) == resumed
    assert sum(isinstance(event, Progress) for event in seen) == 1, "nothing is trained again"
    assert settings.fit(data, 1, Fitting(tmp_path)).rank(asked) != resumed
    assert len(list(tmp_path.glob(f"{name}-*"))) == 2


@EACH
def test_lists_are_the_same_in_every_run_and_hold_nothing_but_training_data(name: str, base: str) -> None:
    settings, data = SMALL[name], material()
    wording = settings.wording(data, 0, Fitting())

    def drawn(seed: int) -> list[Any]:
        return [worded(one, wording, data.items).facts for one in settings.cases(data, seed)]

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(drawn(0)) == 40
    seen = str(drawn(0))
    assert "red next" not in seen and "blue next" not in seen, "items outside the training data are never negatives"


@EACH
def test_dev_users_are_in_no_step(name: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each user's last item is their own, so it says whose list it is."""
    import torch

    from programs.tuned.finetuned import FineTuned
    from programs.tuned.settings import PromptList
    from programs.tuned.training import Figures

    plain = material()
    own = {f"own {user}": Item(item_id=f"own {user}", title=f"red {user}") for user in plain.histories}
    histories = {user: [*before, f"own {user}"] for user, before in plain.histories.items()}
    data = replace(plain, interactions=training_of(histories), items=ITEMS | own)
    learned, judged = set[str](), set[str]()

    def loss(model: FineTuned, one: PromptList) -> torch.Tensor:
        learned.add(one.suffixes[one.target])
        return sum(tensor.sum() for tensor in model.adapter.values()) * 0.0

    def figures(model: FineTuned, lists: list[PromptList]) -> Figures:
        judged.update(one.suffixes[one.target] for one in lists)
        return Figures(1.0, 0.5)

    monkeypatch.setattr(FineTuned, "loss", loss)
    monkeypatch.setattr(FineTuned, "figures", figures)
    SMALL[name].model_copy(update={"base": base, "passes": 1}).fit(data, 0)
    assert len(learned) == 28 and len(judged) == 8 and learned.isdisjoint(judged)


def test_stage_1_of_a_llmrec_ranks_alone_and_beside_the_language_model(fits: dict[str, Ranker]) -> None:
    asked = case(["green ball", "blue car", "green cube"], ["other", "blue cube", "red ball", "nowhere", "new"])
    alone = SMALL["a-llmrec"].model_copy(update={"stages": 1}).fit(material(), 0).rank(asked)
    assert alone.scores["a-llmrec"] == fits["a-llmrec"].rank(asked).scores["a-llmrec-stage1"]
    assert alone.order[0] == "red ball" and alone.order[-1] == "nowhere"
    assert alone.order.index("new") < alone.order.index("other"), "an item that nobody has gets the code of its text"


def test_stage_1_is_fitted_once_for_settings_that_do_not_touch_it(tmp_path: Path) -> None:
    need_training()
    data, events = material(), list[Event]()
    one = ALLMRec(sasrec=SHORT, epochs=2)
    one.wording(data, 0, Fitting(tmp_path, events.append))
    alike: dict[str, Any] = {"users": 7, "rate": 0.5, "passes": 4, "negatives": 3, "stages": 1}
    for name, value in alike.items():
        events.clear()
        one.model_copy(update={name: value})._aligned(data, 0, Fitting(tmp_path, events.append))
        assert not any(isinstance(event, Progress) for event in events), f"{name}: nothing is fitted again"
    other = SHORT.model_copy(update={"epochs": 1})
    for name, value in {"code": 7, "epochs": 1, "align_rate": 0.5, "sasrec": other}.items():
        one.model_copy(update={name: value})._aligned(data, 0, Fitting(tmp_path))
    one._aligned(data, 1, Fitting(tmp_path))
    assert len(list(tmp_path.glob("stage1-a-llmrec-*/"))) == 6


def test_a_list_whose_titles_the_base_cannot_read_is_refused(fits: dict[str, Ranker]) -> None:
    fitted = fits["a-llmrec"]
    assert isinstance(fitted, TwoStageRanker) and isinstance(fitted.wording, ListOfTitles)
    many = {f"n{n}": Item(item_id=f"n{n}", title="red next") for n in range(100)}
    ranker = TwoStageRanker(fitted.name, fitted.model, ListOfTitles(fitted.wording.aligned, many), many)
    assert len(ranker.rank(case(["green ball"], [*many][:30])).order) == 30
    with pytest.raises(InputError, match=r"the 100 of user .* tokens; .* reads 256; draw shorter lists"):
        ranker.rank(case(["green ball"], [*many]))


def test_stage_1_copies_no_more_of_a_history_than_the_recommender_reads() -> None:
    need_training()
    frozen = FrozenRecommender(SHORT.fit(material(), 0))
    history = [n % 9 for n in range(30)]
    cut = next_rows([history, [3], []], SHORT.length)
    assert max(len(before) for before, _ in cut) == SHORT.length
    assert [target for _, target in cut] == history[1:]
    whole = [history[:end] for end in range(1, len(history))]
    assert (frozen.states([before for before, _ in cut]) == frozen.states(whole)).all()


def test_kept_parts_of_a_llmrec_are_in_its_cost(base: str, tmp_path: Path) -> None:
    data, fitting = material(), Fitting(tmp_path)
    alone = ALLMRec(base=base, sasrec=SHORT, epochs=2, users=2, dev_users=2, stages=1)
    assert fit_and_measure(alone, data, 0, fitting)[1] is not None
    parts = [FitCost.model_validate_json(file.read_text()) for file in tmp_path.glob("*.cost-*.json")]
    assert len(parts) == 2, "SASRec and stage 1"
    for settings in (alone, alone.model_copy(update={"stages": 2})):
        cost = fit_and_measure(settings, data, 0, fitting)[1]
        assert cost is not None
        assert cost.cpu_seconds > sum(part.cpu_seconds for part in parts)
    assert fit_and_measure(settings, data, 0, fitting)[1] == cost


def test_late_interaction_computes_an_item_once_and_equals_joint_layers_where_none_is_below(base: str) -> None:
    import torch

    from programs.tuned.adaptation import Frozen
    from programs.tuned.backbone import load_backbone
    from programs.tuned.decoding import Joint, LateInteraction
    from programs.tuned.packing import pack

    adapted = Frozen(load_backbone(base, torch.float32))
    prefix, packed = [3, 4, 5], pack([0, 0, 0], [[6, 7], [8], [6, 7]])
    with torch.no_grad():
        joint = Joint(adapted).states(adapted.embed([prefix]), packed)
        none_below = LateInteraction(adapted, 0).states(adapted.embed([prefix]), packed)
        late = LateInteraction(adapted, 1)
        first = late.states(adapted.embed([prefix]), packed)
        again = late.states(adapted.embed([prefix]), packed)
        other = late.states(adapted.embed([[9, 9, 9]]), packed)
    np.testing.assert_allclose(joint.numpy(), none_below.numpy(), atol=1e-5)
    np.testing.assert_array_equal(first.numpy(), again.numpy())
    assert not np.allclose(first.numpy(), joint.numpy(), atol=1e-3) and not np.allclose(first[3:], other[3:], atol=1e-3)
    np.testing.assert_allclose(first[3:5], first[6:8], atol=1e-5)


def test_text_vectors_of_another_encoder_are_another_fit(base: str, tmp_path: Path) -> None:
    """The training data have the same texts, so their hash is the same."""
    settings, data, events = SMALL["a-llmrec"].model_copy(update={"stages": 1}), material(), list[Event]()
    vectors = np.random.default_rng(0).normal(size=data.content.matrix.shape).astype(np.float32)
    other = replace(data, content=ContentSimilarity.of(ITEMS, vectors))
    assert other.sha256 == data.sha256
    asked = case(["green ball"], list(ITEMS))
    settings.fit(data, 0, Fitting(tmp_path, events.append))
    kept = settings.fit(other, 0, Fitting(tmp_path, events.append)).rank(asked)
    assert kept == settings.fit(other, 0).rank(asked)


def test_no_text_is_an_error(base: str) -> None:
    with pytest.raises(InputError, match="'a-llmrec' reads item texts, and no item has one; give titles"):
        SMALL["a-llmrec"].fit(replace(material(), content=ContentSimilarity({})), 0)


def test_passes_are_counted_over_the_users_that_there_are() -> None:
    settings = TALLRec(users=1000, passes=3)
    assert settings.tuning(0, 28).lists == 84


@pytest.mark.parametrize("name", ["tallrec", "m6-rec"])
def test_titles_of_a_token_for_each_letter_leave_the_question_in_the_prompt(name: str, base: str) -> None:
    from programs.tuned.backbone import load_backbone

    settings = SMALL[name].model_copy(update={"base": base})
    model = settings.model(load_backbone(base), settings.tuning(0, 28))
    suffix = settings.wording(material(), 0, Fitting()).suffix(Item(item_id="long", title="a!" * 200))
    whole = model.base.tokenizer.encode(suffix, add_special_tokens=False)
    assert len(whole) > 56 and model.lengths([suffix]).tolist() == [len(whole)]


def test_too_few_users_are_an_error(base: str) -> None:
    with pytest.raises(InputError, match="more than 50 users"):
        TALLRec(base=base, dev_users=50).fit(material(), 0)


def test_answers_are_read_after_the_title_whatever_words_it_has(base: str) -> None:
    """The authors' code finds yes and no among all label tokens, so that a title with one of them moves all answers."""
    import torch

    from programs.tuned.backbone import load_backbone
    from programs.tuned.finetuned import FineTuned
    from programs.tuned.objective import ANSWER
    from programs.tuned.settings import PromptList, TuningSettings

    loaded = load_backbone(base, torch.float32)
    suffixes = (" Yes No red ball?", " No Yes Yes?", " blue No car Yes?")
    one = PromptList("A shopper bought Yes: - No", suffixes, 1)
    expected = []
    for place, suffix in enumerate(suffixes):
        ids = torch.tensor([loaded.tokenizer.encode(one.prefix + suffix, add_special_tokens=False)])
        last = loaded.model(input_ids=ids).logits[0, -1].float()
        yes, no = (last[loaded.tokenizer.convert_tokens_to_ids(word)] for word in ("Yes", "No"))
        margin = float(yes - no)
        expected.append(np.logaddexp(0, -margin if place == 1 else margin))
    model = FineTuned(loaded, TuningSettings(layers=2), objective=ANSWER)
    assert float(model.loss(one).detach()) == pytest.approx(np.mean(expected), abs=1e-4)


def test_titles_are_scored_as_the_model_itself_scores_them_with_and_without_their_length(base: str) -> None:
    """A mean over tokens favours long titles and a sum short ones, so both are recorded, and pmi."""
    import torch

    from programs.tuned.backbone import load_backbone
    from programs.tuned.finetuned import FineTuned
    from programs.tuned.objective import TITLE
    from programs.tuned.settings import TuningSettings

    loaded = load_backbone(base, torch.float32)
    items = {name: Item(item_id=name, title=title) for name, title in (("a", "red"), ("b", "red ball blue car"))}
    settings = GenRecTitles(base=base)
    wording = settings.wording(replace(material(), items=items | ITEMS), 0, Fitting())
    ranker = TitleRanker("t", FineTuned(loaded, TuningSettings(layers=2), objective=TITLE), wording, items)
    asked = case(["blue car"], ["a", "b"])
    means = {}
    for history in (("blue car",), ()):
        prefix = wording.prefix(asked.model_copy(update={"history": training_of({"u": history})["u"]}))
        for name, item in items.items():
            before = loaded.tokenizer.encode(str(prefix), add_special_tokens=False)
            own = loaded.tokenizer.encode(wording.suffix(item), add_special_tokens=False)
            logits = loaded.model(input_ids=torch.tensor([before + own])).logits[0].float().log_softmax(-1)
            each = [float(logits[len(before) - 1 + n, token]) for n, token in enumerate(own)]
            means[name, bool(history)] = (np.mean(each), np.sum(each))
    found = ranker.rank(asked).scores
    np.testing.assert_allclose(found["t"], [means["a", True][0], means["b", True][0]], atol=1e-4)
    np.testing.assert_allclose(found["t-sum"], [means["a", True][1], means["b", True][1]], atol=1e-3)
    np.testing.assert_allclose(found["t-pmi"], [means[n, True][0] - means[n, False][0] for n in "ab"], atol=1e-4)


@pytest.mark.parametrize("name", ["genrec-titles", "a-llmrec"])
def test_a_fit_keeps_the_likelihood_that_its_dev_users_chose(name: str, base: str, tmp_path: Path) -> None:
    ranker = SMALL[name].model_copy(update={"base": base}).fit(material(), 0, Fitting(tmp_path))
    assert isinstance(ranker, TitleRanker)
    (file,) = tmp_path.glob(f"{name}-*/{CHOICE_FILE}")
    kept = json.loads(file.read_text())
    assert kept["users"] == SMALL[name].dev_users and kept["decides"] == ranker.decides
    assert kept["ndcg@5"][ranker.decides] >= kept["ndcg@5"]["mean"]


def test_low_ratings_are_what_a_user_is_said_not_to_like() -> None:
    rated = {"red ball": 5.0, "blue ball": 2.0, "blue cube": None, "green ball": 1.0}
    history = tuple(Interaction(item_id=name, rating=value) for name, value in rated.items())
    one = Case(user_id="u", history=history, candidates=("green car", "red car"), target="red car")
    assert [event.liked for event in history] == [True, False, True, False]
    found = labelled(one, ITEMS)
    assert found.candidates == ("green ball", "red car")
    assert found.item_ids == ("red ball", "blue ball", "blue cube")
    text = TALLRec().wording(replace(material(), items=ITEMS), 0, Fitting()).prefix(found)
    assert "Liked:\n- red ball\n- blue cube\nDisliked:\n- blue ball\n" in str(text)
    unrated = one.model_copy(update={"history": history[:1]})
    assert labelled(unrated, ITEMS) == unrated


def test_the_option_model_names_the_base_and_the_manifest_says_what_it_ran_on(base: str) -> None:
    from evaluate.ranker_choice import choose_by_name

    choice = choose_by_name("tallrec", ModelOptions(model=base), Fusion(), None)
    assert choice.trained == TALLRec(base=base) and not choice.asks_models
    assert choice.for_runs(Path("nowhere")).trained == choice.trained
    recorded = choice.configuration(0, True, 3)
    assert recorded["settings"]["base"] == base and recorded["seed"] == 3
    assert recorded["environment"]["device"] == device_name(best_device())
    assert recorded["environment"]["dtype"] in ("bfloat16", "float32")
    assert len(recorded["environment"]["base_sha256"]) == 64
    assert choose_by_name("bpr", ModelOptions(model=base), Fusion(), None).trained is None
