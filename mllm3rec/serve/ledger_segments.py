"""Segments of the service's ledger: a full file is closed and kept, and what it spent is added to a small summary.

For `serve.jsonl` the segments are `serve.000001.jsonl` and so on, and the summary is `serve.spent.json`. A restart
reads the summary, the file that is written to, and a segment that a kill has left out of the summary; never all.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllm3rec.serve.limits import DAY_SECONDS
from programs.lm.ledger import Call
from programs.lm.sliding_window import MINUTE
from programs.runtime.appending import open_to_append
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import input_error
from programs.runtime.untrusted import open_untrusted, read_untrusted

try:
    import fcntl
except ImportError:  # Windows: one process per ledger, there.
    fcntl = None  # type: ignore[assignment]

SEGMENT_BYTES = 8 << 20
"""Size at which a segment is closed: it is read once then, in some tenths of a second."""

_HIT = b'"hit":true'

_Amount = Annotated[float, Field(ge=0)]


class Spending(BaseModel):
    """What the calls of the last day have cost.

    Attributes:
        through: Number of the last segment that is in it.
        minutes: Dollars of ended calls by the minute in which they ended (Unix seconds over 60).
        in_flight: Time and upper estimate of calls by id whose end is in none of these segments.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    through: int = Field(default=0, ge=0)
    minutes: dict[int, _Amount] = {}
    in_flight: dict[str, tuple[float, _Amount]] = {}

    def add(self, call: Call) -> None:
        """Count a line of a ledger; the second of a call takes the place of the first."""
        if call.in_flight:
            self.in_flight[call.id] = call.at, call.at_most_usd
            return
        self.in_flight.pop(call.id, None)
        if not call.hit:
            minute = int(call.at // MINUTE)
            self.minutes[minute] = self.minutes.get(minute, 0.0) + call.at_most_usd

    def forget(self, before: float) -> None:
        """Leave out what was spent earlier."""
        self.minutes = {minute: usd for minute, usd in self.minutes.items() if (minute + 1) * MINUTE > before}
        self.in_flight = {call: (at, usd) for call, (at, usd) in self.in_flight.items() if at > before}

    def by_time(self) -> list[tuple[float, float]]:
        """Times and dollars, the oldest first; those of a minute count from its end."""
        ended = [((minute + 1) * MINUTE, usd) for minute, usd in self.minutes.items()]
        return sorted([*ended, *self.in_flight.values()])


class LedgerSegments:
    """The files of one ledger. Several processes may write to it: each line is written inside `writing`.

    Args:
        path: The file that is written to.

    Raises:
        InputError: if one of the files is a symbolic link or no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.summary = path.with_name(f"{path.stem}.spent.json")
        self._name = re.compile(re.escape(path.stem) + r"\.(\d{6,})" + re.escape(path.suffix))
        self._lock: int | None = None

    @contextmanager
    def writing(self, file: IO[str] | None) -> Iterator[bool]:
        """Nobody closes a segment inside the block. Yields whether an open file is still the one to write to."""
        with self._locked(exclusive=False):
            yield file is not None and self._is_current(file)

    def restored(self) -> tuple[Spending, bool]:
        """What was spent in the last day, and whether the last line of the file to write to is cut off.

        Raises:
            InputError: naming file and line, if a line is not a call, or naming a summary that is none.
        """
        with self._locked():
            spending = self._summarised()
            whole = self._add_lines(spending, self.path) if self.path.exists() or self.path.is_symlink() else True
            if self._size() >= SEGMENT_BYTES:
                self._close_segment(spending)
                whole = True
        spending.forget(time.time() - DAY_SECONDS)
        return spending, not whole

    def close_if_full(self) -> bool:
        """Close the segment if it is full, and nobody writes to it now; whether it was closed.

        The file must be closed.
        """
        with self._locked(wait=False) as mine:
            if not mine or self._size() < SEGMENT_BYTES:
                return False
            spending = self._summarised()
            self._add_lines(spending, self.path)
            self._close_segment(spending)
            return True

    def close(self) -> None:
        """Close the lock file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _summarised(self) -> Spending:
        """What the closed segments hold of the last day; one that a kill has left out is added."""
        spending = Spending()
        if self.summary.exists() or self.summary.is_symlink():
            try:
                spending = Spending.model_validate_json(read_untrusted(self.summary))
            except ValidationError as error:
                remedy = "remove it, and it is made again from the segments"
                raise input_error(f"{self.summary}: not a summary of a ledger", error, remedy) from None
        since, missing = time.time() - DAY_SECONDS, False
        for number, path in self._segments():
            if number > spending.through:
                missing = True
                if path.lstat().st_mtime > since:
                    self._add_lines(spending, path)
                spending.through = number
        if missing:
            self._write_summary(spending)
        return spending

    def _close_segment(self, spending: Spending) -> None:
        """Rename the file, whose calls are in `spending`, and write that; a kill between both leaves it to be read."""
        spending.through = max(spending.through, *(number for number, _ in self._segments()), 0) + 1
        self.path.rename(self.path.with_name(f"{self.path.stem}.{spending.through:06}{self.path.suffix}"))
        self._write_summary(spending)

    def _write_summary(self, spending: Spending) -> None:
        spending.forget(time.time() - DAY_SECONDS)
        write_atomically(self.summary, spending.model_dump_json().encode() + b"\n")

    def _segments(self) -> list[tuple[int, Path]]:
        if not self.path.parent.is_dir():
            return []
        found = ((self._name.fullmatch(path.name), path) for path in self.path.parent.iterdir())
        return sorted((int(name[1]), path) for name, path in found if name)

    def _add_lines(self, spending: Spending, path: Path) -> bool:
        """Add the calls of a file; False if its last line is cut off, which is left out."""
        with open_untrusted(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return False
                if _HIT in line:
                    continue  # most lines, and nothing was spent
                try:
                    spending.add(Call.model_validate_json(line))
                except ValidationError as error:
                    remedy = "correct or remove this line; a removed call no longer counts for the budget"
                    raise input_error(f"{path}:{number}: not a ledger line", error, remedy) from None
        return True

    def _size(self) -> int:
        try:
            return self.path.lstat().st_size
        except FileNotFoundError:
            return 0

    def _is_current(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    @contextmanager
    def _locked(self, exclusive: bool = True, wait: bool = True) -> Iterator[bool]:
        """Hold the lock that writers share; yields whether it was free, if we do not wait for it."""
        if fcntl is None:
            yield True
            return
        if self._lock is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = open_to_append(self.path.with_name(f"{self.path.name}.lock"))
        try:
            fcntl.flock(self._lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
