"""The setting time: one date for all users; what is later is test, and nothing later is learned from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mllm3rec as m3
from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.training_lists import steps_back
from evaluate.protocol.leakage import find_leaks
from evaluate.protocol.splits import split_dataset
from programs.runtime.errors import InputError
from tests.support.files import write

DAY = 86_400


def shop(rows: list[tuple[str, str, int, float]]) -> m3.Dataset:
    """A dataset of user, item, day and rating."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "day", "rating"])
    frame = frame.assign(timestamp=frame["day"] * DAY).drop(columns="day")
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(20)], "title": [f"Item {n}" for n in range(20)]})
    known = pd.DataFrame({"user_id": "x", "item_id": items["item_id"], "rating": 5.0, "timestamp": 0})
    return m3.Dataset.from_frames(pd.concat([frame, known]), items)


ROWS = [
    ("ann", "i0", 1, 5.0),
    ("ann", "i1", 2, 5.0),
    ("ann", "i2", 10, 5.0),
    ("ann", "i3", 11, 2.0),
    ("bob", "i4", 10, 5.0),
    ("bob", "i5", 12, 5.0),
    ("cid", "i6", 3, 5.0),
    ("dot", "i7", 3, 5.0),
    ("dot", "i8", 10, 1.0),
]


def drawn(**choices: object) -> m3.Cases:
    return m3.draw_cases(shop(ROWS), part="all", setting="time", negatives=3, **choices)


@pytest.mark.parametrize("since", ["1970-01-11", "1970-01-11T00:00:00+00:00", 10 * DAY])
def test_histories_and_training_end_at_the_date(since: str | int) -> None:
    cases = drawn(since=since)
    assert {case.user_id: (case.item_ids, case.target) for case in cases} == {"ann": (("i0", "i1"), "i2")}
    assert cases.protocol.since == 10 * DAY
    assert {user: [event.item_id for event in events] for user, events in cases.training.items() if user != "x"} == {
        "ann": ["i0", "i1"],
        "cid": ["i6"],
        "dot": ["i7"],
    }
    assert "1970-01-11T00:00:00+00:00" in cases.protocol.choices()["training data"]


def test_the_rule_for_targets_holds_within_the_test_data() -> None:
    targets = {rule: {case.user_id: case.target for case in drawn(since=10 * DAY, target=rule)} for rule in RULES}
    assert targets == {
        "last-liked": {"ann": "i2"},
        "highest": {"ann": "i2"},
        "last": {"ann": "i3", "dot": "i8"},
    }


RULES = ("last-liked", "highest", "last")


def test_without_a_date_the_latest_tenth_is_test_and_the_file_says_since_when(tmp_path: Path) -> None:
    cases = m3.draw_cases(m3.load_dataset("demo"), part="all", setting="time", negatives=3)
    times = m3.load_dataset("demo").interactions["timestamp"]
    since = cases.protocol.since
    assert since is not None
    assert (times >= since).mean() == pytest.approx(0.1, abs=0.05)
    cases.save(tmp_path / "cases.jsonl")
    again = m3.load_cases(tmp_path / "cases.jsonl", m3.load_dataset("demo"))
    assert again.protocol == cases.protocol and not again.leaks


def test_leaks_across_the_date_are_found() -> None:
    cases = drawn(since=10 * DAY)
    data, split = cases.dataset, split_dataset(cases.dataset, cases.protocol)
    assert not cases.leaks
    since = cases.protocol.since

    def problems(cases: object, training: object) -> str:
        return "; ".join(map(str, find_leaks(cases, data, training, "time", since)))

    later = data.sequences["bob"][:1]
    assert "'bob': the training data has 'i4'" in problems(cases.cases, {**split.training, "bob": later})
    assert "not before 1970-01-11" in problems(cases.cases, {**split.training, "bob": later})
    (ann,) = cases
    shown = ann.model_copy(update={"history": data.sequences["ann"][:3], "target": "i3"})
    assert "the history shows 'i2'" in problems([shown], split.training)
    early = ann.model_copy(update={"history": ann.history[:1], "target": "i1", "candidates": ("i1", "i9")})
    assert "the target 'i1' is before 1970-01-11" in problems([early], split.training)


def test_the_date_decides_where_positions_contradict_it() -> None:
    frame = pd.DataFrame(
        [
            ("ann", "i0", 12, 0),  # of ann's test data the first by position
            ("ann", "i1", 2, 1),
            ("ann", "i2", 11, 2),
            ("bob", "i3", 11, 0),
            ("bob", "i4", 3, 1),
        ],
        columns=["user_id", "item_id", "day", "position"],
    )
    others = pd.DataFrame([("x", f"i{n}", n % 9, n) for n in range(20)], columns=frame.columns)
    rows = pd.concat([frame, others])
    data = m3.Dataset.from_frames(rows.assign(timestamp=rows["day"] * DAY).drop(columns="day"))
    cases = m3.draw_cases(data, part="all", setting="time", since=10 * DAY, negatives=3)
    assert {case.user_id: (case.item_ids, case.target) for case in cases} == {
        "ann": (("i1",), "i2"),
        "bob": (("i4",), "i3"),
    }
    assert cases.leaks == []
    bob = next(case for case in cases if case.user_id == "bob")
    shown = bob.model_copy(update={"history": data.sequences["bob"]})
    problems = "; ".join(map(str, find_leaks([shown], data, cases.training, "time", cases.protocol.since)))
    assert "the history shows 'i3', bought at or after the date" in problems


