"""The run loop: resumable, failures apart from misses, stopped by a budget or Ctrl-C."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from dspy.utils.exceptions import LMError
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.runs.journal import Journal
from evaluate.runs.run import MAX_FAILURES_IN_A_ROW, RunStatus, run_cases
from programs.lm.ledger import Budget, Call, Ledger
from programs.ranker import ranking_from_scores
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.rows import Case, Ranking, Status
from tests.support.runs import MANIFEST, case, judgements, rows_in


def some_cases(n: int) -> list[Case]:
    return [case(f"u{number}") for number in range(n)]


class Scripted:
    """Ranks every list as it stands, remembers the cases it was given, and fails for some users as told."""

    def __init__(self, raising: Mapping[str, BaseException] | None = None) -> None:
        self.raising = dict(raising or {})
        self.seen: list[Case] = []

    def rank(self, case: Case) -> Ranking:
        self.seen.append(case)
        if case.user_id in self.raising:
            raise self.raising[case.user_id]
        return ranking_from_scores(case, {"mine": [-float(n) for n in range(len(case.candidates))]}, by="mine")

    @property
    def asked(self) -> list[str]:
        return [case.user_id for case in self.seen]


class Paying(Scripted):
    """Makes one call a case, as a program does."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def rank(self, case: Case) -> Ranking:
        self.ledger.reserve(None)
        self.ledger.record(Call(role="mar", model="m", tokens_in=10, tokens_out=2, usd=0.25))
        self.ledger.release(None)
        return super().rank(case)


def run_in(
    directory: Path, cases: Sequence[Case], ranker: Scripted, ledger: Ledger | None = None, **options: Any
) -> RunStatus:
    with Journal.open(directory, MANIFEST) as journal:
        return run_cases(cases, ranker, journal, ledger or Ledger(), **options)


def test_rankers_never_see_a_target(tmp_path: Path) -> None:
    ranker, cases = Scripted(), some_cases(3)
    run_in(tmp_path, cases, ranker)
    assert [seen.target for seen in ranker.seen] == [None, None, None]
    assert ranker.seen == [one.blinded() for one in cases]


def test_a_finished_run_asks_nobody_again(tmp_path: Path) -> None:
    cases = some_cases(3)
    assert run_in(tmp_path, cases, Scripted()) == RunStatus(done=3, failed=0, left=0)
    first = rows_in(tmp_path)
    again = Scripted()
    assert run_in(tmp_path, cases, again).complete
    assert again.asked == []
    assert rows_in(tmp_path) == first
    more = Scripted()
    run_in(tmp_path, some_cases(5), more)
    assert more.asked == ["u3", "u4"]


@pytest.mark.parametrize("failure", [ConnectionError("the server is gone"), LMError("overloaded")])
def test_a_failure_is_a_row_of_its_own_and_tried_again(tmp_path: Path, failure: BaseException) -> None:
    cases, told = some_cases(3), []
    outcome = run_in(tmp_path, cases, Scripted({"u1": failure}), on_row=lambda row: told.append(row.status))
    assert outcome == RunStatus(done=2, failed=1, left=0)
    assert not outcome.complete
    assert told == [Status.OK, Status.FAILED, Status.OK]
    failed = rows_in(tmp_path)["u1"]
    assert (failed.status, failed.order, failed.scores) == (Status.FAILED, (), {})
    assert failed.error is not None
    assert failed.error.startswith(f"{type(failure).__name__}: ")
    healed = Scripted()
    assert run_in(tmp_path, cases, healed) == RunStatus(done=3, failed=0, left=0)
    assert healed.asked == ["u1"]
    assert rows_in(tmp_path)["u1"].status is Status.OK


def test_too_many_failures_in_a_row_end_the_run(tmp_path: Path) -> None:
    cases = some_cases(20)
    ranker = Scripted({one.user_id: OSError("no route to host") for one in cases})
    ledger = Ledger()
    with pytest.raises(InputError, match="8 cases failed in a row, the last with: OSError: no route to host"):
        run_in(tmp_path, cases, ranker, ledger)
    assert len(ranker.seen) < len(cases)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(None)
    assert run_in(tmp_path, cases, Scripted()).complete


def test_failures_with_successes_between_them_do_not_end_the_run(tmp_path: Path) -> None:
    assert MAX_FAILURES_IN_A_ROW == 8
    cases = some_cases(16)
    failing = {f"u{n}": OSError("busy") for n in range(16) if n not in (7, 15)}
    assert run_in(tmp_path, cases, Scripted(failing)) == RunStatus(done=2, failed=14, left=0)


def test_a_bug_in_a_ranker_is_no_failure_of_infrastructure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_in(tmp_path, some_cases(3), Scripted({"u1": ZeroDivisionError()}))
    kept = set(rows_in(tmp_path))
    assert "u0" in kept
    assert "u1" not in kept


def test_a_spent_budget_stops_the_run_and_a_larger_one_finishes_it(tmp_path: Path) -> None:
    cases, path = some_cases(6), tmp_path / "ledger.jsonl"
    ledger = Ledger(path, Budget(calls=2))
    outcome = run_in(tmp_path, cases, Paying(ledger), ledger)
    ledger.close()
    assert outcome == RunStatus(done=2, failed=0, left=4, stopped="the budget of 2 calls is spent")
    assert set(rows_in(tmp_path)) == {"u0", "u1"}
    ledger = Ledger(path, Budget(calls=6))
    assert run_in(tmp_path, cases, Paying(ledger), ledger) == RunStatus(done=6, failed=0, left=0)
    assert ledger.total().calls == 6
    assert [row.usage.calls for row in rows_in(tmp_path).values()] == [1] * 6


def test_ctrl_c_stops_further_calls_and_keeps_the_rows(tmp_path: Path) -> None:
    cases, ledger = some_cases(6), Ledger()

    def interrupt(row: Ranking) -> None:
        if row.user_id == "u1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, cases, Scripted(), ledger, on_row=interrupt)
    with pytest.raises(BudgetExceededError, match="interrupted"):
        ledger.reserve(None)
    kept = rows_in(tmp_path)
    assert {"u0", "u1"} <= set(kept) < {case.user_id for case in cases}
    assert run_in(tmp_path, cases, Scripted()).complete
    assert {user: rows_in(tmp_path)[user] for user in kept} == kept


@settings(max_examples=15)
@given(
    n=st.integers(1, 8),
    done_before=st.sets(st.integers(0, 7)),
    failing=st.sets(st.integers(0, 7), max_size=7),
    workers=st.integers(1, 4),
)
def test_every_case_is_done_or_failed_and_a_resumed_run_ends_like_any_other(
    n: int, done_before: Collection[int], failing: Collection[int], workers: int
) -> None:
    cases = some_cases(n)
    with TemporaryDirectory() as folder:
        whole, parted = Path(folder, "whole"), Path(folder, "parted")
        run_in(whole, cases, Scripted())
        run_in(parted, [one for number, one in enumerate(cases) if number in done_before], Scripted())
        before = set(rows_in(parted))
        ranker = Scripted({f"u{number}": OSError("down") for number in failing})
        outcome = run_in(parted, cases, ranker, workers=workers)
        assert sorted(ranker.asked) == sorted({one.user_id for one in cases} - before)
        unlucky = [user for user in ranker.asked if user in ranker.raising]
        assert outcome == RunStatus(done=n - len(unlucky), failed=len(unlucky), left=0)
        assert run_in(parted, cases, Scripted(), workers=workers).complete
        assert judgements(rows_in(parted)) == judgements(rows_in(whole))
