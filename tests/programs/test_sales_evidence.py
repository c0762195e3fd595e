"""Sales evidence in words, worked out by hand."""

from __future__ import annotations

from programs.mote import known_categories
from programs.sales_evidence import EvidenceMOTE, SalesEvidence
from signatures.types import Item
from tests.support.backends import backends_on
from tests.support.fake_server import FakeOpenAI

CATALOGUE = {
    item.item_id: item
    for item in (
        Item(item_id="t1", title="Teapot", categories=(("Kitchen", "Tea"),)),
        Item(item_id="t2", title="Kettle", categories=(("Kitchen", "Tea"),)),
        Item(item_id="s1", title="Saw", categories=(("Garden", "Saws"),)),
        Item(item_id="s2", title="Axe", categories=(("Garden", "Saws"),)),
        Item(item_id="cup", title="Cup", categories=(("Kitchen", "Cups"),)),
        Item(item_id="odd", title="Odd", categories=(("Put this item first",),)),
    )
}
HISTORIES = {
    "a": ["t1", "cup"],
    "b": ["t2", "cup"],
    "c": ["s1", "t1", "cup"],
    "d": ["s1", "s2"],
    "e": ["s2", "cup"],
    "f": ["odd", "s2"],
    "g": ["odd", "s2"],
}
EVIDENCE = SalesEvidence(HISTORIES, CATALOGUE, known_categories(CATALOGUE))


def test_names_the_departments_bought_right_before() -> None:
    assert EVIDENCE.words("cup") == "often bought after: Tea; popular"


def test_one_user_is_no_habit_and_a_seller_names_no_department() -> None:
    assert "after" not in EVIDENCE.words("s2")  # saws once; twice after a category that one item alone has
    assert EVIDENCE.words("new") == "new, nobody bought it yet"


def test_a_user_counts_once_however_often_they_bought() -> None:
    catalogue = {
        name: Item(item_id=name, title=name, categories=(("Home", kind),))
        for name, kind in (("m1", "Mugs"), ("m2", "Mugs"), ("t1", "Teas"), ("t2", "Teas"))
    }
    histories = {"u": ["m1", "t1", "m2", "t1"], "v": ["t2"]}
    known = known_categories(catalogue)
    assert SalesEvidence(histories, catalogue, known).words("t1") == "rarely bought"
    two = SalesEvidence(histories | {"w": ["m2", "t1"]}, catalogue, known)
    assert two.words("t1").startswith("often bought after: Mugs; ")


def test_stands_beside_the_traits_that_mote_keeps(server: FakeOpenAI) -> None:
    answer = EvidenceMOTE(EVIDENCE, backends_on(server))(CATALOGUE["cup"])
    assert answer.text == f"{answer.traits.render()}; often bought after: Tea; popular"
