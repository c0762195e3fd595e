"""`mllm3rec batch`: jobs at the batch interfaces of providers, and questions in files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mllm3rec.cli.console import ConsoleEvents, emit, format_usd, out, say
from mllm3rec.cli.options import Json

if TYPE_CHECKING:
    from programs.batch.job_keeper import JobKeeper
    from programs.batch.job_table import JobRow

app = typer.Typer(no_args_is_help=True, help="Jobs at the batch interfaces of providers, and questions in files.")

JobId = Annotated[str | None, typer.Argument(help="Id of a job, or its beginning. Default: all jobs under way.")]
WAVE_WRITTEN = 4
"""Exit code of a command whose questions were written to a file, so that it is not complete yet."""

_SHOWN = 12
_FAILED = 2


@app.command("status")
def status(as_json: Json = False) -> None:
    """Show the jobs under way, in their last known state; sends nothing."""
    with _keeper() as keeper:
        jobs = keeper.table.jobs()
    if as_json:
        emit({"jobs": [_facts(job) for job in jobs]})
    elif jobs:
        _show(jobs)
    else:
        out.print("no jobs under way")


@app.command("fetch")
def fetch(as_json: Json = False) -> None:
    """Fetch the answers of the jobs that have ended. Exit code 1 while others are under way, 2 if one failed.

    The run that a job belongs to counts its dollars when it goes on.
    """
    with _keeper() as keeper:
        before = keeper.table.jobs()
        failed = _each(before, keeper.look)
        left = len(keeper.table.jobs())
        # Not by the numbers of jobs: other processes may have begun some meanwhile, and others were given up.
        over = {job.id for job in keeper.table.jobs(["fetched"])}
    fetched = sum(job.id in over for job in before)
    if as_json:
        emit({"fetched": fetched, "left": left, "failed": failed})
    else:
        out.print(f"{fetched} jobs fetched, {left} under way")
    raise typer.Exit(_FAILED if failed else 1 if left else 0)


@app.command("cancel")
def cancel(job: JobId = None, as_json: Json = False) -> None:
    """End jobs; answers that exist are kept and will be billed. Exit code 1 if there is no such job, 2 if one failed.

    A run that waits for them in another terminal stops; the same command then submits their questions again.
    """
    with _keeper() as keeper:
        jobs = [one for one in keeper.table.jobs() if one.id.startswith(job or "")]
        failed = _each(jobs, keeper.cancel)
    ended = [one.id for one in jobs if one.id not in failed]
    if as_json:
        emit({"cancelled": ended, "failed": failed})
    elif job is not None and not jobs:
        out.print(f"no job under way has an id that begins with {job!r}; `mllm3rec batch status` lists them")
    else:
        out.print(f"{len(ended)} jobs cancelled; `mllm3rec batch fetch` fetches what they have answered")
    raise typer.Exit(_FAILED if failed else 0 if jobs or job is None else 1)


@app.command("write", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def write(
    context: typer.Context,
    questions: Annotated[Path, typer.Argument(help="File to write, one question a line; its name ends with .jsonl.")],
) -> None:
    """Write the questions that a command asks next to a file, and send nothing.

    For example: mllm3rec batch write wave.jsonl evaluate cases.jsonl --ranker pointwise --model ... --out run.
    Answer it with `vllm run-batch`, read the answers with `mllm3rec batch read`, and repeat until there are none.
    Exit code 4 if questions were written: their answers are missing. Else it is that of the command, which has ended.
    """
    from programs.batch.question_file import WaveWritten

    try:
        code = context.find_root().command.main([*context.args, "--via", str(questions)], standalone_mode=False)
    except WaveWritten as written:
        if "--json" in context.args:
            emit({"questions": written.questions, "file": str(written.path)})
        else:
            out.print(f"written: {written.path}, {written.questions} questions", soft_wrap=True)
        code = WAVE_WRITTEN
    raise typer.Exit(code if isinstance(code, int) else 0)


@app.command("read")
def read(
    answers: Annotated[Path, typer.Argument(help="File of answers, as `vllm run-batch` writes it.")],
    as_json: Json = False,
) -> None:
    """Put the answers to written questions into the response cache. Exit code 1 if some are missing or failed."""
    from programs.batch.answer_file import read_answers

    with _keeper() as keeper:
        counts = read_answers(keeper, answers)
    if counts["unknown"]:
        say(f"warning: {counts['unknown']} lines answer no question that was written, and are ignored")
    if as_json:
        emit({name: counts[name] for name in ("answered", "refused", "again", "unknown")})
    else:
        out.print(f"{counts['answered']} answers, {counts['refused']} refused, {counts['again']} to ask again")
    raise typer.Exit(1 if counts["again"] else 0)


def _each(jobs: Iterable[JobRow], act: Callable[[JobRow], object]) -> dict[str, str]:
    """Do something to each job, whatever happens to another; the errors by job, which are also printed."""
    from programs.runtime.errors import InputError

    failed = {}
    for job in jobs:
        try:
            act(job)
        except (InputError, OSError) as error:
            failed[job.id] = str(error)
    for job_id, said in failed.items():
        say(f"error: job {job_id[:_SHOWN]}: {said}")
    return failed


@contextmanager
def _keeper() -> Iterator[JobKeeper]:
    """The jobs of all runs on this machine, with the response cache in use."""
    import dspy

    from programs.batch.job_keeper import JobKeeper
    from programs.lm.response_cache import use_response_cache
    from programs.runtime.environment import cache_dir

    with ConsoleEvents() as events:
        before = dspy.cache
        cache = use_response_cache(cache_dir() / "calls.sqlite", events)
        keeper = JobKeeper(on_event=events)
        try:
            yield keeper
        finally:
            keeper.close()
            cache.close()
            dspy.cache = before


def _facts(job: JobRow) -> dict[str, Any]:
    return {
        "job": job.id,
        "batch": job.batch_id,
        "model": job.model,
        "state": job.state,
        "lines": job.lines,
        "answered": job.answered,
        "most_usd": job.most_usd,
        "seconds": None if job.submitted is None else round(time.time() - job.submitted, 1),
        "ledger": job.owner,
    }


def _show(jobs: list[JobRow]) -> None:
    table = Table(title="Jobs under way", title_justify="left")
    for column in ("job", "model", "state", "lines", "answered", "at most", "minutes"):
        table.add_column(column, justify="left" if column in ("job", "model", "state") else "right")
    for job in jobs:
        minutes = "-" if job.submitted is None else f"{(time.time() - job.submitted) / 60:.0f}"
        table.add_row(
            job.id[:_SHOWN], job.model, job.state, str(job.lines), str(job.answered), format_usd(job.most_usd), minutes
        )
    out.print(table)
