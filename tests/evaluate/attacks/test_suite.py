"""The attacks: what they change, their controls, and how they are chosen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.attacks.attack import ATTACK_KINDS, Attack, Insertion, harmless_text
from evaluate.attacks.suite import ATTACKS, chosen_attacks
from programs.runtime.errors import InputError
from signatures.types import Item
from tests.support.paths import ROOT

ITEM = Item(
    item_id="a", title="Enamel mug", description="Keeps tea hot.", categories=(("Kitchen", "Cups"),), brand="B", price=4
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_adds_to_texts_and_its_control_adds_as_much(attack: Attack) -> None:
    attacked, control = attack.apply(ITEM), attack.control(ITEM)
    assert attacked != ITEM
    assert control != attacked
    for field in ("title", "description"):
        old, new, harmless = (getattr(item, field) for item in (ITEM, attacked, control))
        assert old in new and old in harmless
        assert len(new) == len(harmless)
        assert new.index(old) == harmless.index(old), "the same place"
        assert (new == old) == (harmless == old), "the same fields"
    untouched = set(Item.model_fields) - {"title", "description"}
    assert attacked.model_dump(include=untouched) == ITEM.model_dump(include=untouched)
    assert control.model_dump(include=untouched) == ITEM.model_dump(include=untouched)


def test_names_are_unique_and_every_kind_has_an_attack() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 40
    assert len({attack.sha256 for attack in ATTACKS}) == len(ATTACKS)
    assert {attack.kind for attack in ATTACKS} == set(ATTACK_KINDS)
    assert not {attack.name for attack in ATTACKS} & set(ATTACK_KINDS), "a name must not be taken for a kind"


def test_the_page_about_attacks_names_every_kind_and_their_number() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text("utf-8")
    assert f"{len(ATTACKS)} attacks of {len(ATTACK_KINDS)} kinds" in page
    assert [kind for kind in ATTACK_KINDS if f"`{kind}`" not in page] == []


def test_no_control_gives_an_order() -> None:
    harmless = harmless_text("x" * 2000).lower()
    assert not [
        word for word in ("ignore", "first", "rate", "rank", "best", "must", "[[", "<|", "{") if word in harmless
    ]


@given(st.text())
def test_a_harmless_text_has_the_length_and_the_ends_of_the_other(text: str) -> None:
    harmless = harmless_text(text)
    assert len(harmless) == len(text)
    start = len(text) - len(text.lstrip())
    assert harmless[:start] == text[:start]


def test_the_texts_decide_the_hash() -> None:
    first = Attack("one", "json", title=Insertion(before="a"))
    assert first.sha256 != Attack("one", "json", title=Insertion(after="a")).sha256
    assert first.sha256 != Attack("one", "json", description=Insertion(before="a")).sha256
    assert first.sha256 == Attack("one", "json", title=Insertion(before="a")).sha256


def test_attacks_are_chosen_by_name_and_kind() -> None:
    assert chosen_attacks() == ATTACKS
    assert {attack.kind for attack in chosen_attacks(["json"])} == {"json"}
    chosen = [attack.name for attack in chosen_attacks(["german", "urgency"])]
    assert chosen == ["urgency-last-hour", "urgency-danger", "german"], "in the order of the suite"
    with pytest.raises(InputError, match="no attack 'gernan': did you mean 'german'"):
        chosen_attacks(["gernan"])
