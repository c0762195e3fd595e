"""Call log and budget of a run: role, tokens, price and time of every call, and limits on calls and dollars.

The sum of `lm.history` is wrong after a deep copy and DSPy's usage tracker loses threads (measured), so calls are
recorded here, by `RoleLM.update_history`, which every call passes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from programs.runtime.errors import BudgetExceededError, input_error
from signatures.rows import Usage, add_usd, total_usage

_OF_CASE: ContextVar[Usage | None] = ContextVar("usage_of_case", default=None)
_LABEL: ContextVar[str] = ContextVar("label", default="")
_STANDALONE: ContextVar[dict[str, Usage] | None] = ContextVar("standalone_usage", default=None)


class Call(BaseModel):
    """One answered call.

    Attributes:
        tokens_cached: Those of `tokens_in` that the server took from its prefix cache.
        usd: Its price; None where the model has no known price. A cache hit keeps the price of the call whose
            answer it is: billed cost leaves hits out, stand-alone cost counts them.
        seconds: From sending to answer, or until it failed; a cache hit keeps those of the call whose answer it is,
            0 where they are not known.
        waited: Seconds before it was sent: for a slot, the limits of its backend, or a requested pause.
        about: Hash of the prompt, or of the item it distils: identifies repeated cache hits, which count once per run.
        phase: Phase of a compile (`pools`, `search`, ...), or empty.
        failed: Sent but not answered (error or timeout). Whether the provider bills it is unknown.
        hit: Answered from the response cache: nothing was sent and nothing was paid.
        at: Unix seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    usd: float | None = None
    seconds: float = 0.0
    waited: float = 0.0
    about: str = ""
    phase: str = ""
    hit: bool = False
    failed: bool = False
    at: float = 0.0


