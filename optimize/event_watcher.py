"""Progress of a compile: who receives it, and a receiver that sends it as events, for a console or a notebook."""

from __future__ import annotations

import threading
from typing import Protocol

from optimize.objective import UserScore
from optimize.search import Attempt
from programs.lm.ledger import Ledger
from programs.runtime.events import Note, OnEvent, Progress


class Watcher(Protocol):
    """Receives the progress of a compile."""

    def step(self, what: str, total: int = 0) -> None:
        """A step begins; `total` is the number of users to score, 0 if unknown."""

    def score(self, score: UserScore) -> None:
        """A user was scored; called from any thread."""

    def attempt(self, attempt: Attempt, best: Attempt | None) -> None:
        """A trial ended."""


class EventWatcher:
    """A `Watcher` that sends events.

    Args:
        ledger: Ledger whose usage the progress events contain.
    """

    def __init__(self, ledger: Ledger, on_event: OnEvent) -> None:
        self._ledger = ledger
        self._on_event = on_event
        self._lock = threading.Lock()
        self._task, self._done, self._total = "", 0, 0

    def step(self, what: str, total: int = 0) -> None:
        """See `Watcher`."""
        with self._lock:
            self._task, self._done, self._total = what, 0, total
        self._on_event(Progress(what, 0, total, self._ledger.total()) if total else Note(what))

    def score(self, score: UserScore) -> None:
        """See `Watcher`; called from any thread."""
        with self._lock:
            self._done = min(self._done + 1, self._total)
            event = Progress(self._task, self._done, self._total, self._ledger.total())
            if self._total:
                self._on_event(event)

    def attempt(self, attempt: Attempt, best: Attempt | None) -> None:
        """See `Watcher`."""
        total = self._ledger.total()
        leader = "" if best is None else f"; best so far {best.score:.4f} (trial {best.number})"
        outcome = f"{attempt.score:.4f}" if attempt.scores else attempt.error or "no score"
        dollars = "-" if total.usd is None else f"${total.usd:.4f}"
        self._on_event(
            Note(
                f"trial {attempt.number}: {attempt.state.lower()}, {outcome} after {len(attempt.scores)} users"
                f"{leader}; {total.calls} calls, {dollars}"
            )
        )
