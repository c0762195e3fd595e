"""Sequential recommenders: the defects of published codes, one test each, and what texts add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluate.baselines import TRAINED, Baseline, TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.learned import Learned
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.item_texts import item_texts
from evaluate.baselines.networks.sequence_settings import SequenceSettings, TextSettings
from evaluate.baselines.systems.bert4rec import BERT4Rec
from evaluate.baselines.systems.gru4rec import GRU4Rec
from evaluate.baselines.systems.hgn import HGN
from evaluate.baselines.systems.llm_esr import LLMESR
from evaluate.baselines.systems.sasrec import FIRST_SASREC, SASRec
from evaluate.baselines.systems.seralm import SeRALM
from evaluate.baselines.versions import EARLIER_DEFAULTS, default_of_run
from programs.mote import MOTE, item_text
from programs.motivation_encoder import MotivationEncoder
from programs.prior.encoders import HashingEncoder
from programs.prior.scorers import ContentSimilarity
from programs.runtime.errors import InputError
from programs.runtime.events import Event, KeptFit, Note
from programs.trait_store import TraitStore, trait_key
from signatures.schema import CONSUMER
from signatures.types import Item
from tests.support.cases import case, training_of

torch = pytest.importorskip("torch")

from evaluate.baselines.networks import sequence_training as training_module  # noqa: E402 - needs torch
from evaluate.baselines.networks.sequence_network import SequenceNetwork  # noqa: E402

SMALL: dict[str, Any] = {"dimensions": 8, "length": 6, "batch": 8, "epochs": 1, "validation": 0}
CAUSAL: list[SequenceSettings] = [SASRec(**SMALL), GRU4Rec(**SMALL), HGN(**SMALL), LLMESR(**SMALL), SeRALM(**SMALL)]
ITEMS = 12
TEXTS = HashingEncoder().encode([f"thing {number} of kind {number % 3}" for number in range(ITEMS + 2)])


def network_of(settings: SequenceSettings, users: int = 5) -> SequenceNetwork:
    torch.manual_seed(0)
    return SequenceNetwork(settings, ITEMS, users, TEXTS if isinstance(settings, TextSettings) else None)


def plan_of(settings: SequenceSettings) -> FitPlan:
    return FitPlan("fit", settings.epochs, settings.patience, seed=0)


def by_name(settings: SequenceSettings) -> str:
    return settings.name


def shop(texts: Mapping[str, str] | None = None) -> TrainingData:
    """Twenty users of twelve items, and an item that nobody has."""
    rng = np.random.default_rng(0)
    histories = {f"u{user}": [f"i{item}" for item in rng.permutation(ITEMS)[:5]] for user in range(20)}
    items = {f"i{n}": Item(item_id=f"i{n}", title=f"thing {n} of kind {n % 3}") for n in range(ITEMS + 1)}
    items |= {item: items[item].model_copy(update={"title": title}) for item, title in (texts or {}).items()}
    vectors = HashingEncoder().encode([item.text for item in items.values()])
    return TrainingData(
        training_of(histories),
        items,
        content=ContentSimilarity(dict(zip(items, vectors, strict=True))),
        motivations=MotivationEncoder(HashingEncoder(), CONSUMER, items),
    )


@pytest.mark.parametrize("settings", CAUSAL, ids=by_name)
def test_a_state_does_not_know_later_items(settings: SequenceSettings) -> None:
    """LLM-ESR's code has its causal mask commented out: position t read its own label, the item at t + 1."""
    network = network_of(settings).eval()
    one, other = torch.tensor([[0, 1, 2, 3, 4, 5]]), torch.tensor([[0, 1, 2, 9, 8, 7]])
    users = torch.tensor([2])
    states, changed = network(one, users)[0], network(other, users)[0]
    assert torch.allclose(states[:3], changed[:3], atol=1e-6)
    assert not torch.allclose(states[3:], changed[3:], atol=1e-3)
    assert network(one[:1, :1], users).shape == (1, 1, network.vectors.size), "a batch of one history of one item"


