"""A run by batches: waves of questions, submitted as jobs, awaited, and replayed from the response cache."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from filelock import FileLock

from programs.batch.job_files import account_of, by_account, split_by_limits, write_job
from programs.batch.job_table import OPEN, JobRow, JobTable, LineEnd
from programs.batch.line_answers import judge
from programs.batch.provider import AnswerLine, Provider
from programs.batch.providers import FILE, connect_provider
from programs.batch.question import GIVEN_UP, BatchQuestion, Refusal
from programs.batch.question_file import WaveWritten, lines_of_one_model
from programs.batch.recording import BatchBackends, Recorder, cache_in_use, recording
from programs.lm.ledger import Ledger, read_calls
from programs.lm.prices import BatchPrices, Price, price_table
from programs.lm.roles import Roles
from programs.runtime.environment import cache_dir
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Note, OnEvent, Progress, ignore

MOST_TIMES = 3
"""How often one session asks a question whose line expires, is cancelled, is missing, or fails in passing."""

SETTLING = 5.0
"""Seconds after which a batch is listed whose creation was interrupted."""

LOOK_EVERY = (1.0, 60.0)
"""Seconds between two looks at jobs: at first, and later."""

_ATTEMPTS = 8
"""Of one request about jobs, if the provider cannot be reached or is busy."""

_FIRST_PAUSE = 1.0
_WITHOUT_LEDGER = "no ledger "
"""Beginning of the owner of jobs whose run keeps no ledger file."""

_TASK = "lines of batches"

_Result = TypeVar("_Result")
_Parameters = ParamSpec("_Parameters")


def batch_folder() -> Path:
    """Where the files and the table of jobs are."""
    return cache_dir() / "batches"


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
        self.folder = batch_folder()
        self.table = JobTable(self.folder / "jobs.sqlite")
        without = f"{_WITHOUT_LEDGER}{secrets.token_hex(8)}"
        self.owner = without if ledger.path is None else str(ledger.path.absolute())
        self.recorder = Recorder()
        self._charged = set() if ledger.path is None else {call.id for call in read_calls(ledger.path)}
        self._times: Counter[str] = Counter()
        self._providers: dict[tuple[str, str, str], Provider] = {}
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
        self.table.close()

    def until_answered(self, wave: Callable[[], _Result]) -> _Result:
        """Repeat a wave until none of its calls is pending; its last result.

        Args:
            wave: Runs the program; what is pending is left out of its result.

        Raises:
            BudgetExceededError: before anything is submitted, if the questions might exceed the budget.
            InputError: if a provider refuses a job.
            WaveWritten: after the questions of the next wave were written to `to_file`.
        """
        self._charge()
        while True:
            self.recorder.refusals = self.table.refusals(self.owner)
            with recording():
                result = wave()
            questions = self.recorder.take()
            # Jobs that nobody waits for any more are to be paid all the same.
            if not questions and not self._open_jobs():
                # Every user has a row by now: the next session asks about those that failed anew.
                self.table.forget_refusals(self.owner)
                return result
            self._answer(questions)

    def fetch(self) -> int:
        """Fetch the answers of all jobs that have ended, whatever run they are of; the number of jobs still open."""
        for job in self.table.jobs():
            if job.provider != FILE and job.state in ("created", "ended"):
                self._look(job)
        return len(self.table.jobs())

    def cancel(self, job: JobRow) -> None:
        """End a job: what is answered by then can be fetched; one that was not created is given up."""
        with self._alone():
            job = self._found(self.table.job(job.id))
            if job.provider != FILE and job.state == "created":
                self._patiently(self._provider(job).cancel, job)
            elif job.state != "ended":
                self._drop(job)

    def settle(self, job: JobRow, lines: Iterable[AnswerLine]) -> Counter[str]:
        """Put the answers among the lines into the response cache, and the calls into the table.

        Returns:
            Number of lines `answered`, `refused` for good, to ask `again`, and `unknown`.
        """
        questions = {question.key: (number, question) for number, question in enumerate(self.table.questions(job.id))}
        price = None if job.price is None else Price.model_validate_json(job.price)
        cache = cache_in_use()
        ends: dict[str, LineEnd] = {}
        kept: dict[str, tuple[dict[str, Any], float | None]] = {}
        counts: Counter[str] = Counter()
        for line in lines:
            if line.key not in questions or line.key in ends:
                counts["unknown"] += 1
                continue
            number, question = questions[line.key]
            judged = judge(question, line, f"{job.id}/{number}", price)
            end = judged.end
            if judged.kept is not None:
                kept[line.key] = judged.kept, None
            elif judged.again and self._times[line.key] >= MOST_TIMES:
                end = LineEnd(end.call, Refusal(GIVEN_UP, line.body.decode()))
            ends[line.key] = end
            counts["answered" if judged.kept is not None else "refused" if end.refusal is not None else "again"] += 1
        if not ends and counts["unknown"]:
            return counts  # Another job's answers.
        for key in questions.keys() - ends.keys():
            gone = Refusal(GIVEN_UP, "no line in the answers") if self._times[key] >= MOST_TIMES else None
            ends[key] = LineEnd(refusal=gone)
            counts["again" if gone is None else "refused"] += 1
        cache.keep(kept)
        self.table.settle(job.id, ends)
        self._delete(job)
        self._charge()
        return counts

    def _answer(self, questions: Sequence[BatchQuestion]) -> None:
        """Submit what is in no job yet, and wait for the jobs of all questions and of this run."""
        with ExitStack() as reservation:
            with self._alone():
                claimed = self.table.open_keys()
                new = [question for question in questions if question.key not in claimed]
                wanted = {claimed[question.key] for question in questions if question.key in claimed}
                jobs = [self._adopted(job) for job in self.table.jobs() if job.id in wanted]
                jobs += [job for job in self._open_jobs() if job.id not in wanted]
                reservation.enter_context(self._reserved(new, jobs))
                # Those at work first: a provider may take no others before these have ended.
                jobs = sorted(jobs + self._written(new), key=lambda job: job.state not in ("created", "ended"))
                begun = self._begun(jobs)
            while jobs:
                self._wait(begun)
                jobs = jobs[len(begun) :]
                with self._alone():
                    begun = self._begun(jobs)

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
            price = self._prices.of(questions[0].config.model)
            job = write_job(self.table, self.owner, FILE, questions, content, price, self.to_file)
            self.table.update(job.id, state="created", submitted=time.time())
            raise WaveWritten(len(questions), self.to_file)
        jobs = []
        for group in by_account(questions):
            provider = self._connected(*account_of(group[0]))
            price = self._prices.of(group[0].config.model)
            for part, content in split_by_limits(group, provider):
                jobs.append(write_job(self.table, self.owner, provider.name, part, content, price))
        self._times.update(question.key for question in questions)
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
                self._begin(self.table.job(job.id))
            except ConnectionError as error:
                if not begun:
                    raise
                left = _jobs(len(jobs) - len(begun))
                self.on_event(Note(f"warning: {left} cannot be created before others have ended: {error}"))
                break
            begun.append(job)
        return begun

    def _begin(self, job: JobRow) -> None:
        """Bring a job to the provider, from wherever an earlier session left it; never twice."""
        if job.state == "written" and not Path(job.path).exists():
            self._drop(job)  # Nothing was submitted: its questions are asked anew.
            return
        provider = self._provider(job)
        if job.state == "written":
            job = self.table.update(job.id, file_id=self._patiently(provider.upload, job), state="uploaded")
        for attempt in range(_ATTEMPTS):
            job = self._found(job)
            if job.state not in ("uploaded", "creating"):
                return
            job = self.table.update(job.id, state="creating", submitted=job.submitted or time.time())
            try:
                job = self.table.update(job.id, batch_id=provider.create(job), state="created")
            except InputError:
                self._drop(job)
                raise
            except ConnectionError:  # It may have been created all the same.
                if attempt == _ATTEMPTS - 1:
                    raise

    def _found(self, job: JobRow) -> JobRow:
        """A job, with its batch if that was created without our hearing of it."""
        if job.state not in ("uploaded", "creating"):
            return job
        if job.state == "creating":
            self.ledger.wait(SETTLING)
        others = {other.batch_id for other in self.table.jobs(("created", "ended", "fetched")) if other.id != job.id}
        batch_id = self._patiently(self._provider(job).find, job, others)
        if batch_id is None:
            return job
        return self.table.update(job.id, batch_id=batch_id, state="created", submitted=job.submitted or time.time())

    def _wait(self, jobs: Sequence[JobRow]) -> None:
        """Wait until all jobs have been fetched."""
        began = time.monotonic()
        total = sum(job.lines for job in jobs)
        waiting = {job.id: job for job in jobs}
        try:
            while waiting:
                for job_id in [*waiting]:
                    job = self._look(self.table.job(job_id))
                    waiting[job_id] = job
                    if job.state not in OPEN:
                        del waiting[job_id]
                done = total - sum(job.lines - job.answered for job in waiting.values())
                self.on_event(Progress(_TASK, done, total, self.ledger.total()))
                if waiting:
                    first, last = LOOK_EVERY
                    self.ledger.wait(min(last, max(first, (time.monotonic() - began) / 20)))
        except KeyboardInterrupt:
            self.on_event(
                Note(
                    f"{_jobs(len(waiting))} of {sum(job.lines for job in waiting.values())} questions go on at the "
                    "provider; the same command waits for them, `mllm3rec batch cancel` ends them"
                )
            )
            raise

    def _look(self, job: JobRow) -> JobRow:
        """Look at a job that is at work, and fetch it if it has ended."""
        if job.state not in ("created", "ended"):
            return job
        provider = self._provider(job)
        progress = self._patiently(provider.progress, job)
        if progress.failure:
            self._drop(job)
            raise InputError(
                f"{job.address}: the batch {job.batch_id} of {job.lines} questions was refused: {progress.failure}; "
                "correct that, and run the same command"
            )
        answered = min(max(progress.answered, 0), job.lines)
        if answered != job.answered:
            job = self.table.update(job.id, answered=answered)
        if not progress.ended:
            return job
        with self._alone():
            job = self.table.job(job.id)
            if job.state in ("created", "ended"):  # else another process has fetched it
                self._fetch(self.table.update(job.id, state="ended"), provider)
        return self.table.job(job.id)

    def _fetch(self, job: JobRow, provider: Provider) -> None:
        counts = self._patiently(self._settled, job, provider)
        if self.table.job(job.id).state != "fetched":
            # Not ours: a batch of the same size, begun at the same time by somebody else on this account.
            self._times[job.id] += 1
            if self._times[job.id] == MOST_TIMES:
                self._drop(job)
                raise InputError(
                    f"{job.address}: {MOST_TIMES} batches, the last {job.batch_id}, came back with answers to other "
                    "questions than theirs: ask the provider why, or leave out --via batch"
                )
            self.table.update(job.id, state="uploaded", batch_id="", submitted=None)
            self._begin(self.table.job(job.id))
            return
        if counts["unknown"]:
            self.on_event(
                Note(f"warning: {counts['unknown']} lines of the answers are of no question, and are ignored")
            )
        if counts["again"] or counts["refused"]:
            self.on_event(
                Note(f"of {job.lines} lines {counts['refused']} were refused, and {counts['again']} are asked again")
            )

    def _charge(self) -> None:
        """Record every line that this run has to pay for, and that is not in its ledger yet."""
        for call in self.table.calls_of(self.owner):
            if call.id not in self._charged:
                self._charged.add(call.id)
                self.ledger.record(call)

    def _drop(self, job: JobRow) -> None:
        self.table.drop(job.id)
        self._delete(job)

    def _delete(self, job: JobRow) -> None:
        if job.provider != FILE:
            Path(job.path).unlink(missing_ok=True)

    def _provider(self, job: JobRow) -> Provider:
        return self._connected(job.address, job.model, job.key_variable or "")

    def _connected(self, address: str, model: str, variable: str) -> Provider:
        account = address, model, variable
        if account not in self._providers:
            self._providers[account] = connect_provider(address, model, variable or None)
        return self._providers[account]

    def _settled(self, job: JobRow, provider: Provider) -> Counter[str]:
        return self.settle(job, provider.answers(job))

    def _patiently(
        self, ask: Callable[_Parameters, _Result], *args: _Parameters.args, **more: _Parameters.kwargs
    ) -> _Result:
        """Repeat a request about jobs that fails in passing."""
        for attempt in range(_ATTEMPTS - 1):
            try:
                return ask(*args, **more)
            except ConnectionError:
                self.ledger.wait(min(LOOK_EVERY[1], _FIRST_PAUSE * 2**attempt))
        try:
            return ask(*args, **more)
        except ConnectionError as error:
            raise ConnectionError(f"{error}; nothing is lost: run the same command later") from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time submits and fetches."""
        with FileLock(self.folder / "lock", mode=0o600):
            yield


def _jobs(number: int) -> str:
    return f"{number} job{'' if number == 1 else 's'}"


def _at_most(jobs: Collection[JobRow]) -> str:
    prices: list[float | None] = [job.most_usd for job in jobs]
    return "" if None in prices else f", for at most ${sum(price or 0.0 for price in prices):.4f}"
