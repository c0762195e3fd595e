"""What may come out of an input: a refusal in few words or a valid result, in bounded time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from programs.runtime.errors import MESSAGE_CHARACTERS

SECONDS = 5.0
"""Of CPU time that one input may take; the slowest take a tenth of it."""

_PATIENCE = 60
"""Seconds after which an input that does not end is given up."""


class EndlessError(BaseException):
    """An input was given up."""


@dataclass
class Tally:
    """What became of the inputs of one kind.

    Attributes:
        counts: How many were tried and refused, and how many violations there are.
        violations: Names of inputs that were neither refused nor read, and what happened.
    """

    kind: str
    counts: dict[str, int] = field(default_factory=lambda: {"tried": 0, "refused": 0, "violations": 0})
    violations: list[str] = field(default_factory=list)

    def judge(
        self, name: str, read: Callable[[], object], declared: type[Exception], longest: int = MESSAGE_CHARACTERS
    ) -> None:
        """Try one input.

        Args:
            name: Of the input, to make it again.
            declared: The error of a refusal.
            longest: Characters that its message may have.
        """
        self.counts["tried"] += 1
        started = time.process_time()
        try:
            with _given_up():
                read()
        except declared as error:
            self.counts["refused"] += 1
            if len(str(error)) > longest:
                self.violations.append(f"{name}: a message of {len(str(error)):,} characters")
        except (Exception, EndlessError) as error:
            self.violations.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        taken = time.process_time() - started
        if taken > SECONDS:
            self.violations.append(f"{name}: {taken:.1f} s")
        self.counts["violations"] = len(self.violations)

    def assert_none(self) -> None:
        """No input did anything but be refused or be read."""
        assert not self.violations, f"{len(self.violations)} of {self.counts['tried']}:\n" + "\n".join(
            self.violations[:20]
        )


@contextmanager
def _given_up() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise EndlessError(f"not done after {_PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
