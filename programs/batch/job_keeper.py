"""Keeper of jobs: brings them to their provider, looks at them, fetches their answers, and ends them.

Several processes may do so at a time, each for all runs of this machine: what changes a job at its provider is done
alone, after its row was read again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from filelock import BaseFileLock, FileLock

from programs.batch.job_files import account_of, by_account, split_by_limits, write_job
from programs.batch.job_table import AT_WORK, OPEN, JobRow, JobTable, LineEnd, jobs_file
from programs.batch.line_answers import judge
from programs.batch.provider import AnswerLine, Provider
from programs.batch.providers import FILE, connect_provider
from programs.batch.question import GIVEN_UP, BatchQuestion, Refusal
from programs.batch.recording import cache_in_use
from programs.lm.prices import BatchPrices, Price
from programs.lm.response_cache import asked_by
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, ignore

MOST_TIMES = 3
"""How often one session asks a question whose line expires, is cancelled, is missing, or fails in passing."""

FEWEST_LINES = 100
"""Of a job that is half of a larger one."""

SETTLING = 5.0
"""Seconds after which a batch is listed whose creation was interrupted."""

JOB_ATTEMPTS = 8
"""Of one request about jobs, if the provider cannot be reached or is busy."""

_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
"""Seconds between two of them."""

_Result = TypeVar("_Result")
_Parameters = ParamSpec("_Parameters")


class JobKeeper:
    """The jobs of all runs that share a cache folder.

    Args:
        wait: Sleeps for some seconds; may raise to end the wait.
        on_event: Receives notes.

    Raises:
        InputError: if the table of jobs cannot be used.
    """

    def __init__(self, wait: Callable[[float], None] = time.sleep, on_event: OnEvent = ignore) -> None:
        self._sleep = wait
        self.on_event = on_event
        self.table = JobTable(jobs_file())
        self._lock = FileLock(self.table.path.with_name("lock"), mode=0o600)
        self._times: Counter[str] = Counter()
        self._providers: dict[tuple[str, str, str], Provider] = {}

    def close(self) -> None:
        """Close the table."""
        self.table.close()

    def alone(self) -> BaseFileLock:
        """A block in which no other process submits or fetches; may be nested."""
        return self._lock

    def written(self, owner: str, questions: Sequence[BatchQuestion], prices: BatchPrices) -> list[JobRow]:
        """New jobs with some questions, in files.

        Args:
            owner: See `JobRow`.
        """
        jobs = []
        for group in by_account(questions):
            provider = self._connected(*account_of(group[0]))
            price = prices.of(group[0].config.model)
            for part, content in split_by_limits(group, provider):
                jobs.append(write_job(self.table, owner, provider.name, part, content, price))
        self._times.update(question.key for question in questions)
        return jobs

    def halved(self, job: JobRow) -> list[JobRow]:
        """Two jobs with half of the questions each, in place of one that was not created. To be called alone.

        A small job stays as it is, and so does one that was created or cancelled meanwhile, or has lost its file.
        """
        path = Path(job.path)
        if job.state != "uploaded" or job.cancelled or job.lines < 2 * FEWEST_LINES or not path.exists():
            return [job]
        content = path.read_bytes().splitlines(keepends=True)
        questions = self.table.questions(job.id)
        price = None if job.price is None else Price.model_validate_json(job.price)
        # First given up: a crash between the two leaves questions in no job, which are asked anew, never in two.
        self._drop(job)
        middle = job.lines // 2
        return [
            write_job(self.table, job.owner, job.provider, questions[part], b"".join(content[part]), price)
            for part in (slice(middle), slice(middle, None))
        ]

    def begin(self, job: JobRow) -> None:
        """Bring a job to the provider, from wherever an earlier session left it; never twice. To be called alone.

        Raises:
            ConnectionError: if the provider cannot be reached, or has enough work.
            InputError: if it refuses the job.
        """
        if job.state == "written" and not Path(job.path).exists():
            self._drop(job)  # Nothing was submitted: its questions are asked anew.
            return
        provider = self._provider(job)
        if job.state == "written":
            job = self.table.update(job.id, file_id=self._patiently(provider.upload, job), state="uploaded")
        for attempt in range(JOB_ATTEMPTS):
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
                if attempt == JOB_ATTEMPTS - 1:
                    raise

    def look(self, job: JobRow) -> JobRow:
        """Ask how far a job at work is, and fetch it if it has ended; the job as it is then.

        One that the provider has not begun, because others are enough for now, is `uploaded` again.

        Raises:
            ConnectionError: if the provider cannot be reached.
            InputError: if it refuses the job, or the answers cannot be kept.
        """
        if job.provider == FILE or job.state not in AT_WORK:
            return job
        provider = self._provider(job)
        progress = self._patiently(provider.progress, job)
        answered = min(max(progress.answered, 0), job.lines)
        if answered != job.answered:
            self.table.update(job.id, answered=answered)
        if progress.ended:
            with self._unchanged(job) as same:
                if same is not None and progress.busy:
                    self._wait_for_others(same, progress.busy)
                elif same is not None and progress.failure:
                    self._drop(same)
                    raise InputError(
                        f"{job.address}: the batch {job.batch_id} of {job.lines} questions was refused: "
                        f"{progress.failure}; correct that, and run the same command"
                    )
                elif same is not None:
                    self._fetch(self.table.update(job.id, state="ended"), provider)
        return self.table.job(job.id)

    def cancel(self, job: JobRow) -> None:
        """End a job: what is answered by then can be fetched; one that was not created is given up.

        A run that waits for it does not submit its questions again, but stops. A job that another process has fetched
        or given up meanwhile stays as it is.

        Raises:
            ConnectionError: if the provider cannot be reached.
            InputError: if it does not end the job.
        """
        with self.alone():
            if self.table.job(job.id).state not in OPEN:
                return
            # Before the provider is told: the run may hear of it at once.
            self.table.update(job.id, cancelled=True)
            try:
                self._end(self._found(self.table.job(job.id)))
            except (InputError, ConnectionError):
                self.table.update(job.id, cancelled=job.cancelled)
                raise

    def settle(self, job: JobRow, lines: Iterable[AnswerLine]) -> Counter[str]:
        """Put the answers among the lines into the response cache, and the calls into the table.

        Returns:
            Number of lines `answered`, `refused` for good, to ask `again`, and `unknown`.

        Raises:
            InputError: if the answers cannot be written; the job is as it was.
        """
        questions = {question.key: (number, question) for number, question in enumerate(self.table.questions(job.id))}
        price = None if job.price is None else Price.model_validate_json(job.price)
        cache = cache_in_use()
        ends: dict[str, LineEnd] = {}
        kept: dict[str, dict[str, Any]] = {}
        counts: Counter[str] = Counter()
        for line in lines:
            if line.key not in questions or line.key in ends:
                counts["unknown"] += 1
                continue
            number, question = questions[line.key]
            judged = judge(question, line, f"{job.id}/{number}", price)
            end = judged.end
            if judged.kept is not None:
                kept[line.key] = asked_by(judged.kept, question.model, question.role)
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
        try:
            # Before the table says that they are here, and the provider is not asked for them any more.
            cache.keep_durably(kept)
        except InputError as error:
            raise InputError(
                f"{error}; the answers to {job.lines} questions are not lost, the same command gets them again"
            ) from error
        self.table.settle(job.id, ends)
        self._delete(job)
        return counts

    def pause(self, attempt: int) -> None:
        """Wait before something is tried again, longer each time."""
        self._sleep(min(_LAST_PAUSE, _FIRST_PAUSE * 2**attempt))

    def _found(self, job: JobRow) -> JobRow:
        """A job, with its batch if that was created without our hearing of it."""
        if job.state not in ("uploaded", "creating"):
            return job
        if job.state == "creating":
            self._sleep(SETTLING)
        others = {other.batch_id for other in self.table.jobs(("created", "ended", "fetched")) if other.id != job.id}
        batch_id = self._patiently(self._provider(job).find, job, others)
        if batch_id is None:
            return job
        return self.table.update(job.id, batch_id=batch_id, state="created", submitted=job.submitted or time.time())

    def _end(self, job: JobRow) -> None:
        if job.provider != FILE and job.state == "created":
            self._patiently(self._provider(job).cancel, job)
        elif job.state != "ended":
            self._drop(job)

    @contextmanager
    def _unchanged(self, seen: JobRow) -> Iterator[JobRow | None]:
        """Alone, a job that was seen before; None if another process has acted on it since."""
        with self.alone():
            job = self.table.job(seen.id)
            yield job if (job.state, job.batch_id) == (seen.state, seen.batch_id) else None

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
            self.begin(self._to_create_again(job))
            return
        if counts["unknown"]:
            self.on_event(
                Note(f"warning: {counts['unknown']} lines of the answers are of no question, and are ignored")
            )
        if counts["again"] or counts["refused"]:
            self.on_event(
                Note(f"of {job.lines} lines {counts['refused']} were refused, and {counts['again']} are asked again")
            )

    def _wait_for_others(self, job: JobRow, why: str) -> None:
        if job.cancelled:
            self._drop(job)
            return
        self.on_event(Note(f"{job.lines} questions wait until other jobs have ended: {why}"))
        self._to_create_again(job)

    def _to_create_again(self, job: JobRow) -> JobRow:
        return self.table.update(job.id, state="uploaded", batch_id="", submitted=None, answered=0)

    def _settled(self, job: JobRow, provider: Provider) -> Counter[str]:
        return self.settle(job, provider.answers(job))

    def _drop(self, job: JobRow) -> None:
        self.table.drop(job.id)
        self._delete(job)

    def _delete(self, job: JobRow) -> None:
        if job.provider != FILE:
            Path(job.path).unlink(missing_ok=True)

    def _provider(self, job: JobRow) -> Provider:
        return self._connected(*job.account)

    def _connected(self, address: str, model: str, variable: str) -> Provider:
        account = address, model, variable
        if account not in self._providers:
            self._providers[account] = connect_provider(address, model, variable or None)
        return self._providers[account]

    def _patiently(
        self, ask: Callable[_Parameters, _Result], *args: _Parameters.args, **more: _Parameters.kwargs
    ) -> _Result:
        """Repeat a request about jobs that fails in passing."""
        for attempt in range(JOB_ATTEMPTS - 1):
            try:
                return ask(*args, **more)
            except ConnectionError:
                self.pause(attempt)
        try:
            return ask(*args, **more)
        except ConnectionError as error:
            raise ConnectionError(f"{error}; nothing is lost: run the same command later") from None
