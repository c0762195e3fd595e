"""A run by batches: waves of questions, submitted as jobs, awaited, and replayed from the response cache."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from programs.batch.charges import BatchCharges, owner_of
from programs.batch.job_files import write_job
from programs.batch.job_keeper import JOB_ATTEMPTS, JobKeeper
from programs.batch.job_table import AT_WORK, OPEN, JobRow
from programs.batch.providers import FILE
from programs.batch.question import GIVEN_UP, BatchQuestion
from programs.batch.question_file import WaveWritten, lines_of_one_model, refuse_foreign_file
from programs.batch.recording import BatchBackends, Recorder, cache_in_use, recording
from programs.lm.ledger import Ledger
from programs.lm.prices import BatchPrices, price_table
from programs.lm.roles import Roles
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Note, OnEvent, Progress, ignore

LOOK_EVERY = (1.0, 60.0)
"""Seconds between two looks at jobs: at first, and later."""

_WITHOUT_LEDGER = "no ledger "
"""Beginning of the owner of jobs whose run keeps no ledger file."""

HALVED_AFTER = 2
"""Attempts to begin jobs, with none at work, before they are halved."""

_TASK = "lines of batches"

_Result = TypeVar("_Result")


class BatchRun:
    """A run whose questions are lines of batches.

    Args:
        ledger: Pays for the lines; a run is resumed by its file.
        to_file: Where to write the questions of the next wave, in place of submitting them; None to submit them.
        on_event: Receives notes and progress.
    """

    def __init__(self, ledger: Ledger, to_file: Path | None = None, on_event: OnEvent = ignore) -> None:
        self.ledger = ledger
        self.to_file = to_file
        self.on_event = on_event
        self.keeper = JobKeeper(self._rest, on_event)
        self.table = self.keeper.table
        without = f"{_WITHOUT_LEDGER}{secrets.token_hex(8)}"
        self.owner = without if ledger.path is None else owner_of(ledger.path)
        self.recorder = Recorder()
        self._charges = BatchCharges(self.table, self.owner, ledger)
        self._prices = BatchPrices(**dict(price_table()))

    def backends(self, roles: Roles | None) -> BatchBackends:
        """Language models whose calls are recorded for this run.

        Raises:
            InputError: if a role's model has no batch interface; None stands for the model of `dspy.configure`.
        """
        if roles is None:
            raise InputError('the model of dspy.configure has no batch interface here: name one, model="openai/..."')
        return BatchBackends(roles, self.ledger, self.recorder, self.on_event)

    def close(self) -> None:
        """Close the table."""
        self.keeper.close()

    def until_answered(self, wave: Callable[[], _Result]) -> _Result:
        """Repeat a wave until none of its calls is pending; its last result.

        Args:
            wave: Runs the program; what is pending is left out of its result.

        Raises:
            BudgetExceededError: before anything is submitted, if the questions might exceed the budget; while it waits,
                if the minutes are over: the jobs stay at the provider.
            ConnectionError: if a provider cannot be reached, or takes no work.
            InputError: if a provider refuses a job.
            WaveWritten: after the questions of the next wave were written to `to_file`.
        """
        # What an earlier session gave up, its provider may answer today.
        self.table.forget_refusals(self.owner, GIVEN_UP)
        while True:
            self._charges.record()
            self.recorder.refusals = self.table.refusals(self.owner)
            try:
                with recording():
                    result = wave()
            except Exception:
                # With the same refusals every later session would fail as this one, and ask nothing.
                self.table.forget_refusals(self.owner)
                raise
            questions = self.recorder.take()
            # Jobs that nobody waits for any more are to be paid all the same.
            if not questions and not self._open_jobs():
                # Every user has a row by now: the next session asks about those that failed anew.
                self.table.forget_refusals(self.owner)
                return result
            self._answer(questions)

    def _answer(self, questions: Sequence[BatchQuestion]) -> None:
        """Submit what is in no job yet, and wait for the jobs of all questions and of this run."""
        with ExitStack() as reservation:
            with self.keeper.alone():
                claimed = self.table.open_keys()
                new = [question for question in self._unanswered(questions) if question.key not in claimed]
                wanted = {claimed[question.key] for question in questions if question.key in claimed}
                jobs = [self._adopted(job) for job in self.table.jobs() if job.id in wanted]
                jobs += [job for job in self._open_jobs() if job.id not in wanted]
                reservation.enter_context(self._reserved(new, jobs))
                jobs += self._written(new)
            # Those at work first: a provider may take no others before these have ended.
            jobs.sort(key=lambda job: job.state not in AT_WORK)
            self._fetched(jobs)

    def _fetched(self, jobs: list[JobRow]) -> None:
        """Begin jobs, and wait until all of them have been fetched."""
        attempts = 0
        while jobs:
            # Whoever waits for a provider that takes no more begins none after the minutes of the session.
            self._rest(0)
            with self.keeper.alone():
                begun = self._begun(jobs)
            not_taken = self._wait(begun)
            jobs = jobs[len(begun) :] + not_taken
            if len(not_taken) < len(begun):
                attempts = 0
            elif self._others_at_work(not_taken):
                attempts = 0
                self._rest(LOOK_EVERY[1])
            else:
                attempts += 1
                self._pause(not_taken, attempts)
                if attempts == HALVED_AFTER and len(halves := self._halved(jobs)) > len(jobs):
                    jobs, attempts = halves, 0

    def _rest(self, seconds: float) -> None:
        """Sleep between two looks.

        Raises:
            BudgetExceededError: after `Ledger.stop`, or if the minutes are over, with what to do about jobs at work.
        """
        try:
            self.ledger.wait(min(seconds, max(0.0, self.ledger.budget.seconds_left)))
            self.ledger.require_time()
        except BudgetExceededError as error:
            left = [job for job in self._open_jobs() if job.state in AT_WORK]
            if not left:
                raise
            raise BudgetExceededError(f"{error}: {_going_on(left)}") from None

    def _unanswered(self, questions: Sequence[BatchQuestion]) -> Iterator[BatchQuestion]:
        """Those without an answer or a refusal: another process may have fetched some since they were recorded."""
        cache, refusals = cache_in_use(), self.table.refusals(self.owner)
        for question in questions:
            if cache.find(question.key) is None and (question.key, question.form) not in refusals:
                yield question

    def _adopted(self, job: JobRow) -> JobRow:
        """A job that has a question of this run, too; it pays for the job if the run that began it is gone.

        Raises:
            InputError: if its questions wait in a file.
        """
        if job.provider == FILE:
            raise InputError(
                f"{job.lines} questions wait in {job.path}: read their answers with `mllm3rec batch read`, or give "
                f"them up with `mllm3rec batch cancel {job.id}`"
            )
        gone = job.owner.startswith(_WITHOUT_LEDGER) or not Path(job.owner).parent.exists()
        return self.table.update(job.id, owner=self.owner) if gone else job

    def _open_jobs(self) -> list[JobRow]:
        """Jobs of this run that are at a provider, or on their way there."""
        return [job for job in self.table.jobs() if job.owner == self.owner and job.provider != FILE]

    def _written(self, questions: Sequence[BatchQuestion]) -> list[JobRow]:
        """The new jobs of a wave; in a file, if they are not to be submitted."""
        if self.to_file is not None and questions:
            content = lines_of_one_model(questions)
            refuse_foreign_file(self.table, self.to_file, content)
            price = self._prices.of(questions[0].config.model)
            job = write_job(self.table, self.owner, FILE, questions, content, price, self.to_file)
            self.table.update(job.id, state="created", submitted=time.time())
            raise WaveWritten(len(questions), self.to_file)
        jobs = self.keeper.written(self.owner, questions, self._prices)
        if jobs:
            self.on_event(Note(f"{len(questions)} questions in {_jobs(len(jobs))}{_at_most(jobs)}"))
        return jobs

    @contextmanager
    def _reserved(self, new: Sequence[BatchQuestion], jobs: Sequence[JobRow]) -> Iterator[None]:
        """Set aside the upper estimate of all that this run submits, before anything is."""
        own = [job for job in jobs if job.owner == self.owner]
        most = sum(question.most_usd or 0.0 for question in new) + sum(job.most_usd or 0.0 for job in own)
        lines = len(new) + sum(job.lines for job in own)
        if not lines:
            yield
            return
        limit = self.ledger.budget.calls
        if limit is not None and self.ledger.total().calls + lines > limit:
            raise BudgetExceededError(f"{lines} questions would exceed the budget of {limit} calls: nothing submitted")
        try:
            self.ledger.reserve(most)
        except BudgetExceededError as error:
            raise BudgetExceededError(
                f"{lines} questions may cost up to ${most:.4f} in batches; nothing submitted: {error}"
            ) from None
        try:
            yield
        finally:
            self.ledger.release(most)

    def _begun(self, jobs: Sequence[JobRow]) -> list[JobRow]:
        """The first of some jobs, begun: all of them, or as many as the provider takes at a time."""
        begun: list[JobRow] = []
        for job in jobs:
            try:
                self.keeper.begin(self.table.job(job.id))
            except ConnectionError as error:
                if not begun:
                    raise
                left = _jobs(len(jobs) - len(begun))
                self.on_event(Note(f"warning: {left} cannot be created before others have ended: {error}"))
                break
            begun.append(job)
        return begun

    def _wait(self, jobs: Sequence[JobRow]) -> list[JobRow]:
        """Wait until all jobs have been fetched; those that are to be created again, as the provider took too many.

        Raises:
            InputError: if a provider refused one, or somebody cancelled one, after the others were fetched.
        """
        began = time.monotonic()
        total = sum(job.lines for job in jobs)
        refused: dict[str, InputError] = {}

        def at_work() -> list[JobRow]:
            now = [self.table.job(job.id) for job in jobs if job.id not in refused]
            return [job for job in now if job.state in AT_WORK]

        left = at_work()
        try:
            while left:
                for job in left:
                    try:
                        if self.keeper.look(job).state not in OPEN:
                            self._charges.record()
                    except InputError as error:
                        refused[job.id] = error
                        if len(left) > 1:
                            self.on_event(Note(f"warning: {error}; first the other jobs end"))
                left = at_work()
                done = total - sum(job.lines - job.answered for job in left)
                self.on_event(Progress(_TASK, done, total, self.ledger.total()))
                if left:
                    first, last = LOOK_EVERY
                    self._rest(min(last, max(first, (time.monotonic() - began) / 20)))
        except KeyboardInterrupt:
            self.on_event(Note(_going_on(left)))
            raise
        if refused:
            raise next(iter(refused.values()))
        return self._still_open(jobs)

    def _still_open(self, jobs: Sequence[JobRow]) -> list[JobRow]:
        """Those of some jobs that were not fetched.

        Raises:
            InputError: if one was cancelled meanwhile. One that was cancelled before this session is submitted again:
                whoever started it wants so.
        """
        now = [self.table.job(job.id) for job in jobs]
        cancelled = [job.lines for job, before in zip(now, jobs, strict=True) if job.cancelled and not before.cancelled]
        if cancelled:
            raise InputError(
                f"{_jobs(len(cancelled))} of {sum(cancelled)} questions cancelled by `mllm3rec batch cancel`; run the "
                "same command to submit again what they have not answered"
            )
        return [job for job in now if job.state in OPEN]

    def _others_at_work(self, jobs: Sequence[JobRow]) -> bool:
        """Whether jobs of other runs are at work for the accounts of these; those that have ended are fetched."""
        accounts = {job.account for job in jobs}
        others = [job for job in self.table.jobs(AT_WORK) if job.account in accounts and job.provider != FILE]
        for job in others:
            with suppress(InputError):  # Its own run will say so.
                self.keeper.look(job)
        return any(self.table.job(job.id).state == "created" for job in others)

    def _halved(self, jobs: Sequence[JobRow]) -> list[JobRow]:
        """Jobs of half the size: one alone may be above the account's limit."""
        with self.keeper.alone():
            halves = [half for job in jobs for half in self.keeper.halved(self.table.job(job.id))]
        if len(halves) > len(jobs):
            self.on_event(
                Note(f"nothing of this account is at work, and {_jobs(len(jobs))} not begun: now {_jobs(len(halves))}")
            )
        return halves

    def _pause(self, jobs: Sequence[JobRow], attempts: int) -> None:
        """Wait before jobs are created again that a provider does not begin, although we know of none at work.

        Raises:
            ConnectionError: if that was tried often enough.
        """
        if attempts == JOB_ATTEMPTS:
            raise ConnectionError(
                f"{jobs[0].address}: {_jobs(len(jobs))} of {sum(job.lines for job in jobs)} questions were created "
                f"{attempts} times, but not begun, as the account's limit is reached. Nothing is lost: run the same "
                "command later. If nothing of this account is at work, they are above its limit: give them up with "
                "`mllm3rec batch cancel`, and leave out --via batch"
            )
        self.keeper.pause(attempts)


def _jobs(number: int) -> str:
    return f"{number} job{'' if number == 1 else 's'}"


def _going_on(jobs: Collection[JobRow]) -> str:
    """What to say of jobs that nobody waits for any more."""
    return (
        f"{_jobs(len(jobs))} of {sum(job.lines for job in jobs)} questions go on at the provider; the same command "
        "waits for them, `mllm3rec batch cancel` ends them"
    )


def _at_most(jobs: Collection[JobRow]) -> str:
    prices: list[float | None] = [job.most_usd for job in jobs]
    return "" if None in prices else f", for at most ${sum(price or 0.0 for price in prices):.4f}"