def test_a_split_with_a_later_interaction_is_refused() -> None:
    cases = drawn(since=10 * DAY)
    cases.__dict__["_split"] = replace(
        split_dataset(cases.dataset, cases.protocol), training={"bob": cases.dataset.sequences["bob"]}
    )
    with pytest.raises(InputError, match="'bob': the training data has 'i4'"):
        _ = cases.training


def test_dates_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="'since' is the date of the setting 'time'"):
        m3.draw_cases(shop(ROWS), since="1970-01-11")
    with pytest.raises(InputError, match="'soon' is not a number and not a date"):
        drawn(since="soon")
    with pytest.raises(InputError, match="'2018' is not a date; give one such as 2018-01-01"):
        drawn(since="2018")
    with pytest.raises(InputError, match=r"since: 20180101 .* second 1970-08-22T13:35:01\+00:00; write '2018-01-01'"):
        drawn(since=20180101)
    with pytest.raises(InputError, match="no user has a 'last-liked' target with an interaction before it"):
        drawn(since="2030-01-01")
    bare = m3.Dataset.from_frames(pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]}))
    with pytest.raises(InputError, match="2 interactions have no timestamp; the setting time sorts"):
        m3.draw_cases(bare, setting="time")


def test_training_lists_of_learned_have_the_same_shape() -> None:
    cases = m3.draw_cases(m3.load_dataset("demo"), part="all", setting="time", negatives=3)
    data = cases.dataset
    steps = steps_back(TrainingData(cases.training, data.items, protocol=cases.protocol), negatives=3, seed=0)
    assert steps
    for step in steps:
        newest = max(event.timestamp or 0 for events in step.training.values() for event in events)
        for case in step.cases:
            (time,) = (e.timestamp for e in data.sequences[case.user_id] if e.item_id == case.target)
            assert newest < (time or 0) < (cases.protocol.since or 0)
            assert all((event.timestamp or 0) <= newest for event in case.history)


rows = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cid"]),
        st.integers(0, 19).map("i{}".format),
        st.integers(0, 30),
        st.sampled_from([2.0, 5.0]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 30), st.sampled_from(RULES))
def test_no_data_leaks_and_the_check_agrees(data: list[tuple[str, str, int, float]], day: int, rule: str) -> None:
    try:
        cases = m3.draw_cases(shop(data), part="all", setting="time", since=day * DAY, target=rule, negatives=1)
    except InputError:
        return  # nobody has a target after the date
    assert cases.leaks == []
    for case in cases:
        times = {event.item_id: event.timestamp or 0 for event in cases.dataset.sequences[case.user_id]}
        assert all(times[item] < day * DAY for item in case.item_ids) and case.item_ids
        assert times[case.target or ""] >= day * DAY
    assert all((event.timestamp or 0) < day * DAY for events in cases.training.values() for event in events)


def test_a_study_with_a_date(tmp_path: Path) -> None:
    times = m3.load_dataset("demo").interactions["timestamp"]
    day = pd.Timestamp(times.quantile(0.8), unit="s").date().isoformat()
    path = write(
        tmp_path / "study.toml",
        f"""
        name = "dated"
        reference = "popularity"
        datasets = [{{ name = "shop", source = "demo" }}]
        protocols = [{{ name = "later", setting = "time", since = {day}, users = 10 }}]
        rankers = [{{ ranker = "popularity" }}, {{ ranker = "random" }}]
        """,
    )
    study = m3.run_study(path, out=tmp_path / "runs")
    assert study.incomplete == () and study.runs == 2
    (cases,) = (tmp_path / "runs").rglob("cases.jsonl")
    assert m3.load_cases(cases).protocol.since == pd.Timestamp(day).timestamp()
    given = path.read_text("utf-8")
    path.write_text(given.replace(f"since = {day}", "since = 20180101"), "utf-8")
    with pytest.raises(InputError, match=r"since: 20180101 .*; write '2018-01-01'"):
        m3.run_study(path, out=tmp_path / "a day as a number")
    path.write_text(given.replace('"time"', '"warm"'), "utf-8")
    with pytest.raises(InputError, match="'since' is the date of the setting 'time'"):
        m3.run_study(path, out=tmp_path / "other")


def test_given_columns_are_kept_with_the_cases(tmp_path: Path) -> None:
    purchases = "".join(f"u{n % 6},i{n % 31},{n}\n" for n in range(60))
    path = write(tmp_path / "sales.csv", "who,what,moment\n" + purchases)
    columns = {"user_id": "who", "item_id": "what", "timestamp": "moment"}
    cases = m3.draw_cases(m3.load_dataset(path, columns), part="all", negatives=2)
    cases.save(tmp_path / "cases.jsonl")
    again = m3.load_cases(tmp_path / "cases.jsonl")
    assert again.protocol.columns == columns
    assert again.training == cases.training
    moved = path.rename(tmp_path / "moved.csv")
    assert m3.load_cases(tmp_path / "cases.jsonl", moved).training == cases.training
