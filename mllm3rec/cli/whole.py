"""What commands over whole catalogues have in common: which users, and how a job ended."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from mllm3rec.cli.console import emit, format_usd, out, say
from programs.runtime.errors import InputError

if TYPE_CHECKING:
    from mllm3rec.stages.job import Job


def chosen_users(users: str, known: list[str]) -> list[str] | None:
    """The users that `--users` names; None for all.

    Args:
        users: `all`, a number N (the first N), or a file with one id on each line.
        known: All users, in order.

    Raises:
        InputError: if it is none of these.
    """
    if users == "all":
        return None
    if re.fullmatch("0*[1-9][0-9]{0,17}", users):
        return known[: int(users)]
    path = Path(users)
    if not path.is_file():
        raise InputError(f"--users {users}: there is no such file; give `all`, a number, or a file with one id a line")
    try:
        found = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"--users {users}: is no text in UTF-8; write one id on each line") from None
    if not found:
        raise InputError(f"--users {users}: names no user; write one id on each line")
    return found


def fresh_rows(wanted: bool, to: Path) -> AbstractContextManager[None]:
    """`--fresh` of a command that makes the rows of a file.

    Raises:
        InputError: if the file is finished, or was begun with stored answers. One that was begun with `--fresh` and has
            rows that failed is not finished.
    """
    from mllm3rec.stages.parts import parts_folder
    from programs.lm.fresh_answers import SALT_FILE, fresh_answers

    if wanted and to.exists() and not (parts_folder(to) / SALT_FILE).exists():
        raise InputError(f"{to}: is there already; choose another --out for new answers (--fresh)")
    return fresh_answers(wanted, parts_folder(to))


def finish(job: Job, as_json: bool) -> int:
    """Print how a job ended; the exit code: 1 if rows are unparsable or failed, or most were refused."""
    from evaluate.runs.run_metrics import is_readable
    from mllm3rec.stages import columns

    total = sum(job.rows.values())
    if as_json:
        forecast = None if job.forecast is None else vars(job.forecast)
        facts = {"out": job.out if job.written else None, "rows": total, "status": dict(job.rows)}
        emit({**facts, "usage": job.usage.model_dump(exclude={"seconds"}), "forecast": forecast})
    else:
        of_statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(job.rows.items()))
        spent = f"{job.usage.calls:,} calls, {job.usage.cache_hits:,} cache hits, {format_usd(job.usage.usd)}"
        where = f"{job.out}: {total:,} rows" if job.written else f"dry run, {total:,} rows made"
        out.print(f"{where} ({of_statuses}); {spent}")
    if failed := job.rows.get(columns.FAILED, 0):
        say(f"{failed:,} rows failed; the same command tries them again (column `error` says why)")
    if unparsable := job.rows.get(columns.UNPARSABLE, 0):
        say(f"{unparsable:,} rows: no answer of the model could be read; --retry-unparsable asks again")
    refused = job.rows.get(columns.REFUSED, 0)
    return 1 if failed or unparsable or not is_readable(refused, total) else 0
