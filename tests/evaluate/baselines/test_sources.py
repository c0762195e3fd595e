"""Feature sources of `learned`: what each knows, and what none may know."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.baselines import TrainingData
from evaluate.baselines.learned import Learned
from evaluate.baselines.sources.graph import Graph
from evaluate.baselines.sources.lists import FeatureColumns, ItemIndex, Lists
from evaluate.baselines.sources.past import Past
from evaluate.baselines.sources.relative import Relative
from evaluate.baselines.sources.sequence_scores import SequenceScores
from evaluate.baselines.sources.shop import Shop
from evaluate.baselines.sources.texts import Content, Overlap
from evaluate.baselines.sources.transitions import Transitions
from evaluate.baselines.sources.user import User
from evaluate.baselines.systems.sasrec import SASRec
from evaluate.baselines.training_lists import steps_back
from evaluate.protocol.protocol import IN_MEMORY, EvaluationProtocol, Setting
from programs.prior.prior import Prior
from programs.prior.scorers import ContentSimilarity, ItemKNN
from signatures.rows import Case
from signatures.types import Interaction, Item
from tests.support.cases import case

DAY = 86_400
INDEX = ItemIndex.of("abcdefgh")


def bought(*events: tuple[str, int]) -> tuple[Interaction, ...]:
    return tuple(Interaction(item_id=item, timestamp=day * DAY) for item, day in events)


def dated(day: int, candidates: str) -> Case:
    return Case(user_id="u", history=bought(("a", day)), candidates=tuple(candidates))


def past(training: dict[str, tuple[Interaction, ...]], asked: Case) -> FeatureColumns:
    return Past(training, INDEX).features(Lists.of([asked], INDEX))


def test_past_sales_count_up_to_the_newest_purchase() -> None:
    training = {"v": bought(("b", 10), ("b", 80), ("c", 100)), "w": bought(("b", 100), ("b", 101), ("d", 101))}
    found = dict(zip(Past.names, past(training, dated(100, "bcdz")).T, strict=True))
    np.testing.assert_allclose(np.expm1(found["sales.30"]), [2, 1, 0, np.nan])
    np.testing.assert_allclose(np.expm1(found["sales.all"]), [3, 1, 0, np.nan])
    np.testing.assert_allclose(np.expm1(found["since"]), [0, 0, np.nan, np.nan])
    np.testing.assert_allclose(np.expm1(found["age"]), [90, 0, np.nan, np.nan])


def test_a_later_sale_never_counts() -> None:
    rng = np.random.default_rng(0)
    early = {f"v{n}": bought(*((item, int(rng.integers(0, 101))) for item in "abcd")) for n in range(20)}
    late = {f"w{n}": bought(*((item, int(rng.integers(101, 300))) for item in "bcdef")) for n in range(20)}
    asked = dated(100, "bcdefz")
    np.testing.assert_array_equal(past(early | late, asked), past(early, asked))
    assert not np.array_equal(past(early | late, dated(300, "bcdefz")), past(early, dated(300, "bcdefz")))


def test_without_dates_past_sales_are_unknown() -> None:
    assert np.isnan(past({"v": bought(("b", 1))}, case(["a"], ["b"]))).all()
    assert np.isnan(past({"v": (Interaction(item_id="b"),)}, dated(5, "b"))[:, 4:6]).all()


def world(users: int = 300) -> TrainingData:
    """Users with up to six of forty items, some of them rare, over a thousand days."""
    rng = np.random.default_rng(1)
    weights = np.arange(1, 41) / np.arange(1, 41).sum()
    sequences = {}
    for number in range(users):
        items = rng.choice(40, size=int(rng.integers(2, 7)), replace=False, p=weights)
        days = np.sort(rng.integers(0, 1000, size=len(items)))
        sequences[f"u{number}"] = bought(*((f"i{item}", int(day)) for item, day in zip(items, days, strict=True)))
    return TrainingData(sequences, {f"i{n}": Item(item_id=f"i{n}", title=f"thing {n}") for n in range(40)})


def protocol(setting: Setting) -> EvaluationProtocol:
    return EvaluationProtocol.for_dataset("x", IN_MEMORY, "0", setting=setting, target="last", sampling="matched")


@pytest.mark.parametrize("setting", ["warm", "item-cold", "user-cold"])
def test_features_of_training_lists_never_saw_the_purchase_of_the_target(setting: Setting) -> None:
    data = world()
    steps = steps_back(TrainingData(data.interactions, data.items, protocol=protocol(setting)), 8, seed=0)
    assert sum(len(step.cases) for step in steps) > 20
    for step in steps:
        for one in step.cases:
            fitted = step.training.get(one.user_id, ())
            assert one.target not in {event.item_id for event in fitted}
            assert one.target not in one.item_ids
            own = data.interactions[one.user_id]
            assert not set(one.candidates) & {event.item_id for event in own} - {one.target}
            assert all(event in own for event in (*fitted, *one.history))


def test_training_lists_have_the_shape_of_the_setting() -> None:
    data = world()
    for setting in ("warm", "item-cold", "user-cold"):
        shaped = TrainingData(data.interactions, data.items, protocol=protocol(setting))
        steps = steps_back(shaped, 8, seed=0)
        for step in steps:
            known = {event.item_id for events in step.training.values() for event in events}
            for one in step.cases:
                assert (one.user_id in step.training) == (setting == "warm")
                if setting == "item-cold":
                    assert one.target not in known
                if setting == "user-cold":
                    newest = max(event.timestamp or 0 for events in step.training.values() for event in events)
                    assert len(one.history) == 1 and (one.history[0].timestamp or 0) > newest
        assert len(steps) == (1 if setting == "warm" else 3)


def test_too_little_data_for_a_cold_step_is_learned_from_warm_lists() -> None:
    few = {"u": bought(("a", 1), ("b", 2)), "v": bought(("c", 1), ("d", 2))}
    (step,) = steps_back(TrainingData(few, {}, protocol=protocol("user-cold")), 2, seed=0)
    assert {one.target for one in step.cases} == {"b", "d"}


def test_the_graph_agrees_with_the_priors_parts() -> None:
    data = world()
    rng = np.random.default_rng(0)
    # Five texts are of items that are not in the index.
    vectors = rng.normal(size=(45, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    content = ContentSimilarity({f"i{n}": vectors[n] for n in range(45)})
    index = ItemIndex.of(data.items)
    candidates = [f"i{n}" for n in range(20, 40)]
    cases = [case([f"i{n}", f"i{n + 1}"], [*candidates, "nowhere"], f"u{n}") for n in range(8)]
    found = Graph(data.histories, content, index).features(Lists.of(cases, index)).reshape(8, 21, -1)
    prior, knn = Prior.fit(data.histories, content), ItemKNN.fit(data.histories)
    for own, asked, parts in zip(found, cases, prior.parts_of(cases), strict=True):
        named = dict(zip(Graph.names, own.T, strict=True))
        np.testing.assert_allclose(named["walk"], np.sqrt(parts["walk"]), rtol=1e-5)
        np.testing.assert_allclose(named["via"], np.sqrt(parts["via"]), rtol=1e-5)
        np.testing.assert_allclose(named["popularity"], np.log1p(parts["popularity"]))
        similar = knn.similarity(asked.item_ids, asked.candidates)
        np.testing.assert_allclose(named["knn"], np.sqrt(similar), rtol=1e-4, atol=1e-6)
        newest = knn.similarity(asked.item_ids[-1:], asked.candidates)
        np.testing.assert_allclose(named["knn.newest"], np.sqrt(newest), rtol=1e-4, atol=1e-6)
        own_content = Content(content, index).features(Lists.of([asked], index))
        np.testing.assert_allclose(own_content[:-1, 0], parts["content"][:-1], atol=1e-9)
        assert np.isnan(own_content[-1]).all()


def test_a_list_has_the_same_features_alone_and_among_others() -> None:
    data = world()
    index = ItemIndex.of(data.items)
    texts = {name: item.title.split() for name, item in data.items.items()}
    sources = [
        Relative(Graph(data.histories, ContentSimilarity({}), index)),
        Relative(Past(data.interactions, index)),
        Relative(Overlap(texts, "words", index)),
        Relative(Shop(data.items, index)),
        Relative(Transitions(data.histories, {f"i{n}": str(n % 5) for n in range(40)}, "group", index)),
        User(),
    ]
    cases = [
        Case(user_id=user, history=events, candidates=tuple(f"i{n}" for n in range(number % 7)))
        for number, (user, events) in enumerate(list(data.interactions.items())[:20])
    ]
    for source in sources:
        together = source.features(Lists.of(cases, index))
        alone = np.vstack([source.features(Lists.of([one], index)) for one in cases])
        np.testing.assert_allclose(together, alone, rtol=1e-6)
        assert together.shape[1] == len(source.names)


def test_many_lists_at_once_have_the_scores_of_each_alone() -> None:
    pytest.importorskip("lightgbm")
    data = world()
    ranker = Learned(trees=5, groups=("graph", "words", "past")).fit(data, 0)
    cases = [
        Case(user_id=user, history=events, candidates=tuple(f"i{n}" for n in range(number % 7, 20)))
        for number, (user, events) in enumerate(list(data.interactions.items())[:20])
    ]
    assert ranker.rank_many(cases) == [ranker.rank(asked) for asked in cases]


def test_relative_features_compare_candidates() -> None:
    class Fixed:
        names = ("x", "flat")

        def features(self, lists: Lists) -> FeatureColumns:
            return np.array([[1.0, 7.0], [3.0, 7.0], [np.nan, 7.0], [3.0, np.nan]])

    table = Relative(Fixed()).features(Lists.of([case([], list("abcd"))], INDEX))
    np.testing.assert_allclose(table[:, 2], [-(2**0.5), 2**-0.5, np.nan, 2**-0.5])
    np.testing.assert_allclose(table[:, 3], [0, 0, 0, np.nan])
    np.testing.assert_allclose(table[:, 4], [1 / 6, 2 / 3, np.nan, 2 / 3])


def test_overlap_and_shop_compare_with_the_history() -> None:
    overlap = Overlap({"a": ["all", "x"], "b": ["all", "x"], "c": ["all", "y"], "d": ["all"]}, "word", INDEX)
    table = overlap.features(Lists.of([case(["c", "a"], ["b", "c", "d", "nowhere"])], INDEX))
    np.testing.assert_allclose(table[:3], [[1, 0.5, 1], [1, 0.5, 0], [0, 0, 0]], atol=1e-6)
    assert np.isnan(table[3]).all()
    items = {
        "a": Item(item_id="a", brand="Lego", price=1.0),
        "b": Item(item_id="b", brand="Lego", price=3.0),
        "c": Item(item_id="c"),
    }
    table = Shop(items, INDEX).features(Lists.of([case(["a", "c"], ["b", "c", "nowhere"])], INDEX))
    np.testing.assert_allclose(table[0], [1, np.log(4), np.log(2)])
    assert np.isnan(table[1:]).all()


def test_user_constants() -> None:
    asked = Case(user_id="u", history=bought(("a", 0), ("b", 2), ("c", 10)), candidates=("d",))
    found = User().features(Lists.of([asked, case(["a"], ["b"])], INDEX))
    np.testing.assert_allclose(found, [[3, np.log(11), np.log(6), np.log(9)], [1, np.nan, np.nan, np.nan]])


def test_the_report_shows_what_a_learned_ranker_relies_on() -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    from evaluate.report.reproduction import importance_tables

    runs = [SimpleNamespace(importance={"a": 0.2, "b": 0.8}), SimpleNamespace(importance={"a": 0.4, "b": 0.6})]
    groups: Any = [SimpleNamespace(label="learned", runs=runs), SimpleNamespace(label="knn", runs=[])]
    (table,) = importance_tables(cast(Any, groups))
    assert [[cell.text for cell in row.cells] for row in table.rows] == [["b", "0.700"], ["a", "0.300"]]


def test_transitions_count_what_was_bought_right_after() -> None:
    labels = {"a": "ball", "b": "ball", "c": "doll", "d": "doll"}
    histories = {f"u{n}": ["a", "c"] for n in range(40)} | {"v": ["c", "d", "e", "b"]}
    source = Transitions(histories, labels, "category", INDEX)
    found = source.features(Lists.of([case(["d", "b"], ["a", "c", "e", "nowhere"])], INDEX))
    named = dict(zip(source.names, found.T, strict=True))
    # 40 purchases after a ball, all of a doll; 41 + 1 of 41 + 2 seconds of all pairs are dolls.
    share = 42 / 43
    assert np.exp(named["category.next.newest"][1]) == pytest.approx((40 + 10 * share) / 50)
    assert np.exp(named["category.next.newest"][0]) == pytest.approx((10 * (1 - share)) / 50)
    after_doll = (1 + 10 * share) / 11
    mean = ((40 + 10 * share) / 50 + 0.7 * after_doll) / 1.7
    assert np.exp(named["category.next"][1]) == pytest.approx(mean)
    assert named["category.lift"][1] == pytest.approx(np.log(mean / share))
    assert named["category.run"][:2].tolist() == [1, 0]
    assert np.isnan(found[2:]).all()


def test_transitions_without_a_known_history_are_the_shares() -> None:
    source = Transitions({"u": ["a", "c"]}, {"a": "ball", "c": "doll"}, "category", INDEX)
    found = source.features(Lists.of([case([], ["a", "c"]), case(["h"], ["a", "c"])], INDEX))
    np.testing.assert_allclose(np.exp(found[:, 0]), [1 / 3, 2 / 3] * 2)
    np.testing.assert_allclose(found[:, 2:], 0, atol=1e-12)
    assert Transitions({}, {}, "brand", INDEX).features(Lists.of([case(["a"], ["b"])], INDEX)).shape == (1, 4)


def test_the_scores_of_a_sequential_recommender_are_those_it_ranks_by() -> None:
    pytest.importorskip("torch")
    data = world(60)
    index = ItemIndex.of(data.items)
    ranker = SASRec(dimensions=8, heads=1, layers=1, length=4, epochs=1, validation=0).fit(data, 0)
    known = [item for item in data.items if item in ranker.rows]
    cases = [case(history, known) for history in ([], known[:2], known[:9], ["nowhere", known[3]])]
    found = SequenceScores(ranker, index).features(Lists.of(cases, index)).reshape(4, -1)
    for own, asked in zip(found, cases, strict=True):
        np.testing.assert_allclose(own, ranker.rank(asked).scores["sasrec"], rtol=1e-3, atol=1e-5)
    assert np.isnan(SequenceScores(ranker, index).features(Lists.of([case(known[:2], ["nowhere"])], index))).all()
