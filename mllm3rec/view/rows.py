"""Reader of a run's journal by an index of offsets: rows are read on demand, appended ones are indexed later."""

from __future__ import annotations

import math
import mmap
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from evaluate.runs.journal import row_in
from evaluate.stats.metrics import rank_of
from mllm3rec.view.case_lines import ListedTarget
from programs.ranker import order_by_score
from programs.runtime.errors import InputError, input_error, quoted
from programs.runtime.untrusted import regular
from signatures.rows import Ranking, Status, seed_of

_BLOCK = 1 << 18
LONGEST_LINE = 64 << 20
_KEY = b'","row":{"user_id":'
_STATES = {status: number for number, status in enumerate(Status)}
_NAMES = tuple(_STATES)


class UserFacts(NamedTuple):
    """What the index keeps of a user.

    Attributes:
        rank, prior_rank: 1-based rank of the target in the ranker's order and by the prior alone; 0 where not known.
    """

    user_id: str
    status: Status
    rank: int
    prior_rank: int


@dataclass(frozen=True)
class Spent:
    """Sums over the latest rows of all users."""

    users: int = 0
    unparsable: int = 0
    failed: int = 0


class RunRows:
    """Rows of one journal, which may grow while it is read. Safe to use from several threads.

    In memory are only offset, status and ranks of each user (about 250 bytes), never the rows.

    Args:
        path: The journal; it need not exist yet.
        listed: Candidates and target of a user; None where they are not known: then there are no ranks.
    """

    def __init__(self, path: Path, listed: Callable[[str], ListedTarget | None] = lambda user: None) -> None:
        self.path = path
        self._listed = listed
        self._lock = threading.RLock()
        self._clear()

    def forget(self) -> None:
        """Index anew: cases were found after the journal."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._place: dict[str, int] = {}
        self._offsets = array("Q")
        self._ranks, self._prior_ranks = array("L"), array("L")
        self._states = bytearray()
        self._file: tuple[int, int] | None = None
        self._end = 0
        self._list_size = 0

    @property
    def indexed(self) -> int:
        """Bytes of the journal that are in the index."""
        return self._end

    @property
    def size(self) -> int:
        """Bytes of the journal."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def list_size(self) -> int:
        """Number of candidates of a user; 0 before the first row."""
        return self._list_size

    def __len__(self) -> int:
        return len(self._place)

    def extend(self, seconds: float | None = None) -> bool:
        """Index what was appended since the last time.

        Args:
            seconds: Stop after about as long, and at least one row; None for no limit.

        Returns:
            Whether all whole rows are in the index.

        Raises:
            InputError: naming file and byte, if something in it is not a row.
        """
        began = time.monotonic()
        with self._lock:
            if not self.size:
                self._clear()
                return True
            with regular(self.path).open("rb") as file:
                found = os.fstat(file.fileno())
                own = found.st_dev, found.st_ino
                if own != self._file or found.st_size < self._end:  # the journal was begun anew
                    self._clear()
                    self._file = own
                file.seek(self._end)
                begun: list[bytes] = []  # the blocks of a line whose end was not read yet
                while block := file.read(_BLOCK):
                    begun.append(block)
                    if b"\n" in block:
                        *lines, rest = b"".join(begun).split(b"\n")
                        for line in lines:
                            self._add(line)
                        # Not within a line: what was read of it would be read again for ever.
                        if seconds is not None and time.monotonic() - began > seconds:
                            return self._end + len(rest) >= self.size
                        begun = [rest]
                    if sum(map(len, begun)) > LONGEST_LINE:
                        raise InputError(f"{self.path}: at byte {self._end:,}: a line is too long to be a row")
            return True

    def _add(self, line: bytes) -> None:
        where = f"{self.path}: at byte {self._end:,}"
        try:
            row = _json(line)["row"]
            user, order = row["user_id"], row["order"]
            status = Status(row.get("status", Status.OK))
            if not isinstance(user, str) or not isinstance(order, list):
                raise TypeError
            rank, prior_rank = self._ranks_of(user, order, row.get("scores") or {}, status)
        except InputError:
            raise  # about the cases
        except (KeyError, TypeError, ValueError, AttributeError):
            whole = row_in(line + b"\n") is not None
            remedy = (
                "read it with the program that wrote it" if whole else "delete that line to have its user ranked again"
            )
            raise InputError(f"{where}: not a row of a journal; {remedy}") from None
        place = self._place.setdefault(user, len(self._offsets))
        values = (self._end, rank, prior_rank)
        columns = (self._offsets, self._ranks, self._prior_ranks)
        if place == len(self._offsets):
            for column, value in zip(columns, values, strict=True):
                column.append(value)
            self._states.append(_STATES[status])
        else:
            for column, value in zip(columns, values, strict=True):
                column[place] = value
            self._states[place] = _STATES[status]
        self._list_size = max(self._list_size, len(order))
        self._end += len(line) + 1

    def _ranks_of(self, user: str, order: list[str], scores: dict[str, list[float]], status: Status) -> tuple[int, int]:
        case = None if status is Status.FAILED else self._listed(user)
        if case is None or case.target not in order:
            return 0, 0
        prior = scores.get("prior", [])
        known = len(prior) == len(case.candidates)
        return rank_of(order, case.target), _rank_by(prior, case, user) if known else 0

    def find(self, user: str) -> Ranking | None:
        """The latest row of a user, checked; found at once, also before the index is complete.

        Raises:
            InputError: if it is damaged.
        """
        with self._lock:
            place = self._place.get(user)
            if self._is_whole():
                return None if place is None else self._read(self._offsets[place], user)
            offset = self._search(user)
        return None if offset is None else self._read(offset, user)

    def _is_whole(self) -> bool:
        """Whether the index is of the whole journal as it is now."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file and found.st_size == self._end

    def _search(self, user: str) -> int | None:
        """Offset of the last line of a user, by looking for its bytes."""
        if not self.size:
            return None
        with regular(self.path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            found = whole.rfind(_KEY + to_json(user) + b",")
            return None if found < 0 else whole.rfind(b"\n", 0, found) + 1

    def _read(self, offset: int, user: str) -> Ranking:
        with regular(self.path).open("rb") as file:
            file.seek(offset)
            body = row_in(file.readline(LONGEST_LINE))
        if body is None:
            raise InputError(
                f"{self.path}: the row of user {quoted(user)} was damaged (its checksum differs); delete that line to "
                "have the user ranked again"
            )
        return self._checked(body, f"the row of user {quoted(user)}")

    def _checked(self, body: bytes, what: str) -> Ranking:
        try:
            return Ranking.model_validate_json(body)
        except ValidationError as error:
            raise input_error(f"{self.path}: {what}", error) from None

    def users(self) -> list[UserFacts]:
        """The users in the index, in the order of their first rows."""
        with self._lock:
            return [
                UserFacts(user, _NAMES[self._states[place]], self._ranks[place], self._prior_ranks[place])
                for user, place in self._place.items()
            ]

    def facts(self, user: str) -> UserFacts | None:
        """What the index holds of one user."""
        with self._lock:
            place = self._place.get(user)
            if place is None:
                return None
            return UserFacts(user, _NAMES[self._states[place]], self._ranks[place], self._prior_ranks[place])

    def ranks(self, of_prior: bool = False) -> dict[str, int]:
        """Rank of the target by user, for users whose rank is known."""
        with self._lock:
            column = self._prior_ranks if of_prior else self._ranks
            return {user: column[place] for user, place in self._place.items() if column[place]}

    def spent(self) -> Spent:
        """Sums over the rows in the index."""
        with self._lock:
            count = self._states.count
            return Spent(len(self._place), count(_STATES[Status.UNPARSABLE]), count(_STATES[Status.FAILED]))

    def containing(self, text: bytes) -> Iterator[Ranking]:
        """The latest rows whose JSON contains some bytes, in order; others are only looked through.

        Raises:
            InputError: if one of them is not a ranking.
        """
        with self._lock:
            offsets = list(self._offsets)
        if not offsets:
            return
        with regular(self.path).open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                line = file.readline(LONGEST_LINE)
                body = row_in(line) if text in line else None
                if body is not None:
                    yield self._checked(body, f"at byte {offset:,}")


def _json(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # Scores may be infinite or no number, which is no JSON; that parser takes three times as long.
        return from_json(line, allow_inf_nan=True)


def _rank_by(scores: list[float], case: ListedTarget, user: str) -> int:
    """Rank of the target by scores, as `ranks_of` gives it."""
    own = scores[case.candidates.index(case.target)]
    if math.isfinite(own) and scores.count(own) == 1:
        # Without a tie nothing has to be drawn or sorted, which takes most of the time of an index.
        return 1 + sum(score > own for score in scores)
    return rank_of(order_by_score(case.candidates, scores, tie_seed=seed_of("ties", user)), case.target)
