"""dspy.LM wrapper: budget check, response cache, call log, retries, in-flight deduplication."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import dspy
from dspy.lm15 import InvalidRequestError
from dspy.utils.exceptions import LMRateLimitError
from pydantic import BaseModel
from pydantic_core import to_json
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from programs.lm.attempt import Account, CallAttempt
from programs.lm.deadline import current_deadline, wait_in_time
from programs.lm.ledger import Ledger
from programs.lm.prices import Price
from programs.lm.rate_limiter import MAX_RETRY_AFTER, RateLimiter, is_overload
from programs.lm.refused_parameters import LEAST_CAP, before_each_further
from programs.lm.response_cache import CurrentCall, ResponseCache, Stored
from programs.lm.single_flight import SingleFlight
from programs.runtime.environment import environment
from programs.runtime.nocopy import SharedByCopies

ATTEMPTS = 4
"""Attempts per call before a transient failure is final."""

ATTEMPTS_AT_LIMIT = 8
"""Attempts at a backend that answers 429: pauses of 1 to 60 seconds outlast a limit per minute."""

_SCHEMAS = 64
"""Output schemas whose text is kept: adapters make one for each signature."""

_NOT_ASCII = bytes(range(128, 256))
_BACKOFF = wait_exponential_jitter(initial=1, max=60)


class Question(NamedTuple):
    """What identifies a call before it is looked up.

    Attributes:
        about: Hash of the prompt, in the ledger.
        flight: Hash under which equal questions wait for each other.
        most: The most tokens that its prompt, schema included, and its answer may take.
        asked: Prompt, messages and settings as a JSON list, for spans with texts; else empty.
    """

    about: str
    flight: str
    most: tuple[int, int]
    asked: bytes = b""


class _OfThread(threading.local):
    """What the current thread is asking.

    Attributes:
        attempt: The last attempt; None before the first.
        began: `time.monotonic()` when the first attempt began.
        queued: Seconds that all attempts of the call waited for budget and permits.
        anew: Whether a stored answer is passed over.
    """

    def __init__(self) -> None:
        self.attempt: CallAttempt | None = None
        self.began = 0.0
        self.queued = 0.0
        self.anew = False


class RoleLM(SharedByCopies, dspy.LM):
    """A `dspy.LM` that belongs to a role: its calls are budgeted, logged, and never made twice at the same time.

    Deep copies are the same object, so that a copied program keeps its client and its ledger.

    Args:
        rate_limiter: Of its backend, shared by all roles that use it.
        max_seconds: Seconds one attempt may take; bounds its cost at a price per hour. A call is given up after twice
            as many, so that a server that never answers costs a bounded time; waits for budget and permits are not
            counted.
        before_first: Called before the first call is sent; may raise.
        keyed: Settings that are part of the response cache's key beside those of `dspy.LM`, and the salt of
            `programs.lm.fresh_answers`.
        settings: Sampling and connection, for `dspy.LM`.
    """

    def __init__(
        self,
        model: str,
        role: str,
        ledger: Ledger,
        price: Price | None,
        rate_limiter: RateLimiter,
        max_seconds: float,
        keyed: dict[str, Any] | None = None,
        before_first: Callable[[], None] = lambda: None,
        **settings: Any,
    ) -> None:
        # DSPy's own retries would bypass budget and ledger, and could not be interrupted.
        super().__init__(model, num_retries=0, **settings)
        self.role = role
        self.ledger = ledger
        self.price = price
        self.rate_limiter = rate_limiter
        self.max_seconds = max_seconds
        self.account = Account(role, model, ledger, price, rate_limiter, max_seconds)
        salt = environment().fresh
        self.keyed = {**(keyed or {}), **({"fresh": salt} if salt else {})}
        self.before_first = cache(before_first)
        self._here = _OfThread()
        self._retrying = Retrying(
            stop=self._give_up,
            wait=_wait,
            retry=retry_if_exception(dspy.is_retryable_lm_error),
            sleep=partial(wait_in_time, ledger),
            reraise=True,
        )
        self._flights = SingleFlight()

    def copy(self, **kwargs: Any) -> Any:
        """A copy with other settings, but no temperature where this model has none.

        DSPy's proposers give one to every model, and reasoning models refuse it.
        """
        sampling = {name for name in ("temperature", "top_p") if self.kwargs.get(name) is None}
        return super().copy(**{name: value for name, value in kwargs.items() if name not in sampling})

    def retry_pause(self, error: BaseException, attempts: int, seconds: float) -> float | None:
        """Seconds until a call that failed is tried again; None if its failure is final.

        Args:
            error: Of the last attempt.
            attempts: How many there were.
            seconds: That they took, without those in which they waited for budget and permits.
        """
        state = RetryCallState(self._retrying, None, (), {})
        state.attempt_number = attempts
        state.set_exception((type(error), error, error.__traceback__))
        state.outcome_timestamp = state.start_time + seconds
        if not self._retrying.retry(state) or self._is_final(error, attempts, seconds):
            return None
        return _wait(state)

    def __call__(
        self, prompt: str | None = None, *, messages: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        """Call the model, unless the response cache has the answer.

        Equal calls in two threads, or in two processes with one response cache, are sent once.

        A call with a transient failure (server error, lost connection) is retried with exponential backoff and jitter,
        up to `ATTEMPTS` times; one rejected because of a limit (429), up to `ATTEMPTS_AT_LIMIT` times. After an
        overload (429, 503, 529) it waits until the rate limiter sends calls again. A request whose parameters were
        refused is an attempt of its own, too, but none of these: the next one has another form.

        Raises:
            BudgetExceededError: before a call that might exceed the budget, first or repeated.
            DeadlineError: before a call after the deadline of the request.
            BackendDownError: if the backend's circuit is open.
        """
        question = self.question(to_json([prompt, messages, kwargs], fallback=str), kwargs)
        store = dspy.cache
        flights = store.flights if isinstance(store, ResponseCache) else self._flights
        with flights.flight(question.flight, partial(wait_in_time, self.ledger), self.max_seconds):
            self._here.began, self._here.queued = time.monotonic(), 0.0
            try:
                return self._retrying(self._attempt, question, prompt, messages, kwargs)
            except Exception as error:
                self.rate_limiter.record_failure(error)
                raise

    def question(self, request: bytes, kwargs: dict[str, Any]) -> Question:
        """What identifies a call.

        Args:
            request: Prompt, messages and settings of the call as a JSON list.
            kwargs: The settings.
        """
        digest = hashlib.sha256(request).hexdigest()
        # Not the key of the cached answer, which also has the sampling: DSPy makes that one inside the call.
        flight = hashlib.sha256(f"{self.model} {digest}".encode()).hexdigest()
        asked = request if self.account.tracing == "texts" else b""
        return Question(digest[:16], flight, self._most_tokens(request, kwargs), asked)

    def _attempt(
        self,
        question: Question,
        prompt: str | None,
        messages: list[dict[str, Any]] | None,
        kwargs: dict[str, Any],
    ) -> Any:
        store = dspy.cache
        this_call = store.this_call if isinstance(store, ResponseCache) else CurrentCall()
        attempt = self._next_attempt(question, this_call)

        def check(look: Callable[[], Stored | None] = lambda: None) -> Stored | None:
            self.before_first()
            current_deadline().require()
            self.ledger.reserve(attempt.worst)
            permit = None
            try:
                permit = self.rate_limiter.acquire(sum(question.most), self.ledger)
                # Another process may have asked while this one waited.
                found = look()
                if found is None:
                    attempt.sent(permit)
                    this_call.sent = attempt.started
                    self._here.queued += attempt.queued
                    return None
            except BaseException:
                attempt.not_sent(permit)
                raise
            attempt.not_sent(permit)
            return found

        def again(error: InvalidRequestError) -> None:
            """Parameters were refused: the request without them is a further attempt, for budget and limits alike."""
            nonlocal attempt
            if attempt.permit is None:
                return  # Nothing was sent: this question is recorded for a batch.
            if self.is_late(time.monotonic() - self._here.began - self._here.queued):
                raise error
            attempt.ended(error)
            attempt = self._next_attempt(question, this_call)
            check()

        this_call.check, this_call.sent, this_call.seconds = check, None, None
        this_call.settings, this_call.anew = self.keyed, self._here.anew
        this_call.origin = self.model, self.role
        try:
            if not isinstance(store, ResponseCache) or not self.cache:
                check()
            # The setting skips the hook that records an answer; no history is kept there in any case.
            with dspy.context(disable_history=False), before_each_further(again):
                answer = super().__call__(prompt, messages=messages, **kwargs)
        except BaseException as error:
            attempt.ended(error)
            raise
        finally:
            this_call.check = this_call.answered = None
            this_call.settings, this_call.anew = {}, False
        attempt.ended()
        return answer

    def _next_attempt(self, question: Question, this_call: CurrentCall) -> CallAttempt:
        attempt = self._here.attempt = self.account.attempt(question.about, question.most, question.asked)
        this_call.answered = attempt.arrived
        return attempt

    def is_late(self, seconds: float) -> bool:
        """Whether a call ends after so many seconds, without those in which it waited for budget and permits."""
        return seconds >= 2 * self.max_seconds

    @property
    def cut_off_thinking(self) -> bool:
        """Whether the last answer of this thread was cut off before the model wrote more than its thoughts."""
        return self._here.attempt is not None and self._here.attempt.unfinished

    @property
    def about(self) -> str:
        """Hash of the prompt that this thread is asking, or has asked last."""
        return "" if self._here.attempt is None else self._here.attempt.about

    @property
    def was_hit(self) -> bool:
        """Whether the last answer of this thread came from the response cache."""
        return self._here.attempt is not None and self._here.attempt.hit

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Inside the block this thread's questions are sent even if their answers are stored, and replace those."""
        self._here.anew = True
        try:
            yield
        finally:
            self._here.anew = False

    def _most_tokens(self, request: bytes, kwargs: dict[str, Any]) -> tuple[int, int]:
        """The most tokens that a prompt, schema included, and its answer may take."""
        most = (
            kwargs.get("max_tokens") or self.kwargs.get("max_tokens") or self.kwargs.get("max_completion_tokens") or 0
        )
        # Known tokenizers need at most half a token per Latin letter; in other scripts, up to a token per byte.
        answer = kwargs.get("response_format")
        if isinstance(answer, type) and issubclass(answer, BaseModel):
            request += _schema(answer)  # A class, of which the request holds no more than the name.
        letters = len(request.translate(None, _NOT_ASCII))
        return letters // 2 + (len(request) - letters) + 64, max(int(most), LEAST_CAP)

    def update_history(self, entry: dict[str, Any]) -> None:
        """DSPy's hook: runs once per answered call, cache hits included, in the calling thread."""
        attempt = self._here.attempt
        assert attempt is not None  # noqa: S101 - only called inside a call
        attempt.answered(entry["response"], dspy.cache.this_call.seconds if attempt.permit is None else None)

    def _give_up(self, state: RetryCallState) -> bool:
        return self._is_final(
            _error(state), state.attempt_number, (state.seconds_since_start or 0.0) - self._here.queued
        )

    def _is_final(self, error: BaseException | None, attempts: int, seconds: float) -> bool:
        if isinstance(error, LMRateLimitError):
            return attempts >= ATTEMPTS_AT_LIMIT
        return attempts >= ATTEMPTS or self.is_late(seconds)


@lru_cache(maxsize=_SCHEMAS)
def _schema(answer: type[BaseModel]) -> bytes:
    return to_json(answer.model_json_schema())


def _wait(state: RetryCallState) -> float:
    error = _error(state)
    if is_overload(error):
        return 0.0  # The rate limiter pauses all calls of the backend, this one included.
    retry_after = getattr(error, "retry_after", None)
    return _BACKOFF(state) if retry_after is None else min(float(retry_after), MAX_RETRY_AFTER)


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
