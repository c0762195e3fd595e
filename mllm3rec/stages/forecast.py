"""Forecast of a job: what the rows that are left will take, from some that are made first.

These are drawn among all rows, and drawn until enough of them have asked a model: the first ones may be those whose
answers are cached, which say nothing about the cost of the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic

import pyarrow as pa

from signatures.rows import Usage

ASKED_ROWS = 8
"""Rows that ask a model, after which a sample is large enough. So many are under way at a time."""

MOST_ROWS = 256
"""Rows after which a sample ends: if none of them asks a model, hardly one in a hundred does."""


@dataclass(frozen=True)
class Forecast:
    """What the rows that are left will take, from a sample; no dollars where a price is unknown.

    Attributes:
        hours: With as many calls in flight as the models allow.
        sampled: Rows of the sample.
        cached: Those of them that sent no call, because the answers were stored.
    """

    rows: int
    calls: int
    usd: float | None
    hours: float
    sampled: int
    cached: int

    def __str__(self) -> str:
        usd = "unknown dollars" if self.usd is None else f"${self.usd:,.2f}"
        sample = f"from {self.sampled:,} rows, {self.cached:,} of them cached"
        return f"{self.rows:,} rows: about {self.calls:,} calls, {usd}, {_span(self.hours)} ({sample})"


def drawn(ids: Sequence[str], dry_run: bool) -> list[str]:
    """The rows that a sample may take, in the order in which it takes them; in a dry run at most half of all."""
    if len(ids) <= ASKED_ROWS and not dry_run:
        return []
    most = len(ids) // 2 if dry_run else len(ids) - 1
    return random.Random(0).sample(ids, min(MOST_ROWS, most))  # noqa: S311 - the same ones each time, no secret


@dataclass
class Sample:
    """The rows that are made first.

    Attributes:
        rows: Each as a batch of its own, by id.
    """

    rows: dict[str, pa.RecordBatch] = field(default_factory=dict)
    _cached: int = 0
    _seconds_asked: list[float] = field(default_factory=list)
    _seconds_cached: float = 0.0
    _rows_cached: int = 0

    def take(self, ids: Sequence[str], make: Callable[[list[str]], Iterator[pa.RecordBatch]]) -> None:
        """Make rows until `ASKED_ROWS` of them have sent a call, or there are no more.

        Args:
            make: Makes the rows of some ids; all of them are under way at a time.
        """
        left = iter(ids)
        while len(self.rows) - self._cached < ASKED_ROWS and (some := list(islice(left, ASKED_ROWS))):
            began, cached = monotonic(), 0
            for batch in make(some):
                cached += sum(not calls for calls in batch["calls"].to_pylist())
                self.rows |= {key: batch.slice(n, 1) for n, key in enumerate(batch[0].to_pylist())}
            self._cached += cached
            if cached < len(some):
                self._seconds_asked.append(monotonic() - began)
            else:
                self._seconds_cached += monotonic() - began
                self._rows_cached += cached

    def forecast(self, left: int, sent: Usage, slots: int) -> Forecast:
        """What further rows will take.

        Args:
            left: Their number.
            sent: What the sample sent.
            slots: The most calls that may be in flight.
        """
        share = left / len(self.rows)
        usd = None if sent.usd is None and sent.calls else share * (sent.usd or 0.0)
        seconds = share * self._cached * self._seconds_cached / max(1, self._rows_cached)
        if self._seconds_asked:
            # Later as many rows are under way at a time as the models have slots.
            once = sum(self._seconds_asked) / len(self._seconds_asked)
            seconds += share * (len(self.rows) - self._cached) * once / max(ASKED_ROWS, slots)
        return Forecast(left, round(share * sent.calls), usd, seconds / 3600, len(self.rows), self._cached)

    def in_place(self, ids: Sequence[str], made: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows that are made of the others, with those of the sample where they are among all.

        Args:
            ids: Of all rows, in order.
            made: The rows of those that are not in the sample.
        """
        after: dict[str | None, list[pa.RecordBatch]] = {}
        last: str | None = None
        for key in ids:
            if key in self.rows:
                after.setdefault(last, []).append(self.rows[key])
            else:
                last = key
        yield from after.get(None, ())
        for batch in made:
            start = 0
            for end, key in enumerate(batch[0].to_pylist(), start=1):
                if key in after:
                    yield batch.slice(start, end - start)
                    yield from after[key]
                    start = end
            if start < batch.num_rows:
                yield batch.slice(start)


def _span(hours: float) -> str:
    """A time for people.

    >>> _span(0.001), _span(0.5), _span(30)
    ('less than a minute', '30 minutes', '30.0 hours')
    """
    if hours < 1 / 60:
        return "less than a minute"
    return f"{hours * 60:.0f} minutes" if hours < 1 else f"{hours:.1f} hours"
