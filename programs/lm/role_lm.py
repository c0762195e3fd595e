"""dspy.LM wrapper: budget check, response cache, call log, retries, in-flight deduplication."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import dspy
from dspy.lm15 import Response, TextPart
from dspy.utils.exceptions import LMRateLimitError
from pydantic_core import to_json
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from programs.lm.answer_text import answer_text
from programs.lm.circuit_breaker import is_unbilled
from programs.lm.ledger import Call, Ledger
from programs.lm.prices import Price
from programs.lm.rate_limiter import MAX_RETRY_AFTER, Permit, RateLimiter, is_overload
from programs.lm.refused_parameters import LEAST_CAP
from programs.lm.response_cache import CurrentCall, ResponseCache
from programs.lm.single_flight import SingleFlight

ATTEMPTS = 4
"""Attempts per call before a transient failure is final."""

ATTEMPTS_AT_LIMIT = 8
"""Attempts at a backend that answers 429: pauses of 1 to 60 seconds outlast a limit per minute."""

_NOT_ASCII = bytes(range(128, 256))
_BACKOFF = wait_exponential_jitter(initial=1, max=60)


class _Attempt(threading.local):
    """State of the attempt that the current thread is making.

    Attributes:
        about: Hash of the prompt.
        permit: From the rate limiter; None while nothing was sent.
        released: Whether the permit was given back.
        unfinished: Whether its answer was cut off before the model wrote more than its thoughts.
        started: `time.perf_counter()` when it was sent, or looked up.
        took: Seconds until its answer arrived; None without an answer, or without our response cache.
        tokens: Tokens of prompt and answer, None without an answer.
        id: Of its line in the ledger; empty while nothing was sent.
        hit: Whether its answer came from the response cache.
        anew: Whether a stored answer is passed over.
        worst: Upper estimate of its price in dollars, None where unknown.
    """

    def __init__(self) -> None:
        self.about = ""
        self.id = ""
        self.hit = False
        self.anew = False
        self.worst: float | None = None
        self.permit: Permit | None = None
        self.released = False
        self.unfinished = False
        self.started = 0.0
        self.took: float | None = None
        self.tokens: int | None = None


class RoleLM(dspy.LM):
    """A `dspy.LM` that belongs to a role: its calls are budgeted, logged, and never made twice at the same time.

    Deep copies are the same object, so that a copied program keeps its client and its ledger.

    Args:
        rate_limiter: Of its backend, shared by all roles that use it.
        max_seconds: Seconds one attempt may take; bounds its cost at a price per hour. A call is given up after twice
            as many, so that a server that never answers costs a bounded time.
        before_first: Called before the first call is sent; may raise.
        keyed: Settings that are part of the response cache's key beside those of `dspy.LM`.
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
        self.keyed = dict(keyed or {})
        self._before_first = cache(before_first)
        self._current = _Attempt()
        self._retrying = Retrying(
            stop=self._give_up,
            wait=_wait,
            retry=retry_if_exception(dspy.is_retryable_lm_error),
            sleep=ledger.wait,
            reraise=True,
        )
        self._flights = SingleFlight()

    def __deepcopy__(self, memo: dict[int, object]) -> RoleLM:
        return self

    def copy(self, **kwargs: Any) -> Any:
        """A copy with other settings, but no temperature where this model has none.

        DSPy's proposers give one to every model, and reasoning models refuse it.
        """
        sampling = {name for name in ("temperature", "top_p") if self.kwargs.get(name) is None}
        return super().copy(**{name: value for name, value in kwargs.items() if name not in sampling})

    def __call__(
        self, prompt: str | None = None, *, messages: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        """Call the model, unless the response cache has the answer.

        Equal calls in two threads, or in two processes with one response cache, are sent once.

        A call with a transient failure (server error, lost connection) is retried with exponential backoff and jitter,
        up to `ATTEMPTS` times; one rejected because of overload, up to `ATTEMPTS_AT_LIMIT` times, when the rate limiter
        sends calls again.

        Raises:
            BudgetExceededError: before a call that might exceed the budget, first or repeated.
            BackendDownError: if the backend's circuit is open.
        """
        request = to_json([prompt, messages, kwargs], fallback=str)
        most = self._most_tokens(request, kwargs)
        digest = hashlib.sha256(request).hexdigest()
        self._current.about = digest[:16]
        store = dspy.cache
        flights = store.flights if isinstance(store, ResponseCache) else self._flights
        # Not the key of the cached answer, which also has the sampling: DSPy makes that one inside the call.
        question = hashlib.sha256(f"{self.model} {digest}".encode()).hexdigest()
        with flights.flight(question, self.ledger.wait, self.max_seconds):
            try:
                return self._retrying(self._attempt, most, prompt, messages, kwargs)
            except Exception as error:
                self.rate_limiter.record_failure(error)
                raise

    def _attempt(
        self,
        most: tuple[int, int],
        prompt: str | None,
        messages: list[dict[str, Any]] | None,
        kwargs: dict[str, Any],
    ) -> Any:
        worst = None if self.price is None else self.price.most_usd(*most, seconds=self.max_seconds)
        attempt = self._current
        attempt.worst = worst
        attempt.permit, attempt.released, attempt.unfinished, attempt.id = None, False, False, ""
        attempt.tokens, attempt.took, attempt.started = None, None, time.perf_counter()
        store = dspy.cache
        this_call = store.this_call if isinstance(store, ResponseCache) else CurrentCall()

        def check() -> None:
            self._before_first()
            self.ledger.reserve(worst)
            try:
                attempt.permit = self.rate_limiter.acquire(sum(most), self.ledger)
                attempt.id = self._record_sent(most, worst)
            except BaseException as error:
                if attempt.permit is not None:
                    self._release(0, error)
                    attempt.permit = None
                self.ledger.release(worst)
                raise
            attempt.started = this_call.sent = time.perf_counter()

        def answered(answer: dict[str, Any], seconds: float) -> None:
            attempt.took = seconds
            self._release(_tokens(answer, self.model).sent_and_written)

        this_call.check, this_call.answered, this_call.sent, this_call.seconds = check, answered, None, None
        this_call.settings, this_call.anew = self.keyed, attempt.anew
        try:
            if not isinstance(store, ResponseCache) or not self.cache:
                check()
            answer = super().__call__(prompt, messages=messages, **kwargs)
        except BaseException as error:
            self._ended(worst, error)
            raise
        finally:
            this_call.check = this_call.answered = None
            this_call.settings, this_call.anew = {}, False
        self._ended(worst)
        return answer

    @property
    def cut_off_thinking(self) -> bool:
        """Whether the last answer of this thread was cut off before the model wrote more than its thoughts."""
        return self._current.unfinished

    @property
    def was_hit(self) -> bool:
        """Whether the last answer of this thread came from the response cache."""
        return self._current.hit

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Inside the block this thread's questions are sent even if their answers are stored, and replace those."""
        self._current.anew = True
        try:
            yield
        finally:
            self._current.anew = False

    def _record_sent(self, most: tuple[int, int], worst: float | None) -> str:
        return self.ledger.record_sent(
            Call(
                role=self.role,
                model=self.model,
                about=self._current.about,
                tokens_in=most[0],
                tokens_out=most[1],
                usd=worst,
                at=round(time.time(), 3),
                in_flight=True,
            )
        )

    def _ended(self, worst: float | None, error: BaseException | None = None) -> None:
        attempt = self._current
        if attempt.permit is None:
            return
        self._release(attempt.tokens, error)
        if attempt.tokens is None:
            self.ledger.record(
                Call(
                    role=self.role,
                    model=self.model,
                    usd=None if is_unbilled(error) else worst,
                    seconds=round(time.perf_counter() - attempt.started, 4),
                    waited=round(attempt.permit.waited, 4),
                    failed=True,
                    id=attempt.id,
                    at=round(time.time(), 3),
                )
            )
        self.ledger.release(worst)

    def _release(self, tokens: int | None, error: BaseException | None = None) -> None:
        attempt = self._current
        if attempt.permit is not None and not attempt.released:
            attempt.released = True
            self.rate_limiter.release(attempt.permit, tokens, error)

    def _most_tokens(self, request: bytes, kwargs: dict[str, Any]) -> tuple[int, int]:
        """The most tokens that a prompt, schema included, and its answer may take."""
        most = (
            kwargs.get("max_tokens") or self.kwargs.get("max_tokens") or self.kwargs.get("max_completion_tokens") or 0
        )
        # Known tokenizers need at most half a token per Latin letter; in other scripts, up to a token per byte.
        letters = len(request.translate(None, _NOT_ASCII))
        return letters // 2 + (len(request) - letters) + 64, max(int(most), LEAST_CAP)

    def update_history(self, entry: dict[str, Any]) -> None:
        """DSPy's hook: runs once per answered call, cache hits included, in the calling thread."""
        attempt = self._current
        attempt.unfinished = _unfinished(entry["response"])
        tokens = _tokens(entry["response"], self.model)
        attempt.tokens = tokens.sent_and_written
        hit = attempt.hit = attempt.permit is None
        # Without usage the price per token is unknown, which is not zero; one per hour needs none.
        metered = _has_usage(entry["response"]) or (self.price is not None and self.price.usd_per_hour is not None)
        took = time.perf_counter() - attempt.started if attempt.took is None else attempt.took
        seconds = dspy.cache.this_call.seconds if hit else took
        self.ledger.record(
            Call(
                role=self.role,
                model=self.model,
                about=attempt.about,
                tokens_in=tokens.prompt,
                tokens_out=tokens.answer,
                tokens_cached=tokens.cached,
                tokens_written=tokens.cache_write,
                usd=self._usd(tokens, seconds) if metered else None,
                most_usd=None if metered or hit else attempt.worst,
                seconds=round(seconds or 0.0, 4),
                waited=0.0 if attempt.permit is None else round(attempt.permit.waited, 4),
                hit=hit,
                id=attempt.id,
                at=round(time.time(), 3),
            )
        )

    def _give_up(self, state: RetryCallState) -> bool:
        if isinstance(_error(state), LMRateLimitError):
            return state.attempt_number >= ATTEMPTS_AT_LIMIT
        return state.attempt_number >= ATTEMPTS or (state.seconds_since_start or 0.0) >= 2 * self.max_seconds

    def _usd(self, tokens: _Tokens, seconds: float | None) -> float | None:
        if self.price is None or (seconds is None and self.price.usd_per_hour is not None):
            return None
        return self.price.usd(tokens.prompt, tokens.answer, tokens.cached, seconds or 0.0, tokens.cache_write)


def _wait(state: RetryCallState) -> float:
    error = _error(state)
    if is_overload(error):
        return 0.0  # The rate limiter pauses all calls of the backend, this one included.
    retry_after = getattr(error, "retry_after", None)
    return _BACKOFF(state) if retry_after is None else min(float(retry_after), MAX_RETRY_AFTER)


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _unfinished(response: Any) -> bool:
    if not isinstance(response, Response) or response.finish_reason != "length":
        return False
    return not answer_text("".join(part.text for part in response.message.parts if isinstance(part, TextPart))).strip()


def _has_usage(response: Any) -> bool:
    usage: Any = response.get("usage") if isinstance(response, dict) else response.usage
    if hasattr(usage, "input_tokens"):
        return usage.input_tokens is not None or usage.output_tokens is not None
    return bool(usage)


class _Tokens(NamedTuple):
    """Tokens of a call; those read from the provider's cache and written to it are among those of the prompt."""

    prompt: int = 0
    answer: int = 0
    cached: int = 0
    cache_write: int = 0

    @property
    def sent_and_written(self) -> int:
        return self.prompt + self.answer


def _tokens(response: Any, model: str) -> _Tokens:
    # A LiteLLM answer comes back from the cache as plain data, and has been brought to OpenAI's form.
    usage: Any = response.get("usage") if isinstance(response, dict) else response.usage
    if not hasattr(usage, "input_tokens"):
        usage = dict(usage or {})
        details = dict(usage.get("prompt_tokens_details") or {})
        written = details.get("cache_creation_tokens") or details.get("cache_write_tokens")
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"), details.get("cached_tokens"), written)
        return _Tokens(*(count or 0 for count in counts))
    # DSPy's own client leaves each provider's way of counting: Anthropic counts a prompt without what its cache
    # holds, Google and xAI an answer without the thoughts before it, and all of them bill it.
    prompt, answer = usage.input_tokens or 0, usage.output_tokens or 0
    cached, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    provider = model.partition("/")[0]
    if provider == "anthropic":
        prompt += cached + written
    if provider in ("gemini", "xai"):
        answer += usage.reasoning_tokens or 0
    return _Tokens(prompt, answer, cached, written)
