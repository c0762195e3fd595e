"""The protocol: who is held out, who is tuned on, and candidate lists that leak nothing and cannot be altered."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluate.data.dataset import Dataset
from evaluate.protocol.cases import Cases, draw_lists, load_cases, users_short_of_items, write_cases
from evaluate.protocol.protocol import Target, held_out, part_of
from evaluate.protocol.splits import split_dataset
from programs.runtime.errors import InputError
from signatures.types import Interaction
from tests.support.datasets import Event, make_dataset, protocol_for


@pytest.fixture(scope="module")
def shop() -> Dataset:
    """200 users with four liked items each, out of 50."""
    rows: dict[str, list[Event]] = {
        f"user{u:03}": [(f"i{(7 * u + 11 * p) % 50:02}", 5.0) for p in range(4)] for u in range(200)
    }
    return make_dataset(rows, unbought=("never-bought",), metadata={"user007": {"age": "35"}})


@pytest.mark.parametrize(
    ("ratings", "last_liked", "highest", "last"),
    [
        ([5, 4, 3], 1, None, 2),  # the highest is the first interaction: nothing before it
        ([4, 5, 5, 4, 1], 3, 2, 4),  # the latest of the two fives
        ([1, 2, 3], None, None, 2),  # 3 is not above 3
        ([1, 3.5], 1, 1, 1),
        ([5, 1], None, None, 1),  # liked only the first
        ([None, None], 1, None, 1),  # clicks count as liked, but none is the highest rated
        ([2, None, 4, None, 2], 3, 2, 4),
        ([5], None, None, None),
        ([], None, None, None),
    ],
)
def test_target_policies_on_a_hand_made_table(
    ratings: list[float | None], last_liked: int | None, highest: int | None, last: int | None
) -> None:
    sequence = [Interaction(item_id=f"i{n}", rating=r) for n, r in enumerate(ratings)]
    assert held_out(sequence, "last-liked") == last_liked
    assert held_out(sequence, "highest") == highest
    assert held_out(sequence, "last") == last


def test_training_histories_end_before_the_target() -> None:
    dataset = make_dataset(
        {
            "ends-badly": [("a", 5), ("b", 4), ("c", 1)],
            "liked-nothing": [("a", 1), ("b", 2)],
            "single": [("c", 5)],
        }
    )
    assert split_dataset(dataset, protocol_for(dataset, target="last-liked")).histories == {
        "ends-badly": ("a",),
        "liked-nothing": ("a", "b"),
        "single": ("c",),
    }
    training = split_dataset(dataset, protocol_for(dataset, target="last")).histories
    assert training == {"ends-badly": ("a", "b"), "liked-nothing": ("a",), "single": ("c",)}


def test_parts_are_disjoint_fixed_and_about_halves(shop: Dataset) -> None:
    parts = [part_of(f"A{n:06}") for n in range(10_000)]
    assert 4_800 < parts.count("dev") < 5_200  # four standard deviations
    users = {
        part: {case.user_id for case in draw_lists(shop, protocol_for(shop, part=part, seed=seed))}
        for part, seed in [("dev", 0), ("test", 1), ("all", 2)]
    }
    assert not users["dev"] & users["test"]
    assert users["dev"] | users["test"] == users["all"] == set(shop.sequences)


def test_a_case_holds_the_history_the_target_and_the_metadata() -> None:
    rows: dict[str, list[Event]] = {
        "ann": [("a", 4), ("b", None), ("c", 5), ("d", 1)],
        "bob": [("e", 5)],
        "cid": [("f", 5), ("a", 1)],
    }
    dataset = make_dataset(rows, unbought=("g",), metadata={"ann": {"region": "north"}})
    (case,) = draw_lists(
        dataset, protocol_for(dataset, negatives=2)
    )  # bob has one interaction, cid's target no history
    assert [(e.item_id, e.rating) for e in case.history] == [("a", 4.0), ("b", None)]
    assert (case.user_id, case.target, case.metadata) == ("ann", "c", {"region": "north"})
    assert set(case.candidates) == {"c", "e", "f"}  # d comes later in ann's own sequence, g was never bought


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    item = st.integers(0, 39).map("i{:02}".format)
    rating = st.sampled_from([None, 1.0, 3.0, 4.0, 5.0])
    sequences = draw(st.lists(st.lists(st.tuples(item, rating), min_size=1, max_size=6), min_size=1, max_size=12))
    everything: list[tuple[str, float | None]] = [(f"i{n:02}", 2.0) for n in range(40)]
    return make_dataset(
        {f"u{n}": rows for n, rows in enumerate(sequences)} | {"whale": everything[:30], "ant": everything[30:]}
    )


@settings(max_examples=60, deadline=None)
@given(datasets(), st.sampled_from(["last-liked", "highest", "last"]), st.integers(0, 2**40), st.integers(1, 10))
def test_no_case_leaks_the_users_own_items(dataset: Dataset, target: Target, seed: int, negatives: int) -> None:
    protocol = protocol_for(dataset, target=target, seed=seed, negatives=negatives)
    try:
        cases = draw_lists(dataset, protocol)
    except InputError:
        assert all(held_out(sequence, target) is None for sequence in dataset.sequences.values())
        return
    fitted = split_dataset(dataset, protocol).histories
    assert {c.user_id for c in cases} == {u for u, s in dataset.sequences.items() if held_out(s, target) is not None}
    for case in cases:
        own = {event.item_id for event in dataset.sequences[case.user_id]}
        assert own & set(case.candidates) == {case.target}
        assert len(case.candidates) == len(set(case.candidates)) == negatives + 1
        assert tuple(event.item_id for event in case.history) == fitted[case.user_id] != ()
        position = len(case.history)
        assert dataset.sequences[case.user_id][position].item_id == case.target


def test_fewer_users_are_a_prefix_and_other_parts_give_the_same_lists(shop: Dataset) -> None:
    everyone = draw_lists(shop, protocol_for(shop))
    assert draw_lists(shop, protocol_for(shop, users=40)) == everyone[:40]
    assert draw_lists(shop, protocol_for(shop, part="dev")) == [c for c in everyone if part_of(c.user_id) == "dev"]
    assert len(draw_lists(shop, protocol_for(shop, users=10_000))) == 200


def test_skipped_users_are_the_first_ones(shop: Dataset, tmp_path: Path) -> None:
    everyone = draw_lists(shop, protocol_for(shop))
    protocol = protocol_for(shop, users=30, skip=40)
    assert draw_lists(shop, protocol) == everyone[40:70]
    write_cases(tmp_path / "cases.jsonl", protocol, draw_lists(shop, protocol))
    again = load_cases(tmp_path / "cases.jsonl").on(shop)
    assert again.protocol.skip == 40
    assert not again.leaks_in(split_dataset(shop, protocol))
    assert len(draw_lists(shop, protocol_for(shop, skip=190))) == 10
    with pytest.raises(InputError, match="skip 200: there are only 200 users"):
        draw_lists(shop, protocol_for(shop, skip=200))


def test_policies_that_agree_on_a_target_agree_on_the_list(shop: Dataset) -> None:
    assert draw_lists(shop, protocol_for(shop, target="last")) == draw_lists(shop, protocol_for(shop))


def test_another_seed_draws_other_users_and_other_lists(shop: Dataset) -> None:
    zero, one = (draw_lists(shop, protocol_for(shop, seed=seed, negatives=5)) for seed in (0, 1))
    assert [c.user_id for c in zero] != [c.user_id for c in one]
    lists = {case.user_id: case.candidates for case in zero}
    assert sum(lists[case.user_id] == case.candidates for case in one) < 5


def test_slots_and_negatives_are_uniform(shop: Dataset) -> None:
    cases = [case for seed in range(10) for case in draw_lists(shop, protocol_for(shop, seed=seed, negatives=5))]
    slots = Counter(case.candidates.index(case.target) for case in cases)
    assert set(slots) == set(range(6))
    # 2000 draws: 333 in each slot, standard deviation 16.7
    assert all(250 < count < 417 for count in slots.values())
    shown = Counter(item for case in cases for item in case.candidates if item != case.target)
    assert "never-bought" not in shown
    # 10,000 negatives over 50 items that every user is equally likely to own: 200 each, standard deviation 14
    assert set(shown) == set(shop.items) - {"never-bought"}
    assert all(130 < count < 270 for count in shown.values())
    first = Counter(next(item for item in case.candidates if item != case.target) for case in cases)
    assert max(first.values()) < 85  # 40 each, standard deviation 6.3: the order in a list is random as well


def test_a_catalogue_that_just_suffices_gives_every_other_item_once() -> None:
    rows: dict[str, list[Event]] = {"ann": [("a", 5), ("b", 5)], "bob": [("c", 5), ("d", 5), ("e", 5)]}
    dataset = make_dataset(rows)
    cases = {c.user_id: set(c.candidates) for c in draw_lists(dataset, protocol_for(dataset, negatives=2))}
    assert cases["bob"] == {"e", "a", "b"}
    assert cases["ann"] < {"b", "c", "d", "e"}


def test_too_many_negatives_say_how_many_there_are() -> None:
    rows: dict[str, list[Event]] = {"ann": [("a", 5), ("b", 5)], "bob": [("c", 5), ("d", 5), ("e", 5)]}
    dataset = make_dataset(rows, unbought=("f", "g", "h"))
    with pytest.raises(InputError, match=r"4 negatives asked.* catalogue of 5 items .* at most 3 negatives"):
        draw_lists(dataset, protocol_for(dataset, negatives=4))
    assert [case.user_id for case in draw_lists(dataset, protocol_for(dataset, negatives=3))] == ["ann"]


def test_by_popularity_a_user_with_too_few_items_to_draw_is_left_out() -> None:
    rows: dict[str, list[Event]] = {
        # What is bought at day 9 has no user in the training data, so popularity never draws it.
        "most": [(item, 5, 1) for item in "abcd"] + [("late0", 5, 9)],
        **{f"few{n}": [("abcdef"[n + k], 5, 1) for k in range(2)] + [(f"late{n}", 5, 9)] for n in range(5)},
    }
    dataset = make_dataset(rows)
    protocol = protocol_for(dataset, setting="time", since=9, sampling="popularity", negatives=4)
    assert {case.user_id for case in draw_lists(dataset, protocol)} == {f"few{n}" for n in range(5)}
    assert users_short_of_items(dataset, protocol) == ["most"]
    uniform = protocol.model_copy(update={"sampling": "uniform"})
    assert len(draw_lists(dataset, uniform)) == 6 and users_short_of_items(dataset, uniform) == []
    with pytest.raises(InputError, match=r"of 6 items with users in the training data .* at most 4 negatives"):
        draw_lists(dataset, protocol.model_copy(update={"negatives": 5}))


def test_a_part_without_targets_is_an_error() -> None:
    dataset = make_dataset({"ann": [("a", 1), ("b", 2)]})
    with pytest.raises(InputError, match="no user has a 'last-liked' target"):
        draw_lists(dataset, protocol_for(dataset))


def test_other_data_is_refused_when_drawing_and_when_checking(shop: Dataset, tmp_path: Path) -> None:
    protocol = protocol_for(shop)
    drawn = write_cases(tmp_path / "cases.jsonl", protocol, draw_lists(shop, protocol))
    assert drawn.on(shop).dataset is shop
    other = make_dataset({"ann": [("a", 5), ("b", 5)]})
    with pytest.raises(InputError, match="is not the data of these cases"):
        drawn.on(other)
    with pytest.raises(InputError, match="is not the data of these cases"):
        draw_lists(other, protocol)


def test_sources_are_made_absolute_except_the_demo(
    shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert protocol_for(shop, source="data/toys").source == str(tmp_path / "data" / "toys")
    assert protocol_for(shop, source="demo").source == "demo"


@pytest.mark.parametrize("choice", [{"negatives": 0}, {"users": 0}, {"part": "train"}, {"target": "first"}])
def test_impossible_protocols_are_refused(shop: Dataset, choice: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        protocol_for(shop, **choice)


@pytest.fixture
def written(shop: Dataset, tmp_path: Path) -> tuple[Path, Cases]:
    path = tmp_path / "runs" / "cases.jsonl"
    protocol = protocol_for(shop, part="dev", users=20, negatives=5)
    return path, write_cases(path, protocol, draw_lists(shop, protocol))


def test_a_file_reads_back_as_it_was_written(shop: Dataset, written: tuple[Path, Cases], tmp_path: Path) -> None:
    path, case_file = written
    assert load_cases(path) == case_file
    assert [p.name for p in path.parent.iterdir()] == ["cases.jsonl"]
    again = write_cases(tmp_path / "again.jsonl", case_file.protocol, draw_lists(shop, case_file.protocol))
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert again.sha256 == case_file.sha256
    header = json.loads(path.read_text().splitlines()[0])
    assert (header["format"], header["n"], header["users"], header["part"]) == ("mllm3rec-cases/1", 20, 20, "dev")


def test_unknown_ratings_texts_in_any_script_and_metadata_survive(tmp_path: Path) -> None:
    rows: dict[str, list[Event]] = {"zoë\u2028\n": [("a", None), ("ü", None)], "bob": [("c", 5), ("d", 5)]}
    dataset = make_dataset(rows, metadata={"zoë\u2028\n": {"región": "サ"}})
    protocol = protocol_for(dataset, negatives=2)
    drawn = write_cases(tmp_path / "cases.jsonl", protocol, draw_lists(dataset, protocol))
    assert load_cases(tmp_path / "cases.jsonl").cases == drawn.cases
    assert "null" not in (tmp_path / "cases.jsonl").read_text()


def test_a_failed_write_leaves_the_old_file(written: tuple[Path, Cases], monkeypatch: pytest.MonkeyPatch) -> None:
    path, case_file = written
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_cases(path, case_file.protocol, case_file.cases[:3])
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["cases.jsonl"]


def edited_case(change: Callable[[dict[str, Any]], object]) -> Callable[[list[str]], list[str]]:
    """Changes the case in line 3."""

    def edit(lines: list[str]) -> list[str]:
        case = json.loads(lines[2])
        change(case)
        return [*lines[:2], json.dumps(case), *lines[3:]]

    return edit


def edited_header(**changes: object) -> Callable[[list[str]], list[str]]:
    return lambda lines: [json.dumps(json.loads(lines[0]) | changes), *lines[1:]]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda lines: [*lines[:2], lines[2].replace('"rating":5.0', '"rating":4.0'), *lines[3:]],
            ":1: .*changed after",
        ),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], ":1: .*changed after"),
        (
            edited_case(lambda case: case.update(target=case["candidates"][0], candidates=case["candidates"][::-1])),
            ":1: .*changed after",
        ),
        (lambda lines: lines[:-1], ":1: the header announces 20 cases, the file has 19"),
        (lambda lines: [*lines[:-1], lines[-1][:40]], ":21: Invalid JSON"),
        (lambda lines: [*lines[:2], "", *lines[2:]], ":3: Invalid JSON"),
        (lambda lines: [*lines, lines[4]], ":22: user 'user.*' is already in line 5"),
        (edited_case(lambda case: case.pop("target")), ":3: target: Field required"),
        (
            edited_case(lambda case: case["history"][0].pop("item_id")),
            r":3: history\.0\.item_id: Field required",
        ),
        (edited_case(lambda case: case.update(target="elsewhere")), ":3: .*not among the candidates"),
        (edited_case(lambda case: case.update(candidates=[case["target"]])), ":3: .*has 1 candidates, 5 negatives"),
        (edited_header(negatives=29), ":2: .*has 6 candidates, 29 negatives and the target make 30"),
        (edited_header(part="test"), ":2: user 'user.*' is not a test user"),
        (edited_header(format="mllm3rec-cases/2"), ":1: format 'mllm3rec-cases/2' cannot be read"),
        (edited_header(n="many"), ":1: n: "),
        (lambda lines: edited_header(n=0, sha256=hashlib.sha256(b"").hexdigest())(lines[:1]), ":1: n: .* equal to 1"),
        (edited_header(surprise=1), ":1: surprise: "),
        (lambda lines: lines[1:], ":1: not a cases file"),
        (lambda lines: ["user_id,item_id"], ":1: not a cases file"),
        (lambda lines: [], ":1: not a cases file"),
    ],
)
def test_a_tampered_file_is_refused_with_file_and_line(
    written: tuple[Path, Cases], edit: Callable[[list[str]], list[str]], message: str
) -> None:
    path, _ = written
    lines = edit(path.read_text().splitlines())
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(InputError, match="cases.jsonl" + message):
        load_cases(path)


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"\xff\xfe\x00\n\x01")
    with pytest.raises(InputError, match="blob:1: not a cases file"):
        load_cases(tmp_path / "blob")
    with pytest.raises(InputError, match="missing: cannot be read: No such file"):
        load_cases(tmp_path / "missing")
