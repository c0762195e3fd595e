"""The run loop: ranks cases in threads, one journal row per user, resumable at any time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue

import dspy
from dspy.utils.exceptions import DSPyError

from evaluate.runs.journal import Journal
from programs.lm.ledger import Ledger
from programs.lm.pending import GivenUpError, PendingCall
from programs.ranker import BatchRanker, Ranker
from programs.runtime.errors import BudgetExceededError, InputError, one_line
from programs.runtime.interrupts import interruptible_wait, let_end, thread_pool
from signatures.rows import Case, Ranking, Status

MAX_FAILURES_IN_A_ROW = 8
BATCH = 256
"""Cases that a `BatchRanker` ranks at once."""


@dataclass(frozen=True)
class RunStatus:
    """How a run ended.

    Attributes:
        done: Cases with a scored row, those of earlier sessions included.
        failed: Cases with failed calls; the next session tries them again.
        left: Cases that were not reached before the run was stopped, or whose calls are pending in a batch.
        stopped: Why it was stopped, or None.
    """

    done: int
    failed: int
    left: int
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every case has a scored row."""
        return not self.failed and not self.left


def run_cases(
    cases: Sequence[Case],
    ranker: Ranker,
    journal: Journal,
    ledger: Ledger,
    workers: int = 1,
    on_row: Callable[[Ranking], None] = lambda _: None,
    again: Collection[str] = (),
    given_up: Collection[str] = (),
) -> RunStatus:
    """Rank every case that has no scored row in the journal yet.

    Rankers get cases without their target. A row is written as soon as its user is done, so an interruption, a spent
    budget or a killed process loses at most the users under way; their answers are in the response cache.

    Args:
        ledger: Gives the usage per case; stopped on an interruption, so that users under way end at their next call.
        workers: Number of threads, at most `MAX_WORKERS`; the calls of one user are sequential.
        again: Users to rank although they have a scored row; the new row replaces it.
        given_up: Users whose calls failed in this session, and are not tried again in it.
        on_row: Called in this thread with every new row.

    Raises:
        InputError: if the backend cannot be used, or `MAX_FAILURES_IN_A_ROW` cases fail in a row.
    """
    resolved = journal.resolved() - set(again)
    waiting = [case for case in cases if case.user_id not in resolved and case.user_id not in given_up]
    waiting.reverse()
    failures = _Failures(set(given_up))
    stopped: str | None = None
    pending = 0
    batch = BATCH if isinstance(ranker, BatchRanker) else 1
    under_way: dict[Future[list[Ranking]], list[Case]] = {}
    finished: SimpleQueue[Future[list[Ranking]]] = SimpleQueue()
    with interruptible_wait() as next_in, thread_pool(workers) as pool:
        try:
            while under_way or (waiting and stopped is None):
                while waiting and stopped is None and len(under_way) < 2 * workers:
                    some = [waiting.pop() for _ in range(min(batch, len(waiting)))]
                    future = pool.submit(_rank, ranker, some, ledger, failures)
                    under_way[future] = some
                    future.add_done_callback(finished.put)
                future = next_in(finished)
                some = under_way.pop(future)
                try:
                    rows = future.result()
                except BudgetExceededError as error:
                    stopped = str(error)
                    waiting.extend(reversed(some))
                    continue
                except PendingCall:
                    pending += len(some)
                    continue
                for row in rows:
                    journal.append(row)
                    failures.count(row)
                    on_row(row)
        except BaseException as error:
            ledger.stop("interrupted")
            let_end(under_way, error)
            for future in under_way:
                if future.done() and not future.cancelled() and future.exception() is None:
                    for row in future.result():
                        journal.append(row)
            raise
    left = len(waiting) + pending
    failed = len(failures.users)
    return RunStatus(done=len(cases) - left - failed, failed=failed, left=left, stopped=stopped)


@dataclass
class _Failures:
    """Users whose last row failed, and how many rows failed in a row.

    Attributes:
        unanswered: Users about whom batches left a question open: no sign of a backend that is down.
    """

    users: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)
    in_a_row: int = 0

    def count(self, row: Ranking) -> None:
        """Count a new row; raises an `InputError` after too many failures in a row."""
        self.users.discard(row.user_id)
        if row.scored:
            self.in_a_row = 0
            return
        self.users.add(row.user_id)
        if row.user_id not in self.unanswered:
            self.in_a_row += 1
            if self.in_a_row >= MAX_FAILURES_IN_A_ROW:
                raise InputError(f"{self.in_a_row} cases failed in a row, the last with: {row.error}")


def _rank(ranker: Ranker, cases: Sequence[Case], ledger: Ledger, failures: _Failures) -> list[Ranking]:
    if isinstance(ranker, BatchRanker):
        with ledger.usage_of_case() as usage:
            rows = ranker.rank_many([case.blinded() for case in cases])
        usage.seconds /= len(rows)
        for row in rows:
            row.usage = usage.model_copy()
        return rows
    return [_rank_one(ranker, case, ledger, failures) for case in cases]


def _rank_one(ranker: Ranker, case: Case, ledger: Ledger, failures: _Failures) -> Ranking:
    with ledger.usage_of_case() as usage:
        try:
            # DSPy's trace is needed for bootstrapping demos only; here it would just grow.
            with dspy.context(trace=None):
                row = ranker.rank(case.blinded())
        except (DSPyError, OSError) as error:
            if isinstance(error, GivenUpError):
                failures.unanswered.add(case.user_id)
            row = Ranking(
                user_id=case.user_id, order=(), status=Status.FAILED, error=f"{type(error).__name__}: {one_line(error)}"
            )
    row.usage = usage
    return row
