"""Data types that all modules share."""

from __future__ import annotations

from evaluate.data.dataset import Dataset
from evaluate.data.demo.store import demo_dataset
from signatures.types import Interaction, Item, with_items


def test_a_history_with_its_items_lacks_those_that_are_not_in_the_catalogue() -> None:
    mug, events = Item(item_id="mug"), [Interaction(item_id=one) for one in ("gone", "mug", "gone", "mug")]
    assert with_items(events, {"mug": mug}) == [(mug, events[1]), (mug, events[3])]


def test_the_purchases_of_a_user_of_a_dataset() -> None:
    demo = demo_dataset()
    user = next(iter(demo.sequences))
    first, *others = demo.sequences[user]
    smaller = Dataset(
        "smaller", {key: item for key, item in demo.items.items() if key != first.item_id}, demo.interactions
    )
    assert [event for _, event in demo.purchases(user)] == [first, *others]
    assert [(item.item_id, event) for item, event in smaller.purchases(user)] == [
        (event.item_id, event) for event in others if event.item_id != first.item_id
    ]
