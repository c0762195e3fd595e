"""Call log and budget of a run: role, tokens, price and time of every call, and limits on calls and dollars.

The sum of `lm.history` is wrong after a deep copy and DSPy's usage tracker loses threads (measured), so calls are
recorded here, by `RoleLM`, which every call passes: once before it is sent, at its upper estimate, and once when it has
ended. So what was in flight when the process was killed is known, and budgets count it at its worst.

Both lines are handed to the operating system at once, which keeps them when the process is killed in any way. They are
not synced to disk: that would take milliseconds a call, and only a power cut or a crash of the machine needs it.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from programs.runtime.appending import cut_off_torn_line, open_to_append
from programs.runtime.errors import BudgetExceededError, input_error
from programs.runtime.nocopy import SharedByCopies
from programs.runtime.untrusted import open_untrusted, regular
from signatures.rows import Usage, add_usd, total_usage

MINUTES_OVER = "the minutes of this session are over"

_OF_CASE: ContextVar[tuple[Usage, ...]] = ContextVar("usage_of_case", default=())
"""Sums of the blocks around a call, the outermost first."""

_LABEL: ContextVar[str] = ContextVar("label", default="")
_STANDALONE: ContextVar[dict[str, Usage] | None] = ContextVar("standalone_usage", default=None)


class Call(BaseModel):
    """One call: one line of a ledger, or two with the same id, of which the second says how it ended.

    Attributes:
        tokens_cached: Those of `tokens_in` that the server took from its prefix cache.
        tokens_written: Those of `tokens_in` that the provider billed as written to its cache.
        usd: Its price; None where the model has no known price. A cache hit keeps the price of the call whose
            answer it is: billed cost leaves hits out, stand-alone cost counts them.
        most_usd: Upper estimate of its price, if the answer came without usage and the price is therefore unknown;
            budgets count it.
        seconds: From sending to answer, or until it failed; a cache hit keeps those of the call whose answer it is,
            0 where they are not known.
        waited: Seconds before it was sent: for a slot, the limits of its backend, or a requested pause.
        about: Hash of the prompt, or of the item it distils: identifies repeated cache hits, which count once per run.
        phase: Phase of a compile (`pools`, `search`, ...), or empty.
        failed: Sent but not answered. If the server said so, nobody bills it; else, after a timeout or a lost
            connection, somebody may, and `usd` is its upper estimate.
        hit: Answered from the response cache: nothing was sent and nothing was paid.
        at: Unix seconds.
        id: Same in both lines of a call; empty for cache hits, and in ledgers from before there were two.
        in_flight: Written before the call was sent: tokens and dollars are its upper estimate. `read_calls` leaves it
            out once the call has ended; what is left was in flight when a process was killed.
        via: `batch` for a line of a batch; empty for a call of its own.
    """

    # A negative price in an edited file would be a credit, and with NaN no budget would ever be spent.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    role: str
    model: str
    tokens_in: int = Field(default=0, ge=0)
    tokens_out: int = Field(default=0, ge=0)
    tokens_cached: int = Field(default=0, ge=0)
    tokens_written: int = Field(default=0, ge=0)
    usd: float | None = Field(default=None, ge=0)
    most_usd: float | None = Field(default=None, ge=0)
    seconds: float = 0.0
    waited: float = 0.0
    about: str = ""
    phase: str = ""
    hit: bool = False
    failed: bool = False
    at: float = 0.0
    id: str = ""
    in_flight: bool = False
    via: str = ""

    @property
    def at_most_usd(self) -> float:
        """Dollars that a budget counts: the price, or its upper estimate where that is unknown."""
        return (self.usd or 0.0) + (self.most_usd or 0.0)


class Budget(BaseModel):
    """Limits of a run on what is really paid; cache hits are free. None is no limit.

    Attributes:
        minutes: From when this budget is made; no call is sent after that. Copies end at the same moment, so that all
            runs of a command share its minutes. Sent to another process, it has the minutes that are left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    usd: float | None = Field(default=None, ge=0)
    calls: int | None = Field(default=None, ge=0)
    minutes: float | None = Field(default=None, gt=0)
    _until: float | None = PrivateAttr(default=None)

    def model_post_init(self, context: object) -> None:
        """Begin the minutes."""
        self._until = None if self.minutes is None else time.monotonic() + 60 * self.minutes

    @property
    def over(self) -> bool:
        """Whether the minutes are over."""
        return self.seconds_left <= 0

    @property
    def seconds_left(self) -> float:
        """Until the minutes are over, infinite without any; 0 or less afterwards."""
        return math.inf if self._until is None else self._until - time.monotonic()

    def to_send(self) -> Budget:
        """This budget for another process. Its minutes are those that are left: they begin where it is read."""
        minutes = None if self._until is None else max(_A_MOMENT, (self._until - time.monotonic()) / 60)
        return Budget(usd=self.usd, calls=self.calls, minutes=minutes)

    def minus(self, usd: float, calls: int) -> Budget:
        """What is left after so many dollars and calls, at least 0 of each; its minutes end at the same moment.

        >>> Budget(usd=1.0, calls=10).minus(0.25, 12)
        Budget(usd=0.75, calls=0, minutes=None)
        """
        left_usd = None if self.usd is None else max(0.0, self.usd - usd)
        left_calls = None if self.calls is None else max(0, self.calls - calls)
        return self.model_copy(update={"usd": left_usd, "calls": left_calls})

    def __reduce__(self) -> tuple[Any, ...]:
        return Budget.model_validate, (self.to_send().model_dump(),)


