"""Reader of a run's ledger by an index: the calls about one prompt, also while it grows."""

from __future__ import annotations

import re
import threading
from array import array
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mllm3rec.view.rows import LONGEST_LINE
from programs.lm.ledger import Call, add_call
from programs.runtime.errors import InputError
from programs.runtime.untrusted import regular
from signatures.rows import Usage

_BLOCK = 4 << 20
_ABOUT = re.compile(rb'"about":"([0-9a-f]{16})"')
MOST_CALLS = 200
"""Calls about one prompt that are read: an item's traits may be looked up once for every user."""


class LedgerLines:
    """Calls of one ledger by what they are about; 16 bytes of memory a line. Safe to use from several threads.

    Args:
        path: The ledger; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file: tuple[int, int] | None = None
        self._clear()

    def _clear(self) -> None:
        self._abouts, self._offsets = array("Q"), array("Q")
        self._sorted: np.ndarray | None = None
        self._end = 0
        self._usage, self._summed = Usage(), 0

    def _size(self) -> int:
        """Bytes of the ledger; what is known of an earlier one is forgotten, if this one was begun anew."""
        try:
            found = self.path.stat()
        except OSError:
            self._file, size = None, 0
        else:
            own, size = (found.st_dev, found.st_ino), found.st_size
            if own != self._file:
                self._clear()
                self._file = own
        if size < max(self._end, self._summed):
            self._clear()
        return size

    def extend(self) -> None:
        """Index what was appended since the last time.

        Raises:
            InputError: naming file and byte, if a line is too long to be a call.
        """
        with self._lock:
            size = self._size()
            if size == self._end:
                return
            self._sorted = None
            with regular(self.path).open("rb") as file:
                file.seek(self._end)
                rest = b""
                while block := file.read(_BLOCK):
                    *lines, rest = (rest + block).split(b"\n")
                    for line in lines:
                        found = _ABOUT.search(line)
                        if found is not None:
                            self._abouts.append(int(found[1], 16))
                            self._offsets.append(self._end)
                        self._end += len(line) + 1
                    if len(rest) > LONGEST_LINE:
                        raise InputError(f"{self.path}: at byte {self._end:,}: a line is too long to be a call")

    def spent(self) -> Usage:
        """What was paid by the calls that have ended; only lines that were appended since the last time are read."""
        with self._lock:
            size = self._size()
            if size > self._summed:
                with regular(self.path).open("rb") as file:
                    file.seek(self._summed)
                    for line in iter(lambda: file.readline(LONGEST_LINE), b""):
                        if not line.endswith(b"\n"):
                            break  # being written right now
                        self._summed += len(line)
                        if b'"in_flight":true' not in line:
                            with suppress(ValidationError):  # `evaluate` names damaged lines, with a remedy
                                add_call(self._usage, Call.model_validate_json(line))
            return self._usage.model_copy()

    def about(self, what: str) -> list[Call]:
        """The calls about a prompt or an item (`Call.about`), each once, in order; at most `MOST_CALLS`."""
        if not re.fullmatch("[0-9a-f]{16}", what):
            return []
        self.extend()
        with self._lock:
            abouts = np.frombuffer(self._abouts, dtype=np.uint64) if self._abouts else np.zeros(0, np.uint64)
            if self._sorted is None:
                self._sorted = np.argsort(abouts, kind="stable")
            key = np.uint64(int(what, 16))
            first = int(np.searchsorted(abouts, key, "left", sorter=self._sorted))
            last = int(np.searchsorted(abouts, key, "right", sorter=self._sorted))
            offsets = [self._offsets[place] for place in self._sorted[first:last][:MOST_CALLS]]
            del abouts  # an array cannot grow while it is looked at
        calls = self._read(offsets)
        ended = {call.id for call in calls if not call.in_flight}
        return [call for call in calls if not (call.in_flight and call.id in ended)]

    def _read(self, offsets: list[int]) -> list[Call]:
        calls = []
        if offsets:
            with regular(self.path).open("rb") as file:
                for offset in offsets:
                    file.seek(offset)
                    try:
                        calls.append(Call.model_validate_json(file.readline(LONGEST_LINE)))
                    except ValidationError:
                        continue  # `evaluate` names damaged lines, with a remedy
        return calls
