"""Hard negatives: of the target's category, never the user's own, same length and place of the target."""

from __future__ import annotations

from optimize.hard_negatives import with_hard_negatives
from signatures.rows import Case
from signatures.types import Interaction, Item

ITEMS = {
    f"{kind}{n}": Item(item_id=f"{kind}{n}", title="x", categories=(("Toys", kind),) if kind != "bare" else ())
    for kind in ("dolls", "cars", "bare")
    for n in range(6)
}
TRAINING = {
    "u": [Interaction(item_id=item) for item in ("dolls0", "dolls1")],
    "others": [Interaction(item_id=item) for item in ITEMS if item != "dolls5"],
}


def case(target: str) -> Case:
    negatives = [item for item in ("cars0", "cars1", "cars2", "bare1", "cars4") if item != target]
    return Case(user_id="u", history=(), candidates=(*negatives[:2], target, *negatives[2:]), target=target)


def test_half_of_the_negatives_are_of_the_targets_category() -> None:
    before = case("dolls1")
    (after,) = with_hard_negatives([before], TRAINING, ITEMS, 0)
    new = set(after.candidates) - set(before.candidates)
    assert new and new <= {"dolls2", "dolls3", "dolls4"}, "neither the user's own nor an item without users"
    assert len(new) == 2
    assert len(after.candidates) == 6 and after.candidates[2] == after.target == "dolls1"
    assert with_hard_negatives([before], TRAINING, ITEMS, 0) == [after]
    assert any(with_hard_negatives([before], TRAINING, ITEMS, seed) != [after] for seed in range(1, 6))


def test_a_target_without_category_keeps_its_negatives() -> None:
    assert with_hard_negatives([case("bare0")], TRAINING, ITEMS, 0) == [case("bare0")]
