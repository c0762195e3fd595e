"""When a backend counts as dead: its calls then fail at once, instead of each waiting for it in vain."""

from __future__ import annotations

import dspy
from dspy.utils.exceptions import LMAuthError, LMBillingError, LMError, LMRateLimitError, LMUnsupportedModelError

FAILURES = 5
"""Calls in a row, each lost in spite of its retries, after which a backend counts as dead."""

COOL_DOWN = 30.0
"""Seconds until one call is let through to see whether it has come back."""

_REFUSALS = (LMAuthError, LMBillingError, LMUnsupportedModelError)


class BackendDownError(LMError):
    """The backend was found dead before, so this call was not sent. `refused`: it turns us away, whatever we ask."""

    default_code = "backend_down"

    def __init__(self, message: str, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


def is_refusal(error: BaseException | None) -> bool:
    """Whether a backend refuses the key, the account or the model: no other call will fare better."""
    return isinstance(error, _REFUSALS)


def is_unreachable(error: BaseException | None) -> bool:
    """Whether nobody listens at the backend's address."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_sign_of_life(error: BaseException | None) -> bool:
    """Whether a call came back with an answer (None), or with an error that is about the call and not the backend."""
    if error is None:
        return True
    return getattr(error, "status", None) is not None and not is_refusal(error) and not _passing(error)


def _fault(error: BaseException) -> str:
    if is_refusal(error):
        return "refuses us"
    return "wants to be left alone" if isinstance(error, LMRateLimitError) else "does not answer"


def _passing(error: BaseException) -> bool:
    return isinstance(error, Exception) and dspy.is_retryable_lm_error(error)


class CircuitBreaker:
    """Whether a backend lives. Not safe to use from several threads at a time.

    Times are seconds of one clock, given by the caller.

    Attributes:
        rests: Whether it asked to be left alone for longer than a run should wait.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._lost = 0
        self._error: BaseException | None = None
        self._probe_at = 0.0
        self._probing = False
        self.rests = False

    @property
    def is_open(self) -> bool:
        """Whether the backend counts as dead."""
        return self._error is not None

    def require(self, now: float) -> None:
        """Let a call pass if the backend lives, or if it is time to see whether it does.

        Raises:
            BackendDownError: saying what was found, and when the next call is let through.
        """
        if self._error is None or (now >= self._probe_at and not self._probing):
            return
        what = _fault(self._error)
        left = "one call is under way to see whether it does again"
        if not self._probing:
            left = f"the next call is sent in {self._probe_at - now:.0f} s"
        raise BackendDownError(f"{self.backend} {what} ({_first_line(self._error)}); {left}", is_refusal(self._error))

    def sent(self) -> bool:
        """A call that passed is sent. Returns whether it is the one that finds out about a dead backend."""
        self._probing = self.is_open
        return self._probing

    def came_back(self, error: BaseException | None, probe: bool, now: float) -> None:
        """A call ended, with an error or an answer; it may be tried again."""
        if self.rests and not probe:
            return  # Sent before it asked for a rest: says nothing of now.
        if is_sign_of_life(error):
            self._lost, self._error, self._probing, self.rests = 0, None, False, False
        elif probe or is_refusal(error):
            self._trip(error, now)

    def asks_for_rest(self, error: BaseException, until: float) -> None:
        """The backend has no room for us for longer than a run should wait."""
        self._error, self._probe_at, self._probing, self.rests = error, until, False, True

    def lost(self, error: BaseException, now: float) -> None:
        """A call failed for good, in spite of all its retries."""
        if not self.is_open and _passing(error):
            self._lost += 1
            if self._lost >= FAILURES or is_unreachable(error):
                self._trip(error, now)

    def _trip(self, error: BaseException | None, now: float) -> None:
        self._error = error
        self._probe_at = now + COOL_DOWN
        self._probing = False


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
