"""Training lists for readers of texts: any purchase may be a target, in the shape of the setting's own lists."""

from __future__ import annotations

import time
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.training_lists import further_lists, steps_back
from evaluate.protocol.protocol import EvaluationProtocol
from signatures.rows import Case
from signatures.types import Interaction, Item

ITEMS = [f"i{n}" for n in range(12)]
CATALOGUE = {item: Item(item_id=item, title=item) for item in ITEMS}
PROTOCOL = EvaluationProtocol(dataset="shop", source="in-memory", dataset_sha256="0" * 64)
shops = st.dictionaries(
    st.sampled_from([f"u{n}" for n in range(8)]),
    st.lists(st.sampled_from(ITEMS), min_size=2, max_size=9),
    min_size=1,
)


def training(shop: dict[str, list[str]]) -> TrainingData:
    events = {user: tuple(Interaction(item_id=item) for item in items) for user, items in shop.items()}
    return TrainingData(events, CATALOGUE, {}, protocol=PROTOCOL)


def key(case: Case) -> tuple[str, str | None]:
    return case.user_id, case.target


@given(shops, st.integers(0, 30), st.integers(0, 3))
def test_further_lists_are_purchases_with_the_history_before_them(
    shop: dict[str, list[str]], count: int, seed: int
) -> None:
    data = training(shop)
    if all(len(set(items)) == 1 for items in shop.values()):
        return  # no list of any shape
    shaped = [case for step in steps_back(data, 3, 0) for case in step.cases]
    found = further_lists(data, shaped, count, 3, seed)
    assert found == further_lists(data, shaped, count, 3, seed)
    assert found == further_lists(data, shaped, 1000, 3, seed)[:count]
    assert not {key(case) for case in shaped} & {key(case) for case in found}
    lengths = {len(case.history) for case in shaped} or {1}
    for case in found:
        items = shop[case.user_id]
        before = [event.item_id for event in case.history]
        assert before and (len(before) in lengths or before == items[: len(before)])
        assert case.target not in before
        places = [place for place, item in enumerate(items) if item == case.target]
        assert any(items[place - len(before) : place] == before for place in places if place >= len(before))
        assert case.candidates.count(str(case.target)) == 1
        assert not set(case.candidates) & set(items) - {case.target}


def test_histories_are_as_short_as_those_of_the_protocol() -> None:
    shop = {user: [f"i{n}" for n in range(start, start + 6)] for start, user in enumerate(("a", "b", "c"))}
    data = training(shop)
    assert data.protocol is not None
    short = replace(data, protocol=data.protocol.model_copy(update={"last": 2}))
    shaped = [case for step in steps_back(short, 3, 0) for case in step.cases]
    assert [[event.item_id for event in case.history] for case in shaped if case.user_id == "a"] == [["i3", "i4"]]
    assert {len(case.history) for case in further_lists(short, shaped, 100, 3, 0)} <= {1, 2}


def test_all_other_purchases_are_there() -> None:
    data = training({"a": ["i0", "i1", "i2", "i3"], "b": ["i4", "i4", "i5"]})
    shaped = [case for step in steps_back(data, 3, 0) for case in step.cases]
    assert {key(case) for case in shaped} == {("a", "i3"), ("b", "i5")}
    assert {key(case) for case in further_lists(data, shaped, 100, 3, 0)} == {("a", "i1"), ("a", "i2")}


def test_a_history_of_thousands_takes_no_more_than_its_length() -> None:
    # Compared item by item with all before them, these would take minutes.
    data = training({"a": [f"i{n}" for n in range(40_000)], "b": ["i0", "x"]})
    began = time.process_time()
    assert len(further_lists(data, [], 1, 3, 0)) == 1
    assert time.process_time() - began < 10
