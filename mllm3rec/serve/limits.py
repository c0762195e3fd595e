"""Admission limits of the service: requests and dollars a minute and a day, users at a time, seconds and bytes."""

from __future__ import annotations

from collections import deque

from pydantic import BaseModel, ConfigDict, Field

from programs.lm.sliding_window import MINUTE

DAY_SECONDS = 86_400.0


class ServiceLimits(BaseModel):
    """What the service may spend and do; None is no limit.

    Attributes:
        usd_per_minute, usd_per_day: Most dollars for calls in any sixty seconds and any 24 hours.
        requests_per_minute, requests_per_day: Most requests to the program in the same times.
        deadline: Seconds after which the prior answers.
        at_a_time: Users about whom models are asked at a time; others wait, within their deadline.
        body_bytes: Largest request.
        receive_seconds: In which the head of a request must have come, and again its body.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    usd_per_minute: float | None = Field(default=None, ge=0)
    usd_per_day: float | None = Field(default=None, ge=0)
    requests_per_minute: int | None = Field(default=None, ge=1)
    requests_per_day: int | None = Field(default=None, ge=1)
    deadline: float = Field(default=30.0, gt=0)
    at_a_time: int = Field(default=64, ge=1)
    body_bytes: int = Field(default=262_144, ge=1024)
    receive_seconds: float = Field(default=10.0, gt=0)

    @property
    def in_dollars(self) -> bool:
        """Whether dollars are limited."""
        return self.usd_per_minute is not None or self.usd_per_day is not None


class RollingSum:
    """The sum of what was added in the last `seconds`. Not thread-safe.

    >>> spent = RollingSum(60.0)
    >>> spent.add(0.5, now=0.0), spent.add(0.25, now=30.0)
    (None, None)
    >>> spent.total(now=59.0), spent.total(now=61.0)
    (0.75, 0.25)
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._added: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def add(self, amount: float, now: float) -> None:
        """Add an amount at a time; times do not go back."""
        self._added.append((now, amount))
        self._sum += amount

    def total(self, now: float) -> float:
        """What was added since `now - seconds`."""
        while self._added and self._added[0][0] <= now - self._seconds:
            self._sum -= self._added.popleft()[1]
        if not self._added:
            self._sum = 0.0  # no rounding error is kept
        return self._sum

    def free_in(self, now: float) -> float:
        """Seconds until the oldest amount no longer counts."""
        return max(0.0, self._added[0][0] + self._seconds - now) if self._added else 0.0


class RequestQuota:
    """Counts requests against the limits of a minute and a day."""

    def __init__(self, limits: ServiceLimits) -> None:
        self._windows = [
            (RollingSum(seconds), most)
            for seconds, most in ((MINUTE, limits.requests_per_minute), (DAY_SECONDS, limits.requests_per_day))
            if most is not None
        ]

    def wait(self, now: float) -> float:
        """Count one request and return 0, or return the seconds after which it may be tried again.

        >>> quota = RequestQuota(ServiceLimits(requests_per_minute=1))
        >>> quota.wait(0.0), quota.wait(20.0), quota.wait(61.0)
        (0.0, 40.0, 0.0)
        """
        waits = [window.free_in(now) for window, most in self._windows if window.total(now) >= most]
        if waits:
            return max(1.0, *waits)
        for window, _ in self._windows:
            window.add(1, now)
        return 0.0