_NO_BUDGET = Budget()
_A_MOMENT = 1e-6
"""Minutes that are over when they are looked at."""

_BUFFERED_BYTES = 1 << 20


def add_call(usage: Usage, call: Call) -> None:
    """Add one call to a running sum of what was really sent; of a cache hit only the number is added.

    An unpriced call leaves the known dollars as they are; one in flight counts at its upper estimate.
    """
    if call.hit:
        usage.cache_hits += 1
        return
    usage.calls += 1
    usage.interrupted += call.in_flight
    usage.unpriced += call.usd is None and not call.failed
    usage.tokens_in += call.tokens_in
    usage.tokens_out += call.tokens_out
    usage.tokens_cached += call.tokens_cached
    usage.tokens_written += call.tokens_written
    usage.seconds += call.seconds
    usage.usd = add_usd(usage.usd, call.usd)


def read_calls(path: Path) -> Iterator[Call]:
    """The calls in a ledger file, each once, in order; none without a file.

    A line cut off at the end by a kill is left out.

    Raises:
        InputError: naming file and line, if a line is not a call.
    """
    if path.exists():
        yield from _calls(regular(path).read_bytes(), path)


def _calls(content: bytes, path: Path) -> Iterator[Call]:
    calls = list(_lines(content, path))
    ended = {call.id for call in calls if not call.in_flight}
    yield from (call for call in calls if not (call.in_flight and call.id in ended))


def _lines(content: bytes, path: Path) -> Iterator[Call]:
    # As bytes: a foreign byte is in a line that can be named, and only a line feed ends a line.
    *lines, _ = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield Call.model_validate_json(line)
        except ValidationError as error:
            remedy = "correct or remove this line; a removed call no longer counts for the budget"
            raise input_error(f"{path}:{number}: not a ledger line", error, remedy) from None


def interrupted_note(calls: int) -> str:
    """What to say of calls that were in flight when a process was killed.

    >>> interrupted_note(2)
    '2 calls were in flight at a kill; counted at their upper estimate'
    """
    return f"{calls} {'call was' if calls == 1 else 'calls were'} in flight at a kill; counted at their upper estimate"


def by_role(calls: Iterable[Call]) -> dict[str, Usage]:
    """Sums of calls by role."""
    totals: dict[str, Usage] = {}
    for call in calls:
        add_call(totals.setdefault(call.role, Usage()), call)
    return totals