class Budget(BaseModel):
    """Limits of a run on what is really paid; cache hits are free. None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    usd: float | None = Field(default=None, ge=0)
    calls: int | None = Field(default=None, ge=0)


_NO_BUDGET = Budget()


def add_call(usage: Usage, call: Call) -> None:
    """Add one call to a running sum of what was really sent; of a cache hit only the number is added.

    An unpriced call leaves the known dollars as they are.
    """
    if call.hit:
        usage.cache_hits += 1
        return
    usage.calls += 1
    usage.tokens_in += call.tokens_in
    usage.tokens_out += call.tokens_out
    usage.tokens_cached += call.tokens_cached
    usage.seconds += call.seconds
    usage.usd = add_usd(usage.usd, call.usd)


def read_calls(path: Path) -> Iterator[Call]:
    """The calls in a ledger file, in order; none without a file. A line cut off at the end by a kill is left out.

    Raises:
        InputError: naming file and line, if a line is not a call.
    """
    if not path.exists():
        return
    # As bytes: a foreign byte is in a line that can be named, and only a line feed ends a line.
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield Call.model_validate_json(line)
        except ValidationError as error:
            remedy = "correct or remove this line; a removed call no longer counts for the budget"
            raise input_error(f"{path}:{number}: not a ledger line", error, remedy) from None


def by_role(calls: Iterable[Call]) -> dict[str, Usage]:
    """Sums of calls by role."""
    totals: dict[str, Usage] = {}
    for call in calls:
        add_call(totals.setdefault(call.role, Usage()), call)
    return totals


class Ledger:
    """Thread-safe record of a run's calls, kept in a JSON Lines file when `path` is given.

    Reopening the file continues its sums, so that a resumed run keeps to the same budget.
    Deep copies are the same ledger: optimizers copy programs, and money is spent once.

    Attributes:
        phase: Phase of a compile that is under way; written with every call from now on.
    """

    def __init__(self, path: Path | None = None, budget: Budget | None = None) -> None:
        self.path = path
        self.budget = budget or Budget()
        self.phase = ""
        self._lock = threading.Condition(threading.RLock())
        self._totals: dict[str, Usage] = {}
        self._phases: dict[str, Usage] = {}
        self._reserved_usd = 0.0
        self._reserved_calls = 0
        self._stopped: str | None = None
        self._halt = threading.Event()
        # Opened with the first call, so that a command that fails earlier leaves no file.
        self._file: TextIO | None = None
        if path is not None and path.exists():
            self._restore(path)

    def __deepcopy__(self, memo: dict[int, object]) -> Ledger:
        return self

    def _restore(self, path: Path) -> None:
        for call in read_calls(path):
            self._add(call)
        content = path.read_bytes()
        # A kill in the middle of a write leaves one line without its end: cut it off, or it would swallow the next.
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)

    def _add(self, call: Call) -> None:
        add_call(self._totals.setdefault(call.role, Usage()), call)
        add_call(self._phases.setdefault(call.phase, Usage()), call)

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

    def reserve(self, worst_usd: float | None) -> None:
        """Reserve budget for one call before it is made.

        Args:
            worst_usd: Upper estimate of its price, or None where unknown (a dollar budget refuses such a model
                before the run starts).

        Raises:
            BudgetExceededError: if the call might exceed a limit, or after `stop`.
        """
        with self._lock:
            while (problem := self._problem(worst_usd)) is not None:
                # Calls under way may turn out cheaper than their worst case; without any, waiting is useless.
                if self._stopped is not None or not self._reserved_calls:
                    raise BudgetExceededError(problem)
                self._lock.wait()
            self._reserved_calls += 1
            self._reserved_usd += worst_usd or 0.0

    def _problem(self, worst_usd: float | None) -> str | None:
        if self._stopped is not None:
            return self._stopped
        if self.budget == _NO_BUDGET:
            return None
        total = self.total()
        if self.budget.calls is not None and total.calls + self._reserved_calls + 1 > self.budget.calls:
            return f"the budget of {self.budget.calls} calls is spent"
        spent = total.usd or 0.0
        if self.budget.usd is not None and spent + self._reserved_usd + (worst_usd or 0.0) > self.budget.usd:
            return f"the next call might exceed the budget: ${spent:.4f} of ${self.budget.usd:.4f} spent"
        return None

    def release(self, worst_usd: float | None) -> None:
        """Give back what `reserve` set aside, once the call is recorded or has failed."""
        with self._lock:
            self._reserved_calls -= 1
            self._reserved_usd -= worst_usd or 0.0
            self._lock.notify_all()

    def record(self, call: Call) -> None:
        """Write one call and add it to the sums of its role, its phase and the blocks of this thread.

        It is handed to the operating system at once; a cache hit inside a `usage_of_case` block, of which a list has
        dozens, with the next paid call or at the end of the block.
        """
        with self._lock:
            about = _LABEL.get() or call.about
            if (self.phase, about) != (call.phase, call.about):
                call = call.model_copy(update={"phase": self.phase, "about": about})
            self._add(call)
            if self.path is not None:
                if self._file is None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    private = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                    self._file = os.fdopen(private, "a", encoding="utf-8")
                self._file.write(call.model_dump_json(exclude_defaults=True) + "\n")
                if not call.hit or _OF_CASE.get() is None:
                    self._file.flush()
        of_case = _OF_CASE.get()
        if of_case is not None:
            add_call(of_case, call)
        standalone = _STANDALONE.get()
        if standalone is not None:
            add_call(standalone.setdefault(call.role, Usage()), call.model_copy(update={"hit": False}))

    @contextmanager
    def usage_of_case(self) -> Iterator[Usage]:
        """Sum what was really sent inside the block by this thread, with the block's wall time: the usage of a case.

        Cache hits are counted in `cache_hits` alone. At the end of the block its calls are in the file.
        """
        usage = Usage()
        token = _OF_CASE.set(usage)
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

    def close(self) -> None:
        """Close the file; the sums stay readable."""
        if self._file is not None:
            self._file.close()
            self._file = None
