"""The one place every call passes: budgeted, stored, recorded, tried again, and never made twice at once."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import dspy
from dspy.utils.exceptions import LMRateLimitError
from pydantic_core import to_json
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from programs.lm.ledger import Call, Ledger
from programs.lm.prices import Price
from programs.lm.rate_limiter import LONGEST_ASKED, Permit, RateLimiter, is_overload
from programs.lm.response_cache import CurrentCall, ResponseCache

ATTEMPTS = 4
"""Times one question is sent before a passing failure is final."""

ATTEMPTS_AT_LIMIT = 8
"""Times it is sent to a backend that keeps saying `too many`: pauses of 1 to 60 seconds outlast a limit a minute."""

_NOT_ASCII = bytes(range(128, 256))
_BACKOFF = wait_exponential_jitter(initial=1, max=60)


class _Attempt(threading.local):
    """What a thread's attempt under way has come to.

    Attributes:
        about: Hash of the question.
        turn: Its turn at the gate; None while nothing was sent.
        left: Whether that was given back.
        started: `time.perf_counter()` when it was sent, or looked up.
        took: Seconds until its answer was there, before that was stored; None without one, or where nothing is stored.
        tokens: What its answer took, None without one.
    """

    def __init__(self) -> None:
        self.about = ""
        self.turn: Permit | None = None
        self.left = False
        self.started = 0.0
        self.took: float | None = None
        self.tokens: int | None = None


class RoleLM(dspy.LM):
    """A `dspy.LM` that belongs to a role: its calls are budgeted, recorded, and never made twice at once.

    Deep copies are the same object, so that a copied program keeps its client and its ledger.

    Args:
        gate: The one of its backend, shared by all roles that speak through it.
        longest: Seconds one call may take; what it costs at most where time is paid.
        settings: Sampling and connection, for `dspy.LM`.
    """

    def __init__(
        self,
        model: str,
        role: str,
        ledger: Ledger,
        price: Price | None,
        gate: RateLimiter,
        longest: float,
        **settings: Any,
    ) -> None:
        # DSPy's own retries would send what neither the budget nor the ledger knows of, and sleep through Ctrl-C.
        super().__init__(model, num_retries=0, **settings)
        self.role = role
        self.ledger = ledger
        self.price = price
        self.gate = gate
        self.longest = longest
        self._current = _Attempt()
        self._retrying = Retrying(
            stop=_give_up,
            wait=_wait,
            retry=retry_if_exception(dspy.is_retryable_lm_error),
            sleep=ledger.wait,
            reraise=True,
        )
        self._flights: WeakValueDictionary[str, _Flight] = WeakValueDictionary()
        self._flights_lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> RoleLM:
        return self

    def __call__(
        self, prompt: str | None = None, *, messages: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        """Ask, unless the call store has the answer. Two threads with one question share one paid answer.

        A call that fails for a passing reason (server error, lost connection) is made again with exponential backoff
        and jitter, up to `ATTEMPTS` times; one that the backend has no room for, up to `ATTEMPTS_AT_LIMIT` times, when
        the gate lets calls through again.

        Raises:
            BudgetExceededError: before a call that might pass the budget, first or repeated.
            BackendDownError: if the backend counts as dead.
        """
        question = to_json([prompt, messages, kwargs], fallback=str)
        most = self._most_tokens(question, kwargs)
        digest = hashlib.sha256(question).hexdigest()
        self._current.about = digest[:16]
        with self._flight(digest):
            try:
                return self._retrying(self._attempt, most, prompt, messages, kwargs)
            except Exception as error:
                self.gate.lost(error)
                raise

    def _attempt(
        self,
        most: tuple[int, int],
        prompt: str | None,
        messages: list[dict[str, Any]] | None,
        kwargs: dict[str, Any],
    ) -> Any:
        worst = None if self.price is None else self.price.usd(*most, seconds=self.longest)
        attempt = self._current
        attempt.turn, attempt.left = None, False
        attempt.tokens, attempt.took, attempt.started = None, None, time.perf_counter()
        store = dspy.cache
        this_call = store.this_call if isinstance(store, ResponseCache) else CurrentCall()

        def check() -> None:
            self.ledger.reserve(worst)
            try:
                attempt.turn = self.gate.enter(sum(most), self.ledger)
            except BaseException:
                self.ledger.release(worst)
                raise
            attempt.started = this_call.sent = time.perf_counter()

        def answered(answer: dict[str, Any], seconds: float) -> None:
            attempt.took = seconds
            self._leave(sum(_tokens(answer)[:2]))

        this_call.check, this_call.answered, this_call.sent, this_call.seconds = check, answered, None, None
        try:
            if not isinstance(store, ResponseCache):
                check()
            answer = super().__call__(prompt, messages=messages, **kwargs)
        except BaseException as error:
            self._ended(worst, error)
            raise
        finally:
            this_call.check = this_call.answered = None
        self._ended(worst)
        return answer

    def _ended(self, worst: float | None, error: BaseException | None = None) -> None:
        attempt = self._current
        if attempt.turn is None:
            return
        self._leave(attempt.tokens, error)
        if attempt.tokens is None:
            self.ledger.record(
                Call(
                    role=self.role,
                    model=self.model,
                    seconds=round(time.perf_counter() - attempt.started, 4),
                    waited=round(attempt.turn.waited, 4),
                    failed=True,
                    at=round(time.time(), 3),
                )
            )
        self.ledger.release(worst)

    def _leave(self, tokens: int | None, error: BaseException | None = None) -> None:
        attempt = self._current
        if attempt.turn is not None and not attempt.left:
            attempt.left = True
            self.gate.leave(attempt.turn, tokens, error)

    @contextmanager
    def _flight(self, digest: str) -> Iterator[None]:
        with self._flights_lock:
            flight = self._flights.setdefault(digest, _Flight())
        with flight.lock:
            yield

    def _most_tokens(self, question: bytes, kwargs: dict[str, Any]) -> tuple[int, int]:
        """The most tokens that a question, schema included, and its answer may take."""
        most = (
            kwargs.get("max_tokens") or self.kwargs.get("max_tokens") or self.kwargs.get("max_completion_tokens") or 0
        )
        # Half a token per Latin letter is above every tokenizer seen; of other scripts some know no more than bytes.
        letters = len(question.translate(None, _NOT_ASCII))
        return letters // 2 + (len(question) - letters) + 64, int(most)

    def update_history(self, entry: dict[str, Any]) -> None:
        """DSPy's hook: runs once per answered call, hits included, in the thread that asked."""
        attempt = self._current
        tokens_in, tokens_out, tokens_cached = _tokens(entry["response"])
        attempt.tokens = tokens_in + tokens_out
        hit = attempt.turn is None
        took = time.perf_counter() - attempt.started if attempt.took is None else attempt.took
        seconds = dspy.cache.this_call.seconds if hit else took
        self.ledger.record(
            Call(
                role=self.role,
                model=self.model,
                about=attempt.about,
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                tokens_cached=tokens_cached,
                usd=self._usd(tokens_in, tokens_out, tokens_cached, seconds),
                seconds=round(seconds or 0.0, 4),
                waited=0.0 if attempt.turn is None else round(attempt.turn.waited, 4),
                hit=hit,
                at=round(time.time(), 3),
            )
        )

    def _usd(self, tokens_in: int, tokens_out: int, tokens_cached: int, seconds: float | None) -> float | None:
        if self.price is None or (seconds is None and self.price.usd_per_hour is not None):
            return None
        return self.price.usd(tokens_in, tokens_out, tokens_cached, seconds or 0.0)


def _give_up(state: RetryCallState) -> bool:
    return state.attempt_number >= (ATTEMPTS_AT_LIMIT if isinstance(_error(state), LMRateLimitError) else ATTEMPTS)


def _wait(state: RetryCallState) -> float:
    error = _error(state)
    if is_overload(error):
        return 0.0  # The gate holds back all calls of the backend, this one among them.
    asked = getattr(error, "retry_after", None)
    return min(float(asked), LONGEST_ASKED) if asked is not None else _BACKOFF(state)


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


class _Flight:
    """A lock that can be weakly referenced: it lives as long as somebody asks its question."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def _tokens(response: Any) -> tuple[int, int, int]:
    # A LiteLLM answer from the call store comes back as plain data.
    usage: Any = response.get("usage") if isinstance(response, dict) else response.usage
    if hasattr(usage, "input_tokens"):
        return usage.input_tokens or 0, usage.output_tokens or 0, usage.cache_read_tokens or 0
    usage = dict(usage or {})
    details = dict(usage.get("prompt_tokens_details") or {})
    return usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, details.get("cached_tokens") or 0
