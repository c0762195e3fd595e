"""File of answers to questions that were written to a file: untrusted, in any order, perhaps incomplete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from programs.batch.job_keeper import JobKeeper
from programs.batch.openai_form import openai_answer
from programs.batch.provider import AnswerLine, whole_lines
from programs.batch.providers import FILE
from programs.runtime.errors import InputError
from programs.runtime.untrusted import regular

_PIECE = 1 << 20


def read_answers(keeper: JobKeeper, path: Path) -> Counter[str]:
    """Settle the written jobs that a file answers; a question without a line is asked again.

    Returns:
        See `JobKeeper.settle`; for all jobs together.

    Raises:
        InputError: if the file cannot be read, or answers no question that waits.
    """
    total: Counter[str] = Counter()
    keys = {line.key for line in _lines(path)}
    # Another process may read the same file, or give these jobs up.
    with keeper.alone():
        waiting = [job for job in keeper.table.jobs() if job.provider == FILE]
        answered = [job for job in waiting if keys & {question.key for question in keeper.table.questions(job.id)}]
        for job in answered:
            total += keeper.settle(job, _lines(path))
    if not answered:
        raise InputError(
            f"{path}: answers none of the questions that wait ({sum(job.lines for job in waiting)} of them); give the "
            "output of the file that `mllm3rec batch write` wrote"
        )
    if len(answered) > 1:
        total["unknown"] = 0  # Lines of one job are unknown to the others.
    return total


def _lines(path: Path) -> Iterator[AnswerLine]:
    if path.is_symlink() or not regular(path).exists():
        raise InputError(f"{path}: is a symbolic link" if path.is_symlink() else f"{path}: no such file")
    with path.open("rb") as file:
        for raw in whole_lines(iter(lambda: file.read(_PIECE), b""), str(path)):
            if (line := openai_answer(raw)) is not None:
                yield line