@pytest.mark.parametrize("settings", CAUSAL, ids=by_name)
def test_padding_changes_nothing(settings: SequenceSettings) -> None:
    network = network_of(settings).eval()
    histories = [np.array([3, 1]), np.array([4, 2, 0, 5, 1])]
    users = torch.tensor([0, 1])
    together = network.last_states(histories, users)
    alone = network.last_states(histories[:1], users[:1])
    assert torch.allclose(together[0], alone[0], atol=1e-6)


def test_gates_are_parameters_and_are_trained() -> None:
    """The authors' instance gates were variables outside `parameters()`, so that no optimizer knew them."""
    before = {name: value.clone() for name, value in network_of(HGN(**SMALL), 20).named_parameters()}
    gates = [name for name in before if "feature_" in name or "instance_" in name]
    assert len(gates) == 5
    settings = HGN(**SMALL)
    sequences = [np.random.default_rng(user).permutation(ITEMS)[:6] for user in range(20)]
    plan = plan_of(settings)
    short = training_module.train(sequences, ITEMS, settings, plan)
    longer = training_module.train(sequences, ITEMS, settings, replace(plan, epochs=plan.epochs + 1))
    for name in gates:
        assert not torch.equal(short.state_dict()[name], longer.state_dict()[name]), name


def test_negatives_are_scored_by_the_vectors_of_the_positives() -> None:
    """RecBole's HGN takes the negatives of BPR from the table that is read, the positives from the one that scores."""
    network = network_of(HGN(**SMALL))
    states = torch.randn(3, 8)
    loss = training_module.sampled_softmax(network, states, torch.tensor([0, 1, 2]), ITEMS, np.random.default_rng(0))
    loss.backward()
    assert network.vectors.item.weight.grad is None
    assert (network.vectors.scored.weight.grad[:ITEMS].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("settings", CAUSAL, ids=by_name)
def test_scores_of_lists_and_of_the_catalogue_are_the_same(settings: SequenceSettings) -> None:
    network = network_of(settings).eval()
    states = network.last_states([np.array([3, 1])], torch.tensor([0]))
    rows = torch.arange(ITEMS)
    whole = network.scores(states, rows)[0]
    found = network.list_scores([np.array([3, 1])], [0], np.zeros(ITEMS, dtype=np.int64), rows.numpy())
    np.testing.assert_allclose(found, whole.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_a_user_outside_the_fit_has_a_vector_of_zeros() -> None:
    network = network_of(HGN(**SMALL), users=5).eval()
    assert not network.encoder.user.weight[network.unknown_user].any()
    ranker = HGN(**SMALL).fit(shop(), 0)
    stranger = ranker.rank(case(["i1", "i2"], ["i3", "i4"], "stranger")).scores["hgn"]
    assert stranger == ranker.rank(case(["i1", "i2"], ["i3", "i4"], "other")).scores["hgn"]
    assert stranger != ranker.rank(case(["i1", "i2"], ["i3", "i4"], "u0")).scores["hgn"]


@pytest.mark.parametrize("settings", [LLMESR(**SMALL), SeRALM(**SMALL)], ids=by_name)
def test_items_without_users_are_neither_negatives_nor_trained(settings: SequenceSettings) -> None:
    """Otherwise a fit learns to put below all others what nobody has."""
    sequences = [np.random.default_rng(user).permutation(ITEMS)[:6] for user in range(20)]
    network = training_module.train(sequences, ITEMS, settings, plan_of(settings), TEXTS)
    assert not network.vectors.item.weight[ITEMS : ITEMS + 2].any()
    assert not network.bias[ITEMS:].any() and network.bias[:ITEMS].all()
    assert network.vectors.item.weight[:ITEMS].any(dim=1).all()
    assert not any("frozen" in name for name in network.state_dict()), "texts are not kept with every fit"


def test_similar_users_are_those_with_similar_texts_in_training() -> None:
    vectors = np.eye(3, dtype=np.float32)
    histories = [np.array([0, 0]), np.array([1]), np.array([0, 1, 0]), np.array([2]), np.array([1, 2, 1])]
    assert training_module.similar_users(vectors, histories, 1)[:3, 0].tolist() == [2, 4, 0]
    assert training_module.similar_users(vectors, histories, 9).shape == (5, 4)
    assert training_module.similar_users(vectors, histories[:1], 9).tolist() == [[0]]


def test_self_distillation_draws_states_of_similar_users_together() -> None:
    def spread(weight: float) -> float:
        sequences = [np.random.default_rng(user).permutation(ITEMS)[:6] for user in range(20)]
        settings = LLMESR(**{**SMALL, "epochs": 30, "dropout": 0.0, "distilled": weight, "similar": 5})
        network = training_module.train(sequences, ITEMS, settings, plan_of(settings), TEXTS).eval()
        states = network.last_states(sequences, torch.arange(20))
        similar = training_module.similar_users(TEXTS, sequences, 5)
        return ((states - states[torch.from_numpy(similar)].mean(dim=1)) ** 2).mean().item()

    assert spread(3.0) < 0.8 * spread(0.0)


@pytest.mark.parametrize("name", ["gru4rec", "hgn", "sasrec", "bert4rec", "llm-esr", "seralm", "neumf"])
def test_fits_are_kept_and_found_again(name: str, tmp_path: Path) -> None:
    settings = TRAINED[name].model_validate({"epochs": 2, "batch": 8, "validation": 4})
    asked = case(["i1", "i2"], [f"i{n}" for n in range(ITEMS)], "u0")
    events: list[Event] = []
    first = settings.fit(shop(), 0, Fitting(tmp_path, events.append)).rank(asked)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(f"{name}-")
    before = len(events)
    again = settings.fit(shop(), 0, Fitting(tmp_path, events.append)).rank(asked)
    assert again == first
    assert KeptFit(f"fitting {name}: the fit is kept in {folder}", folder) in events[before:]
    settings.fit(shop(), 1, Fitting(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2, "another seed is another fit"
    assert settings.fit(shop(), 0).rank(asked) == first, "keeping a fit does not change it"


def test_learned_keeps_the_fits_of_the_network_among_its_sources(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    settings = Learned(groups=("content", "sasrec"), sasrec=SASRec(**SMALL), trees=2, negatives=3)
    asked = case(["i1", "i2"], [f"i{n}" for n in range(ITEMS)], "u0")
    events: list[Event] = []
    first = settings.fit(shop(), 0, Fitting(tmp_path)).rank(asked)
    assert len(list(tmp_path.glob("sasrec-*"))) == 2, "one on the training data of the lists, one on all"
    assert settings.fit(shop(), 0, Fitting(tmp_path, events.append)).rank(asked) == first
    assert sum("the fit is kept in" in str(event) for event in events) == 2
    assert settings.environment() == SASRec().environment() and not Learned().environment()


def test_other_texts_are_another_fit(tmp_path: Path) -> None:
    settings = SeRALM(**SMALL)
    traits = replace(shop(), traits=lambda: {"i1": "cuddly; soft"})
    settings.fit(shop(), 0, Fitting(tmp_path))
    settings.fit(traits, 0, Fitting(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_traits_are_read_where_there_are_some_and_titles_elsewhere() -> None:
    events: list[Event] = []
    data = replace(shop({"i0": ""}), traits=lambda: {"i1": "cuddly; soft", "i0": "for a desk"})
    found = item_texts(data, "traits", "seralm", events.append)
    assert events == [Note("seralm: 2 items are known by their traits, 11 by their titles")]
    expected = HashingEncoder().encode(["for a desk", "cuddly; soft", "thing 2 of kind 2"])
    np.testing.assert_array_equal(found.vectors[[found.rows["i0"], found.rows["i1"], found.rows["i2"]]], expected)


def test_texts_that_are_missing_are_named() -> None:
    data = shop()
    without = replace(data, motivations=None)
    with pytest.raises(InputError, match="'seralm' needs training data with a sentence encoder"):
        SeRALM(**SMALL).fit(without, 0)
    bare = replace(data, items={}, content=ContentSimilarity({}))
    for settings in (LLMESR(**SMALL), SeRALM(**SMALL)):
        with pytest.raises(InputError, match=f"'{settings.name}' reads item texts, and no item has one; give titles"):
            settings.fit(bare, 0)


@pytest.mark.parametrize("earlier", EARLIER_DEFAULTS, ids=lambda earlier: earlier.name)
def test_runs_that_were_begun_with_an_earlier_default_go_on_with_it(earlier: Baseline) -> None:
    recorded, newest = earlier.model_dump(mode="json"), TRAINED[earlier.name]()
    assert default_of_run(earlier.name, recorded) == earlier != newest
    assert default_of_run(earlier.name, newest.model_dump(mode="json")) == newest
    assert default_of_run("gru4rec", recorded) == GRU4Rec()


def test_settings_of_older_runs_are_still_those_that_they_recorded() -> None:
    common = {"dimensions": 64, "layers": 2, "heads": 2, "length": 20, "negatives": 1000, "batch": 128, "rate": 2e-3}
    common |= {"validation": 2000}
    sasrec = {**common, "dropout": 0.5, "epochs": 30, "patience": 2}
    bert4rec = {**common, "dropout": 0.3, "epochs": 60, "patience": 4, "masked": 0.4, "last_only": 0.3}
    assert FIRST_SASREC.model_dump(mode="json") == sasrec
    # BERT4Rec was changed in a way that its settings cannot undo: runs of the first version are begun anew.
    assert default_of_run("bert4rec", bert4rec).model_dump(mode="json") == {**bert4rec, "cut": 0.5}


def test_histories_are_masked_at_random_or_cut_and_masked_at_their_end() -> None:
    real = torch.arange(6) < torch.tensor([2, 4, 6]).repeat_interleave(200)[:, None]
    lengths = real.sum(dim=1)
    for cut in (0.0, 1.0):
        settings = BERT4Rec(cut=cut, masked=0.4, last_only=0.0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            seen, masked = training_module._masked(real, settings)
        assert (seen <= real).all() and (masked <= seen).all() and masked.any(dim=1).all()
        ends = seen.sum(dim=1) - 1
        if cut:
            assert (masked.sum(dim=1) == 1).all() and masked[torch.arange(len(real)), ends].all()
            for length in (2, 4, 6):
                assert ends[lengths == length].unique().tolist() == list(range(1, length))
        else:
            assert (seen == real).all() and masked[:, 0].any()


def test_the_place_of_the_next_item_is_the_same_in_histories_of_all_lengths() -> None:
    network = SequenceNetwork(BERT4Rec(**{**SMALL, "dropout": 0.0}), 5, 3).eval()
    network.encoder.blocks = torch.nn.Identity()
    network.encoder.blocks.forward = lambda vectors, **_: vectors
    with torch.no_grad():
        states = network.last_states([np.array([1]), np.array([2, 3, 4])], torch.tensor([0, 1]))
    assert torch.equal(states[0], states[1])


def test_stored_traits_are_read_without_asking_a_model() -> None:
    from programs.lm.backends import Backends
    from programs.lm.ledger import Ledger
    from programs.lm.roles import RoleConfig, Roles

    roles = Roles.all_on(RoleConfig(model="openai/never-asked"))
    store = TraitStore()
    mote = MOTE(Backends(roles, Ledger()), store)
    item = Item(item_id="a", title="A soft bear")
    assert mote.stored(item) is None
    from programs.lm.endpoints import model_name

    store.put(trait_key(item_text(item), mote.prompt(), model_name(roles.mote)), ["cuddly", "for a bed"])
    assert mote.stored(item) == mote(item).traits.render()
