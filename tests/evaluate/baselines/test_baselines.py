"""Trained baselines on two groups of shoppers who share nothing: what each must find, and what none may do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.baselines import TRAINED, Baseline, TrainingData
from evaluate.baselines.baseline import unknown_below
from evaluate.baselines.factors import FactorRanker, Factors
from evaluate.baselines.features_v1 import (
    HistoryLength,
    OverlapV1,
    PriceAndBrand,
    RankerScores,
    RecordedScores,
    RelativeV1,
    Signals,
    feature_table,
)
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.item_features import columns_of, feature_matrix, feature_names
from evaluate.baselines.language import LanguageModel
from evaluate.baselines.learned import Group, Learned
from evaluate.baselines.learned_v1 import LearnedV1, LearnedV1Ranker, learn
from evaluate.baselines.networks.network_baseline import NetworkBaseline
from evaluate.baselines.networks.sequence_settings import SequenceSettings
from evaluate.baselines.systems.bert4rec import BERT4Rec
from evaluate.baselines.systems.bpr import BPR
from evaluate.baselines.systems.diff4rec import Diff4Rec
from evaluate.baselines.systems.diffrec import DiffRec
from evaluate.baselines.systems.diffuasr import DiffuASR
from evaluate.baselines.systems.ease import EASE
from evaluate.baselines.systems.genrec import GenRec
from evaluate.baselines.systems.gru4rec import GRU4Rec
from evaluate.baselines.systems.hft import HFT
from evaluate.baselines.systems.hgn import HGN
from evaluate.baselines.systems.ials import IALS
from evaluate.baselines.systems.kgat import KGAT
from evaluate.baselines.systems.lightfm import LightFM, LightFMFeatures
from evaluate.baselines.systems.llm_esr import LLMESR
from evaluate.baselines.systems.llmrec import LLMRec
from evaluate.baselines.systems.neumf import NeuMF
from evaluate.baselines.systems.p5 import P5
from evaluate.baselines.systems.sasrec import SASRec
from evaluate.baselines.systems.seralm import SeRALM
from evaluate.baselines.systems.tiger import TIGER
from evaluate.baselines.training_lists import last_item_lists
from evaluate.baselines.tuning import Tuned, tune
from evaluate.protocol.protocol import part_of
from evaluate.ranker_choice import RankerChoice
from programs.motivation_encoder import MotivationEncoder
from programs.prior.encoders import HashingEncoder
from programs.prior.scorers import ContentSimilarity, histories_of
from programs.program import Fusion
from programs.ranker import Ranker, ranking_from_scores
from programs.runtime.errors import InputError, MissingExtraError
from signatures.rows import Case, Ranking
from signatures.schema import CONSUMER, MotivationSchema
from signatures.types import Item
from tests.support.cases import case, training_of
from tests.support.torch_threads import two_threads

_SEQUENCES: dict[str, Any] = {
    "dimensions": 16,
    "dropout": 0.0,
    "length": 6,
    "batch": 16,
    "rate": 0.01,
    "validation": 0,
}
_CODES: dict[str, Any] = {
    "dimensions": 32,
    "layers": 1,
    "heads": 2,
    "dropout": 0.0,
    "batch": 32,
    "rate": 5e-3,
    "epochs": 6,
    "examples": 1000,
    "validation": 0,
}
SMALL: dict[str, Baseline] = {
    "bpr": BPR(factors=8, epochs=200),
    "ials": IALS(factors=8),
    "ease": EASE(penalty=10.0),
    "lightfm": LightFM(factors=8, epochs=30),
    "lightfm-features": LightFMFeatures(factors=8, epochs=30),
    "neumf": NeuMF(factors=8, layers=(16, 8), batch=64, rate=0.02, epochs=8, validation=0),
    "gru4rec": GRU4Rec(**_SEQUENCES, epochs=15),
    "hgn": HGN(**_SEQUENCES, epochs=15),
    "sasrec": SASRec(**_SEQUENCES, epochs=15),
    "bert4rec": BERT4Rec(**_SEQUENCES, epochs=50),
    "llm-esr": LLMESR(**_SEQUENCES, epochs=15),
    "seralm": SeRALM(**_SEQUENCES, epochs=15),
    "kgat": KGAT(dimensions=16, layers=(16,), batch=128, rate=0.02, epochs=15, validation=0),
    "llmrec": LLMRec(dimensions=16, batch=128, rate=0.02, epochs=15, validation=0),
    "diffrec": DiffRec(hidden=16, batch=16, rate=0.01, epochs=20, validation=0),
    "diff4rec": Diff4Rec(
        **_SEQUENCES, epochs=15, diffusion=DiffRec(hidden=16, batch=16, rate=0.01, epochs=10, validation=0)
    ),
    "diffuasr": DiffuASR(**_SEQUENCES, epochs=15, least=4, generated=2, guide=3, diffusion_epochs=3),
    "p5": P5(**_CODES),
    "genrec": GenRec(**_CODES),
    "tiger": TIGER(**_CODES),
    "hft": HFT(factors=4, penalty=1.0, least_items=2),
    "learned": Learned(trees=30, leaves=4, least=5, negatives=8, bpr=BPR(factors=4, epochs=20)),
}
NEEDS = {
    "bpr": "cornac",
    "ials": "implicit",
    "lightfm": "lightfm",
    "lightfm-features": "lightfm",
    "ease": "threadpoolctl",
    "neumf": "torch",
    "gru4rec": "torch",
    "hgn": "torch",
    "sasrec": "torch",
    "bert4rec": "torch",
    "llm-esr": "torch",
    "seralm": "torch",
    "kgat": "torch",
    "llmrec": "torch",
    "diffrec": "torch",
    "diff4rec": "torch",
    "diffuasr": "torch",
    "p5": "transformers",
    "genrec": "transformers",
    "tiger": "transformers",
    "learned": "lightgbm",
}
"""The package of an extra that a fit imports, by ranker; one that needs none is not here."""
DETERMINISTIC = frozenset({"ease"})
"""Rankers whose fit draws nothing at random."""

SEQUENCES = [name for name, settings in SMALL.items() if isinstance(settings, SequenceSettings)]
BY_ID = [
    "bpr",
    "ials",
    "ease",
    "lightfm",
    "neumf",
    "gru4rec",
    "hgn",
    "sasrec",
    "bert4rec",
    "diffrec",
    "diff4rec",
    "diffuasr",
    "p5",
    "genrec",
]
"""Rankers that know an item by its users alone."""
BY_TEXT = ["llm-esr", "seralm", "kgat", "llmrec", "tiger", "hft"]

EACH = pytest.mark.parametrize("name", list(SMALL))

KINDS = ("ball", "doll")
GOODS = {kind: [f"{kind}{number}" for number in range(10)] for kind in KINDS}
ALL = GOODS["ball"] + GOODS["doll"]


def item(item_id: str, kind: str) -> Item:
    return Item(item_id=item_id, title=f"nice {kind} of its own", categories=(("Toys", f"{kind}s"),))


@cache
def material(in_turn: bool = False) -> TrainingData:
    """Sixty shoppers who buy balls and sixty who buy dolls; `new ball` and `new doll` are nobody's.

    Everyone has five of the ten, at random or one after the other.
    """
    rng = np.random.default_rng(0)
    histories = {}
    for kind in KINDS:
        for shopper in range(60):
            chosen = (shopper + np.arange(5)) % 10 if in_turn else rng.permutation(10)[:5]
            histories[f"{kind} {shopper}"] = tuple(GOODS[kind][number] for number in chosen)
    items = {one: item(one, kind) for kind in KINDS for one in [*GOODS[kind], f"new {kind}"]}
    vectors = HashingEncoder().encode([item.text for item in items.values()])
    return TrainingData(
        training_of(histories),
        items,
        content=ContentSimilarity(dict(zip(items, vectors, strict=True))),
        motivations=MotivationEncoder(HashingEncoder(), CONSUMER, items),
    )


@cache
def fitted(name: str, seed: int = 0, in_turn: bool = False) -> Ranker:
    for package in {NEEDS.get(name, "numpy"), "cornac" if name == "learned" else "numpy"}:
        pytest.importorskip(package)
    settings = SMALL[name]
    if in_turn and isinstance(settings, SequenceSettings):  # an order takes longer to learn than a kind
        settings = settings.model_copy(update={"epochs": 4 * settings.epochs})
    return settings.fit(material(in_turn), seed)


def above(ranking: Ranking, own: str, other: str) -> float:
    """Share of pairs in which an item of the one kind stands above an item of the other."""
    places = {one: place for place, one in enumerate(ranking.order)}
    pairs = [(a, b) for a in places if own in a for b in places if other in b]
    return float(np.mean([places[a] < places[b] for a, b in pairs]))


def test_the_registry_names_every_ranker_and_its_grid() -> None:
    assert [name for name, settings in TRAINED.items() if not issubclass(settings, LanguageModel)] == list(SMALL)
    for name, baseline in TRAINED.items():
        grid = baseline.grid()
        assert baseline.name == name
        assert grid[0] == baseline() and len(set(map(repr, grid))) == len(grid) > 1
        assert [baseline.model_validate_json(one.model_dump_json()) for one in grid] == list(grid)


@EACH
def test_known_shoppers_get_their_own_kind_first(name: str) -> None:
    ranker = fitted(name)
    for own, other in (KINDS, KINDS[::-1]):
        found = [
            above(ranker.rank(case(material().histories[user], ALL, user)), own, other)
            for user in (f"{own} {shopper}" for shopper in range(10))
        ]
        assert np.mean(found) > 0.9


@EACH
def test_unknown_shoppers_get_their_own_kind_first(name: str) -> None:
    ranker = fitted(name)
    for own, other in (KINDS, KINDS[::-1]):
        assert above(ranker.rank(case(GOODS[own][2:5], ALL)), own, other) > 0.8


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence_models_find_what_comes_next(name: str) -> None:
    ranker = fitted(name, in_turn=True)
    first = [ranker.rank(case([GOODS["ball"][start]], ALL)).order[0] for start in range(9)]
    assert sum(found == GOODS["ball"][start + 1] for start, found in enumerate(first)) >= 6


@EACH
def test_same_seed_same_scores_and_another_seed_others(name: str) -> None:
    asked = case(["ball1", "ball2"], [*ALL, "new ball"])
    scores = fitted(name).rank(asked).scores[name]
    assert SMALL[name].fit(material(), 0).rank(asked).scores[name] == scores
    assert (fitted(name, 1).rank(asked).scores[name] == scores) == (name in DETERMINISTIC)


@EACH
@pytest.mark.parametrize("history", [[], ["nowhere"], ["new ball"]])
def test_a_history_of_nothing_known_is_ranked(name: str, history: list[str]) -> None:
    ranking = fitted(name).rank(case(history, ALL))
    assert sorted(ranking.order) == sorted(ALL)
    assert np.isfinite(ranking.scores[name]).all()


@pytest.mark.parametrize("name", BY_ID)
def test_items_nobody_has_tie_below_all_others(name: str) -> None:
    scores = fitted(name).rank(case(["ball1"], ["new ball", *ALL, "new doll", "nowhere"])).scores[name]
    assert scores[0] == scores[-1] == scores[-2] < min(scores[1:-2])
    assert fitted(name).rank(case(["ball1"], ["new ball", "new doll"])).scores[name] == [0, 0]


@pytest.mark.parametrize("name", BY_TEXT)
def test_readers_of_texts_rank_items_nobody_has_by_what_they_are(name: str) -> None:
    for own, other in (KINDS, KINDS[::-1]):
        asked = case(GOODS[own][:3], [f"new {other}", f"new {own}", "nowhere"])
        assert fitted(name).rank(asked).order == (f"new {own}", f"new {other}", "nowhere")
        among = fitted(name).rank(case(GOODS[own][:3], [*ALL, f"new {own}"])).order
        assert among.index(f"new {own}") < len(ALL), "not below all others because nobody has it"


def test_lightfm_with_features_ranks_items_nobody_has_by_what_they_are() -> None:
    for own, other in (KINDS, KINDS[::-1]):
        asked = case(GOODS[own][:3], [f"new {other}", f"new {own}", "nowhere"])
        assert fitted("lightfm-features").rank(asked).order == (f"new {own}", f"new {other}", "nowhere")


def test_lightfm_scores_items_nobody_has_by_features_alone() -> None:
    data = material()
    ball = data.items["new ball"]
    twins = {name: ball.model_copy(update={"item_id": name}) for name in ("twin 1", "twin 2")}
    unlike = {"unlike": Item(item_id="unlike", title="zzz")}
    ranker = LightFMFeatures(factors=8, epochs=30).fit(replace(data, items={**data.items, **twins, **unlike}), 0)
    scores = ranker.rank(case(["ball1"], ["twin 1", "ball2", "twin 2", "unlike", "nowhere"])).scores["lightfm-features"]
    assert scores[0] == scores[2]
    assert scores[3] == scores[4] < min(scores[:3]), "nothing is known of it"


@EACH
@given(data=st.data())
def test_every_ranking_is_a_permutation_with_finite_scores(name: str, data: st.DataObject) -> None:
    names = st.sampled_from([*ALL, "new ball", "nowhere", "elsewhere"])
    history = data.draw(st.lists(names, max_size=12))
    candidates = data.draw(st.lists(names, unique=True, max_size=23))
    user = data.draw(st.sampled_from(["ball 1", "doll 2", "stranger"]))
    ranking = fitted(name).rank(case(history, candidates, user))
    assert sorted(ranking.order) == sorted(candidates)
    assert len(ranking.scores[name]) == len(candidates)
    assert np.isfinite(ranking.scores[name]).all()


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NEEDS[name], None)
    for module in [module for module in sys.modules if module.startswith(("sklearn.", "cornac.", "lightfm."))]:
        monkeypatch.delitem(sys.modules, module)
    if name == "learned":
        pytest.importorskip("cornac")
    extra = {"torch": "neural", "transformers": "finetune"}.get(NEEDS[name], "baselines")
    with pytest.raises(MissingExtraError, match=rf"'{name}' needs the package .*mllm3rec\[{extra}\]"):
        TRAINED[name]().fit(material(), 0)


def test_tiger_asks_for_its_extra_before_it_makes_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="'tiger' needs the package 'transformers'"):
        TIGER().fit(replace(material(), content=ContentSimilarity({})), 0)  # where codes would be an error of their own


@EACH
def test_ranking_is_safe_across_threads(name: str) -> None:
    ranker = fitted(name)
    cases = [case(GOODS[kind][start : start + 3], ALL) for kind in KINDS for start in range(7)] * 3
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ranker.rank, cases)) == [ranker.rank(one) for one in cases]


@pytest.mark.parametrize("name", [name for name, settings in SMALL.items() if isinstance(settings, NetworkBaseline)])
def test_ranking_leaves_the_threads_of_torch_alone(name: str) -> None:
    torch = pytest.importorskip("torch")
    ranker = fitted(name)
    with two_threads():
        assert ranker.rank(case(["ball1", "ball2"], ALL)) == ranker.rank(case(["ball1", "ball2"], ALL))
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", [name for name in SEQUENCES if name not in ("diff4rec", "diffuasr")])
def test_sequence_models_stop_where_validation_is_best(name: str) -> None:
    torch = pytest.importorskip("torch")
    from evaluate.baselines.networks import sequence_training

    validated = SMALL[name].model_copy(update={"validation": 10, "epochs": 12, "patience": 2})
    figures = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    asked = case(["ball1", "ball2"], ALL)
    before = torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence_training, "ndcg_among_all", lambda *_: next(figures))
        stopped = validated.fit(material(), 0).rank(asked).scores[name]
    assert next(figures) == 0.9, "two epochs without a better figure end the training"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence_training, "ndcg_among_all", lambda *_: 0.0)
        short = validated.model_copy(update={"epochs": 2, "patience": 9}).fit(material(), 0).rank(asked).scores[name]
    assert stopped != short, "the second epoch was the best of the one, the first of the other"
    assert torch.equal(torch.get_rng_state(), before), "a fit leaves torch's own random numbers alone"


def test_sequence_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="64 dimensions cannot be divided by 3 heads"):
        SASRec(heads=3)
    with pytest.raises(ValueError, match="masked"):
        BERT4Rec(masked=0)


def test_long_histories_are_cut_into_windows_that_lose_nothing() -> None:
    pytest.importorskip("torch")
    from evaluate.baselines.networks.sequence_training import _windows

    history = np.arange(9)
    found = [window.rows.tolist() for window in _windows(history, 0, SASRec(length=3))]
    assert found == [[5, 6, 7, 8], [2, 3, 4, 5], [0, 1, 2]], "each but the first item follows another once"
    masked = _windows(history, 0, BERT4Rec(length=4))
    assert [window.rows.tolist() for window in masked] == [[5, 6, 7, 8], [1, 2, 3, 4]]


def test_nothing_to_fit_is_an_error() -> None:
    with pytest.raises(InputError, match="no user has a history"):
        TrainingData(training_of({"u": ()}), {})
    with pytest.raises(InputError, match="no history has two items"):
        Learned().fit(TrainingData(training_of({"u": ("a",)}), {}), 0)
    pytest.importorskip("lightgbm")
    with pytest.raises(InputError, match="lists with negatives"):
        Learned().fit(TrainingData(training_of({"u": ("a", "b")}), {}), 0)


class TestFactors:
    factors = Factors(
        users={"known": 0},
        user_vectors=np.array([[0.0, 2.0]], dtype=np.float32),
        items={"a": 0, "b": 1, "c": 2},
        item_vectors=np.array([[3.0, 0.0], [5.0, 0.0], [0.0, 1.0]], dtype=np.float32),
        item_biases=np.array([0.25, 0.0, 0.5], dtype=np.float32),
        traits={"gender=F": np.array([0.0, 4.0], dtype=np.float32)},
    )

    def scores(self, user: str, history: Sequence[str], metadata: dict[str, str] | None = None) -> list[float]:
        asked = case(history, ["a", "b", "c", "new"], user).model_copy(update={"metadata": metadata or {}})
        return FactorRanker("factors", self.factors).rank(asked).scores["factors"]

    def test_a_known_user_has_a_vector(self) -> None:
        assert self.scores("known", ["a"]) == [0.25, 0, 2.5, -1]

    def test_a_stranger_is_folded_in_with_the_length_of_a_user(self) -> None:
        assert self.scores("stranger", ["a", "b", "nowhere"]) == [6.25, 10, 0.5, -0.5]

    def test_traits_are_averaged_with_the_history(self) -> None:
        assert self.scores("stranger", ["a"], {"gender": "F", "age": "30"}) == [3.25, 5, 2.5, 1.5]
        assert self.scores("stranger", [], {"gender": "F"}) == [0.25, 0, 4.5, -1]

    def test_nothing_known_leaves_the_biases(self) -> None:
        assert self.scores("stranger", []) == [0.25, 0, 0.5, -1]


def test_metadata_becomes_user_features() -> None:
    pytest.importorskip("lightfm")
    histories = material().histories
    loves = {user: {"loves": user.split()[0], "empty": ""} for user in histories}
    ranker = SMALL["lightfm-features"].fit(TrainingData(training_of(histories), {}, loves), 0)
    assert isinstance(ranker, FactorRanker)
    assert set(ranker.factors.traits) == {"loves=ball", "loves=doll", "empty="}
    for own, other in (KINDS, KINDS[::-1]):
        asked = case([], ALL).model_copy(update={"metadata": {"loves": own}})
        assert above(ranker.rank(asked), own, other) > 0.9


def test_unknown_scores_are_finite_without_a_known_one() -> None:
    assert unknown_below([], [], 2).tolist() == [0, 0]


def test_features_of_items() -> None:
    items = {
        "a": Item(item_id="a", title="Red box", brand="Lego", price=1.0, categories=(("Toys", "Games"),)),
        "b": Item(item_id="b", title="Red car", brand="Lego", price=100.0),
        "c": Item(item_id="c"),
    }
    assert feature_names(items, least_items=2) == {
        "a": ["category:Toys", "category:Toys > Games", "price:0", "brand:Lego", "word:red"],
        "b": ["price:9", "brand:Lego", "word:red"],
        "c": [],
    }
    rows = [["x", "y"], [], ["y", "unheard"]]
    columns = columns_of([["x", "y"], [], ["y"]])
    third, half = 1 / 3, 1 / 2
    expected = [[third, 0, 0, third, third], [0, 1, 0, 0, 0], [0, 0, half, 0, half]]
    np.testing.assert_allclose(feature_matrix(rows, columns).toarray(), expected, rtol=1e-6)


class TestSources:
    def test_signals_know_the_newest_item(self) -> None:
        content = ContentSimilarity({"a": np.array([1.0, 0.0]), "b": np.array([0.6, 0.8]), "c": np.array([0.0, 1.0])})
        signals = Signals({"u": ["a", "b"], "v": ["b", "c"]}, content)
        found = dict(zip(signals.names, signals.features(case(["a", "b"], ["c"]))[0].tolist(), strict=True))
        assert found["knn"] == found["knn.newest"] == pytest.approx(2**-0.25)
        assert found["content"] == pytest.approx(0.4) and found["content.newest"] == pytest.approx(0.8)
        assert found["popularity"] == pytest.approx(np.log(2))

    def test_relative_features_compare_candidates(self) -> None:
        class Fixed:
            names = ("x", "flat")

            def features(self, case: Case) -> np.ndarray:
                return np.array([[1.0, 7.0], [3.0, 7.0], [np.nan, 7.0], [3.0, np.nan]])

        relative = RelativeV1(Fixed())
        table = relative.features(case([], list("abcd")))
        assert relative.names == ("x", "flat", "x.z", "flat.z", "x.above", "flat.above")
        np.testing.assert_allclose(table[:, 2], [-(2**0.5), 2**-0.5, np.nan, 2**-0.5])
        np.testing.assert_allclose(table[:, 3], [0, 0, 0, np.nan])
        np.testing.assert_allclose(table[:, 4], [1 / 6, 2 / 3, np.nan, 2 / 3])

    def test_overlap_weighs_rare_names_only(self) -> None:
        overlap = OverlapV1({"a": ["all", "x"], "b": ["all", "x"], "c": ["all", "y"], "d": ["all"]}, "word")
        table = overlap.features(case(["c", "a"], ["b", "c", "d", "nowhere"]))
        np.testing.assert_allclose(table[:3], [[1, 0.5, 1], [1, 0.5, 0], [0, 0, 0]], atol=1e-12)
        assert np.isnan(table[3]).all()
        assert np.isnan(overlap.features(case(["nowhere"], ["b"]))).all()

    def test_shop_compares_brand_and_price(self) -> None:
        items = {
            "a": Item(item_id="a", brand="Lego", price=1.0),
            "b": Item(item_id="b", brand="Lego", price=3.0),
            "c": Item(item_id="c"),
        }
        shop = PriceAndBrand(items)
        table = shop.features(case(["a", "c"], ["b", "c", "nowhere"]))
        np.testing.assert_allclose(table[0], [1, np.log(4), np.log(2)])
        assert np.isnan(table[1:]).all()
        assert np.isnan(shop.features(case([], ["b"]))[0, [0, 2]]).all()

    def test_scores_of_other_rankers_stand_beside_them(self) -> None:
        class Fixed:
            def rank(self, case: Case) -> Ranking:
                return ranking_from_scores(case, {"mar": [2.0, 1.0]}, by="mar")

        asked = case(["a"], ["x", "y"])
        sources = [HistoryLength(), RankerScores(Fixed(), "mar"), RecordedScores({"other": Fixed().rank(asked)}, "mar")]
        np.testing.assert_array_equal(feature_table(sources, asked), [[1, 2, np.nan], [1, 1, np.nan]])
        recorded = RecordedScores({"stranger": Fixed().rank(asked)}, "mar")
        assert recorded.features(asked).tolist() == [[2.0], [1.0]]
        with pytest.raises(InputError, match="'stranger' ranks other candidates"):
            recorded.features(case(["a"], ["x", "z"]))


class TestLastItemLists:
    def test_hold_out_the_last_item_among_strangers_of_the_user(self) -> None:
        histories = material().histories
        cases = last_item_lists(training_of(histories), negatives=8, seed=0).cases
        assert {one.user_id for one in cases} == set(histories)
        for one in cases:
            history = histories[one.user_id]
            assert one.target == history[-1] and len(one.candidates) == 9
            assert tuple(event.item_id for event in one.history) == history[:-1]
            assert not set(one.candidates[:]) & set(history[:-1])

    def test_depend_on_seed_and_user_alone(self) -> None:
        histories = material().histories
        cases = {one.user_id: one for one in last_item_lists(training_of(histories), 8, seed=0).cases}
        fewer = {user: history for user, history in histories.items() if user not in ("ball 3", "doll 30")}
        assert all(cases[one.user_id] == one for one in last_item_lists(training_of(fewer), 8, seed=0).cases)
        assert last_item_lists(training_of(histories), 8, seed=1).cases != tuple(cases.values())
        places = {one.candidates.index(str(one.target)) for one in cases.values()}
        assert len(places) > 4

    def test_leave_out_what_gives_itself_away(self) -> None:
        histories = {"again": ("a", "b", "a"), "short": ("c",), "fine": ("d", "e")}
        assert [one.user_id for one in last_item_lists(training_of(histories), 2, seed=0).cases] == ["fine"]

    def test_their_features_do_not_know_the_target(self) -> None:
        """An item that only one shopper has resembles nothing once it is held out."""
        training = training_of({"u": ("a", "b", "rare"), "v": ("a", "b", "c")})
        lists = last_item_lists(training, 1, seed=0)
        asked = lists.cases[0]
        leaking = Signals(histories_of(training), ContentSimilarity({})).features(asked)
        clean = Signals(histories_of(lists.training), ContentSimilarity({})).features(asked)
        place = asked.candidates.index("rare")
        assert leaking[place, 0] > 0 and clean[place].tolist() == [0] * 5


def test_a_learner_takes_any_source_and_any_cases() -> None:
    pytest.importorskip("sklearn")
    settings = LearnedV1(trees=20, leaves=3, least=2)
    cases = [case(["ball1"], ["x", "y"], f"u{k}", target="xy"[k % 2]) for k in range(40)]
    told = {
        one.user_id: ranking_from_scores(one, {"mar": [float(one.target == c) for c in one.candidates]}, by="mar")
        for one in cases
    }
    sources = [HistoryLength(), RelativeV1(RecordedScores(told, "mar"))]
    ranker = LearnedV1Ranker("learned+mar", sources, learn(cases, sources, settings, seed=0))
    assert all(ranker.rank(one.blinded()).order[0] == one.target for one in cases)
    with pytest.raises(InputError, match="at least one case"):
        learn([one.blinded() for one in cases], sources, settings, seed=0)
    with pytest.raises(InputError, match="at least one case"):
        learn([], sources, settings, seed=0)


class Spy(Baseline):
    """Ranks the target first from `good` on, and remembers what it was given."""

    name: ClassVar[str] = "spy"
    seen: ClassVar[list[Case]] = []

    good: int = 0

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        return cls(good=0), cls(good=2), cls(good=1), cls(good=2)

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> Ranker:
        good, seen = self.good, self.seen

        class Ranked:
            def rank(self, case: Case) -> Ranking:
                seen.append(case)
                return ranking_from_scores(
                    case, {"spy": [good * (one == "right") for one in case.candidates]}, by="spy"
                )

        return Ranked()


DEV = [user for user in (f"user {number}" for number in range(60)) if part_of(user) == "dev"]
TEST = next(user for user in (f"user {number}" for number in range(60)) if part_of(user) == "test")


def question(user: str) -> Case:
    return case(["a"], [*(f"wrong {number}" for number in range(20)), "right"], user, target="right")


class TestTuning:
    @pytest.fixture(autouse=True)
    def known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(TRAINED, Spy.name, Spy)

    def test_keeps_every_figure_and_the_earliest_best(self) -> None:
        tuned = tune(Spy, material(), [question(user) for user in DEV], seed=0)
        assert [tried["good"] for tried in tuned.tried] == [0, 2, 1, 2]
        assert [tried["NDCG@10"] for tried in tuned.tried][1:] == [1, 1, 1]
        assert tuned.tried[0]["NDCG@10"] < 0.6 and all(tried["seconds"] >= 0 for tried in tuned.tried)
        assert tuned.settings == {"good": 2} and tuned.users == len(DEV)
        assert Tuned.model_validate_json(tuned.model_dump_json()) == tuned

    def test_rankers_see_no_target_and_no_test_user(self) -> None:
        Spy.seen.clear()
        tune(Spy, material(), [question(user) for user in DEV], seed=0)
        assert {one.user_id for one in Spy.seen} == set(DEV)
        assert all(one.target is None for one in Spy.seen)
        Spy.seen.clear()
        with pytest.raises(InputError, match=f"'{TEST}' is a test user"):
            tune(Spy, material(), [*map(question, DEV), question(TEST)], seed=0)
        assert not Spy.seen

    def test_says_what_it_needs(self) -> None:
        with pytest.raises(InputError, match="0 settings, 1 cases"):
            tune(Spy, material(), [question(DEV[0])], seed=0, grid=())
        with pytest.raises(InputError, match="4 settings, 0 cases"):
            tune(Spy, material(), [], seed=0)
        with pytest.raises(InputError, match="has no target"):
            tune(Spy, material(), [question(DEV[0]).blinded()], seed=0)

    def test_the_winner_can_be_fitted_from_its_record(self) -> None:
        pytest.importorskip("cornac")
        grid = (BPR(factors=2, epochs=1), BPR(factors=3, epochs=2))
        cases = [case(["ball1"], ["ball2", "doll2"], DEV[0], target="ball2")]
        tuned = tune(BPR, material(), cases, seed=0, grid=grid)
        assert Tuned.model_validate_json(tuned.model_dump_json()).chosen in grid


def test_a_stranger_is_folded_into_ials_by_least_squares() -> None:
    pytest.importorskip("implicit")
    settings = IALS(factors=4, weight=5.0, penalty=0.5)
    ranker = settings.fit(material(), 0)
    vectors = ranker.factors.item_vectors.astype(float)
    asked = case(["ball1", "ball2", "ball1", "nowhere"], ALL, "stranger")
    own = vectors[[ranker.factors.items[name] for name in ("ball1", "ball2")]]
    left = vectors.T @ vectors + (settings.weight - 1) * own.T @ own + settings.penalty * np.eye(4)
    expected = np.linalg.solve(left, settings.weight * own.sum(axis=0))
    np.testing.assert_allclose(ranker.user_vector(asked), expected, rtol=1e-3, atol=1e-5)
    assert not ranker.user_vector(case([], ALL, "nobody")).any()


@pytest.mark.parametrize("groups", [("ials",), ("transitions",), ("sasrec",), ("graph", "ials", "transitions")])
def test_learned_takes_groups_of_features_that_are_not_in_its_default(groups: tuple[Group, ...]) -> None:
    for package in ("lightgbm", *(["torch"] if "sasrec" in groups else ["implicit"])):
        pytest.importorskip(package)
    small = SMALL["learned"].model_dump() | {"groups": groups, "ials": SMALL["ials"], "sasrec": SMALL["sasrec"]}
    ranker = Learned.model_validate(small).fit(material(), 0)
    own, other = KINDS
    asked = [case(material().histories[f"{own} {number}"], ALL, f"{own} {number}") for number in range(20)]
    assert np.mean([above(ranking, own, other) for ranking in ranker.rank_many(asked)]) > 0.9
    assert {name.split(".")[0] for name in ranker.importance} >= {name for name in groups if name in SMALL}
    assert ranker.rank(asked[3]) == ranker.rank_many(asked)[3]
    # A score does not depend on the lists that are computed at the same time.
    assert ranker.rank_many(asked * 9) == ranker.rank_many(asked) * 9


def test_the_schema_of_leanings_is_recorded_where_they_are_read() -> None:
    other = MotivationSchema(name="two", dimensions=CONSUMER.dimensions[:2])
    reading = RankerChoice("learned", None, Fusion(), other, trained=Learned(groups=("shop", "leanings")))
    assert reading.configuration(0, True)["leanings_schema"] == other.model_dump(mode="json")
    assert "leanings_schema" not in replace(reading, trained=Learned()).configuration(0, True)


def test_learned_can_classify_candidates() -> None:
    pytest.importorskip("lightgbm")
    small = SMALL["learned"].model_copy(update={"groups": ("content", "words"), "objective": "binary"})
    scores = small.fit(material(), 0).rank(case(GOODS["ball"][:3], ALL)).scores["learned"]
    ranked = small.model_copy(update={"objective": "lambdarank"}).fit(material(), 0)
    assert scores != ranked.rank(case(GOODS["ball"][:3], ALL)).scores["learned"]


def test_settings_of_learned_that_came_later_leave_older_records_as_they_were() -> None:
    """Manifests of version 2 that have none of them must stay equal, or their runs would be refused."""
    recorded: dict[str, Any] = {
        "version": 2,
        "trees": 300,
        "leaves": 31,
        "least": 50,
        "rate": 0.05,
        "features": 0.5,
        "negatives": 29,
        "groups": ["graph", "content", "words", "shop", "past", "bpr"],
        "bpr": {"factors": 128, "epochs": 200, "rate": 0.05, "penalty": 0.02},
    }
    assert Learned().model_dump(mode="json") == recorded
    own = Learned(objective="binary", ials=IALS(factors=32))
    assert own.model_dump(mode="json") == recorded | {"objective": "binary", "ials": IALS(factors=32).model_dump()}
    assert Learned.model_validate_json(own.model_dump_json()) == own
