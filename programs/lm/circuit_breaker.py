"""Circuit breaker: after repeated failures, calls to a backend fail fast until a probe succeeds."""

from __future__ import annotations

import dspy
from dspy.utils.exceptions import LMAuthError, LMBillingError, LMError, LMRateLimitError, LMUnsupportedModelError

from programs.runtime.errors import one_line

FAILURES = 5
"""Calls in a row that fail in spite of their retries before the circuit opens."""

COOL_DOWN = 30.0
"""Seconds an open circuit waits until it lets one call through as a probe."""

_FIRST_ERROR_STATUS = 400
_REFUSALS = (LMAuthError, LMBillingError, LMUnsupportedModelError)


class BackendDownError(LMError):
    """The circuit is open, so this call was not sent.

    Attributes:
        refused: The backend rejects the key, the account or the model: waiting does not help.
    """

    default_code = "backend_down"

    def __init__(self, message: str, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


def is_refusal(error: BaseException | None) -> bool:
    """Whether a backend rejects the key, the account or the model: no other call can succeed."""
    return isinstance(error, _REFUSALS)


def is_unreachable(error: BaseException | None) -> bool:
    """Whether the connection was refused: no server listens at the backend's address."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_unbilled(error: BaseException | None) -> bool:
    """Whether a call failed so that nobody bills it: an error status, or a refused connection.

    After a timeout or a lost connection the server may have answered all the same.
    """
    return (getattr(error, "status", None) or 0) >= _FIRST_ERROR_STATUS or is_unreachable(error)


def is_healthy(error: BaseException | None) -> bool:
    """Whether the end of a call shows that the backend works: an answer (None), or an error about this call alone."""
    if error is None:
        return True
    return getattr(error, "status", None) is not None and not is_refusal(error) and not _is_transient(error)


def _fault(error: BaseException) -> str:
    if is_refusal(error):
        return "rejected the key, account or model"
    return "is rate limiting us" if isinstance(error, LMRateLimitError) else "does not answer"


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, Exception) and dspy.is_retryable_lm_error(error)


class CircuitBreaker:
    """Closed while the backend works, open after failures; an open one lets a single probe through after `COOL_DOWN`.

    Not safe to use from several threads at a time. Times are seconds of one clock, given by the caller.

    Args:
        backend: Its name in messages.

    Attributes:
        paused: Open because the backend asked for a pause that is longer than a run should wait.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.paused = False
        self._failures = 0
        self._error: BaseException | None = None
        self._probe_at = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls fail fast."""
        return self._error is not None

    def require(self, now: float) -> None:
        """Let a call pass if the circuit is closed, or if a probe is due.

        Raises:
            BackendDownError: saying what is wrong, and when the next call is sent.
        """
        if self._error is None or (now >= self._probe_at and not self._probing):
            return
        when = "a probe is under way"
        if not self._probing:
            when = f"the next call is sent in {self._probe_at - now:.0f} s"
        fault = _fault(self._error)
        raise BackendDownError(f"{self.backend} {fault} ({one_line(self._error)}); {when}", is_refusal(self._error))

    def start(self) -> bool:
        """A call that passed is sent. Returns whether it is the probe of an open circuit."""
        self._probing = self.is_open
        return self._probing

    def not_sent(self, probe: bool) -> None:
        """A call that had passed is not sent after all; if it was the probe, another one is due."""
        if probe:
            self._probing = False

    def record(self, error: BaseException | None, probe: bool, now: float) -> None:
        """Record how one attempt ended: with an answer (None) or an error. It may be retried."""
        if self.paused and not probe:
            return  # Sent before the pause began.
        if is_healthy(error):
            self._failures, self._error, self._probing, self.paused = 0, None, False, False
        elif probe or is_refusal(error):
            self._trip(error, now)

    def record_failure(self, error: BaseException, now: float) -> None:
        """Record a call that failed for good, in spite of all its retries."""
        if not self.is_open and _is_transient(error):
            self._failures += 1
            if self._failures >= FAILURES or is_unreachable(error):
                self._trip(error, now)

    def pause_until(self, error: BaseException, until: float) -> None:
        """Open the circuit until a time the backend named."""
        self._error, self._probe_at, self._probing, self.paused = error, until, False, True

    def _trip(self, error: BaseException | None, now: float) -> None:
        self._error = error
        self._probe_at = now + COOL_DOWN
        self._probing = False
