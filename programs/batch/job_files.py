"""Files of jobs: questions divided by model and by the limits of a provider, one JSON object a line."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from programs.batch.job_table import JobRow, JobTable
from programs.batch.provider import Provider
from programs.batch.question import BatchQuestion
from programs.lm.prices import Price
from programs.runtime.atomic import write_atomically

_ROUTE = re.compile(r"/chat/completions$|/messages$|/models/[^/]+:generateContent$")
"""Of a call, after the address."""


def account_of(question: BatchQuestion) -> tuple[str, str, str]:
    """What the lines of one job have in common: address, model, and the variable with the key."""
    return _ROUTE.sub("", question.url), question.config.model, question.config.api_key_env or ""


def by_account(questions: Iterable[BatchQuestion]) -> Iterator[list[BatchQuestion]]:
    """The questions of each account and model."""
    for _, group in groupby(sorted(questions, key=account_of), account_of):
        yield list(group)


def split_by_limits(
    questions: Sequence[BatchQuestion], provider: Provider
) -> Iterator[tuple[list[BatchQuestion], bytes]]:
    """Parts within the provider's limits, each with the content of its file.

    Raises:
        InputError: if one question alone is larger than a file may be.
    """
    part: list[BatchQuestion] = []
    content: list[bytes] = []
    size = 0
    for question in questions:
        line = provider.line(question) + b"\n"
        if part and (len(part) == provider.most_lines or size + len(line) > provider.most_bytes):
            yield part, b"".join(content)
            part, content, size = [], [], 0
        part.append(question)
        content.append(line)
        size += len(line)
    if part:
        yield part, b"".join(content)


def write_job(
    table: JobTable,
    owner: str,
    dialect: str,
    questions: Sequence[BatchQuestion],
    content: bytes,
    price: Price | None,
    path: Path | None = None,
) -> JobRow:
    """Write the file of a job and add it to the table; both are on disk when this returns.

    Args:
        owner: See `JobRow`.
        dialect: Name of the provider's.
        price: Of the model in batches; None where unknown.
        path: The file; None for one beside the table.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    # The same on any machine that asks the same, so that a job is found at the provider if the table is lost.
    job_id = f"{sha256[:32]}-{table.with_content(sha256)}"
    path = path or table.path.with_name(f"{job_id}.jsonl")
    write_atomically(path, content)
    address, model, key_variable = account_of(questions[0])
    prices = [question.most_usd for question in questions]
    job = JobRow(
        id=job_id,
        owner=owner,
        provider=dialect,
        address=address,
        model=model,
        key_variable=key_variable or None,
        path=str(path.absolute()),
        sha256=sha256,
        lines=len(questions),
        most_usd=None if None in prices else sum(price for price in prices if price is not None),
        price=None if price is None else price.model_dump_json(exclude_none=True),
        state="written",
        file_id="",
        batch_id="",
        written=time.time(),
        submitted=None,
        answered=0,
    )
    table.add(job, questions)
    return job