class Ledger(SharedByCopies):
    """Thread-safe record of a run's calls, kept in a JSON Lines file when `path` is given.

    Reopening the file continues its sums, so that a resumed run keeps to the same budget. Calls that were in flight
    when an earlier session was killed are in them at their upper estimate.
    Deep copies are the same ledger: optimizers copy programs, and money is spent once.

    Attributes:
        phase: Phase of a compile that is under way; written with every call from now on.

    Raises:
        InputError: if the file is a symbolic link or no regular file, or a line of it is not a call.
    """

    def __init__(self, path: Path | None = None, budget: Budget | None = None) -> None:
        self.path = path
        self.budget = budget or Budget()
        self.phase = ""
        self._lock = threading.Condition(threading.RLock())
        self._totals: dict[str, Usage] = {}
        self._phases: dict[str, Usage] = {}
        self._reserved_usd = 0.0
        self._assumed_usd = 0.0
        self._reserved_calls = 0
        self._stopped: str | None = None
        self._halt = threading.Event()
        # Ids must differ from those of earlier sessions, and of other processes that write to the same file.
        self._session = secrets.token_hex(4)
        self._sent = 0
        # Opened with the first call, so that a command that fails earlier leaves no file.
        self._file: TextIO | None = None
        # Whether a kill has left a last line without its end; it is cut off with the first call, too.
        self._torn = False
        if path is not None and (path.exists() or path.is_symlink()):
            self._restore(path)

    @classmethod
    def of_worker(cls, path: Path | None, budget: Budget) -> Ledger:
        """A ledger for one of several processes that write to the same file.

        Args:
            budget: What is left for this process: calls that are in the file already do not count against it, nor are
                they in its sums.
        """
        ledger = cls(None, budget)
        ledger.path = path
        return ledger

    def _restore(self, path: Path) -> None:
        with open_untrusted(path) as file:
            content = file.read()
        for call in _calls(content, path):
            self._add(call)
        self._torn = not content.endswith(b"\n")

    def _add(self, call: Call) -> None:
        add_call(self._totals.setdefault(call.role, Usage()), call)
        add_call(self._phases.setdefault(call.phase, Usage()), call)
        self._assumed_usd += call.most_usd or 0.0

    def stop(self, why: str) -> None:
        """Refuse all further calls: work under way ends at its next call. Cache hits stay possible."""
        with self._lock:
            self._stopped = why
            self._halt.set()
            self._lock.notify_all()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._halt.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep before a call is tried again.

        Raises:
            BudgetExceededError: after `stop`, at once.
        """
        if self._halt.is_set() or (seconds and self._halt.wait(seconds)):
            raise BudgetExceededError(self._stopped or "stopped")

    def require_time(self) -> None:
        """Check that a call that has waited for its permit may still be sent.

        Raises:
            BudgetExceededError: after `stop`, or if the minutes are over.
        """
        self.wait(0)
        if self.budget.over:
            raise BudgetExceededError(MINUTES_OVER)

    def reserve(self, worst_usd: float | None) -> None:
        """Reserve budget for one call before it is made.

        Args:
            worst_usd: Upper estimate of its price, or None where unknown (a dollar budget refuses such a model
                before the run starts).

        Raises:
            BudgetExceededError: if the call might exceed a limit, or after `stop`.
        """
        with self._lock:
            while not self.try_reserve(worst_usd):
                self._lock.wait()

    def try_reserve(self, worst_usd: float | None) -> bool:
        """`reserve` without waiting: False while only what calls under way have reserved is in the way.

        They may turn out cheaper than their worst case, so it is worth to try again when one of them has ended.

        Raises:
            BudgetExceededError: as `reserve`.
        """
        with self._lock:
            problem = self._problem(worst_usd)
            if problem is None:
                self._reserved_calls += 1
                self._reserved_usd += worst_usd or 0.0
                return True
            if self._stopped is not None or not self._reserved_calls:
                raise BudgetExceededError(problem)
            return False

    def _problem(self, worst_usd: float | None) -> str | None:
        if self._stopped is not None:
            return self._stopped
        if self.budget == _NO_BUDGET:
            return None
        if self.budget.over:
            return MINUTES_OVER
        spent, reserved, calls = self._committed()
        if self.budget.calls is not None and calls + 1 > self.budget.calls:
            return f"the budget of {self.budget.calls} calls is spent"
        if self.budget.usd is not None and spent + reserved + (worst_usd or 0.0) > self.budget.usd:
            return f"the next call might exceed the budget: ${spent:.4f} of ${self.budget.usd:.4f} spent"
        return None

    def _committed(self) -> tuple[float, float, int]:
        """Dollars spent, dollars reserved, and calls of both kinds."""
        spent, calls = self.spent()
        return spent, self._reserved_usd, calls + self._reserved_calls

    def release(self, worst_usd: float | None) -> None:
        """Give back what `reserve` set aside, once the call is recorded or has failed."""
        with self._lock:
            self._reserved_calls -= 1
            self._reserved_usd -= worst_usd or 0.0
            self._lock.notify_all()

    def record_sent(self, call: Call) -> str:
        """Write a call that is about to be sent, so that it is counted if the process is killed before it ends.

        Args:
            call: With `in_flight`, and its upper estimate in tokens and dollars.

        Returns:
            The id for the call that `record` gets when it has ended.
        """
        with self._lock:
            self._sent += 1
            call = self._labeled(call, id=f"{self._session}-{self._sent}")
            self._write(call)
        return call.id

    def record(self, call: Call) -> None:
        """Write one call that has ended and add it to the sums of its role, its phase and the blocks of this thread.

        It is handed to the operating system at once; a cache hit inside a `usage_of_case` block, of which a list has
        dozens, with the next paid call or at the end of the block.
        """
        with self._lock:
            call = self._labeled(call)
            self._add(call)
            self._write(call)
            for usage in _OF_CASE.get():
                add_call(usage, call)
        standalone = _STANDALONE.get()
        if standalone is not None:
            add_call(standalone.setdefault(call.role, Usage()), call.model_copy(update={"hit": False}))

    def _labeled(self, call: Call, **more: str) -> Call:
        about = self.about(call.about)
        if not more and (self.phase, about) == (call.phase, call.about):
            return call
        return call.model_copy(update={"phase": self.phase, "about": about, **more})

    def _write(self, call: Call) -> None:
        if self.path is None:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            private = open_to_append(self.path)
            if self._torn:
                cut_off_torn_line(private)
                self._torn = False
            # With a buffer for many lines, whole lines reach the file at once, whoever else writes to it.
            self._file = os.fdopen(private, "a", buffering=_BUFFERED_BYTES, encoding="utf-8")
        self._file.write(call.model_dump_json(exclude_defaults=True) + "\n")
        if not call.hit or not _OF_CASE.get():
            self._file.flush()

    @contextmanager
    def usage_of_case(self) -> Iterator[Usage]:
        """Sum what was really sent inside the block by this thread, with the block's wall time: the usage of a case.

        Cache hits are counted in `cache_hits` alone. At the end of the block its calls are in the file. Blocks may be
        nested: the outer one includes the inner one, call by call.
        """
        usage = Usage()
        token = _OF_CASE.set((*_OF_CASE.get(), usage))
        started = time.perf_counter()
        try:
            yield usage
        finally:
            usage.seconds = time.perf_counter() - started
            _OF_CASE.reset(token)
            # Before the row of the case is written: a resumed run must not have a row without its calls.
            with self._lock:
                if self._file is not None:
                    self._file.flush()

    @contextmanager
    def standalone_usage(self) -> Iterator[dict[str, Usage]]:
        """Sum per role the calls made inside the block by this thread, cache hits as if they had been paid.

        The cost of a program must not depend on what the cache happens to hold. Blocks may be nested: the outer one
        includes the inner one.
        """
        usages: dict[str, Usage] = {}
        outer = _STANDALONE.get()
        token = _STANDALONE.set(usages)
        try:
            yield usages
        finally:
            _STANDALONE.reset(token)
            if outer is not None:
                for role, usage in usages.items():
                    outer[role] = total_usage([outer.get(role, Usage()), usage])

    def about(self, prompt: str) -> str:
        """What a call of this thread is about: the label of `label_calls`, or the hash of its prompt."""
        return _LABEL.get() or prompt

    @contextmanager
    def label_calls(self, label: str) -> Iterator[None]:
        """Write `label` as `Call.about` of the calls made inside the block by this thread."""
        token = _LABEL.set(label)
        try:
            yield
        finally:
            _LABEL.reset(token)

    def by_phase(self) -> dict[str, Usage]:
        """A copy of the sums per phase."""
        with self._lock:
            return {phase: usage.model_copy() for phase, usage in self._phases.items()}

    def by_role(self) -> dict[str, Usage]:
        """A copy of the sums per role."""
        with self._lock:
            return {role: usage.model_copy() for role, usage in self._totals.items()}

    def total(self) -> Usage:
        """The sum over all roles. `usd` is None while nothing priced was paid."""
        with self._lock:
            return total_usage(self._totals.values())

    def spent(self) -> tuple[float, int]:
        """What budgets count: dollars, at their upper estimate where a price is unknown, and calls."""
        with self._lock:
            total = self.total()
            return (total.usd or 0.0) + self._assumed_usd, total.calls

    def left(self) -> Budget:
        """What is left of the budget."""
        return self.budget.minus(*self.spent())

    def close(self) -> None:
        """Close the file; the sums stay readable."""
        if self._file is not None:
            self._file.close()
            self._file = None
