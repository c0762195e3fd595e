"""The one place every call passes: budgeted, stored, recorded, tried again, and never made twice at once."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import dspy
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from programs.lm.call_store import CallStore
from programs.lm.ledger import Call, Ledger
from programs.lm.prices import Price

ATTEMPTS = 4
"""Times one question is sent before a passing failure is final."""


class RoleLM(dspy.LM):
    """A `dspy.LM` that belongs to a role: its calls are budgeted, recorded, and never made twice at once.

    Deep copies are the same object, so that a copied program keeps its client and its ledger.
    """

    def __init__(self, model: str, role: str, ledger: Ledger, price: Price | None, **settings: Any) -> None:
        # DSPy's own retries would send what neither the budget nor the ledger knows of, and sleep through Ctrl-C.
        super().__init__(model, num_retries=0, **settings)
        self.role = role
        self.ledger = ledger
        self.price = price
        self._current = threading.local()
        self._flights: WeakValueDictionary[str, _Flight] = WeakValueDictionary()
        self._flights_lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> RoleLM:
        return self

    def __call__(
        self, prompt: str | None = None, *, messages: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        """Ask, unless the call store has the answer. Two threads with one question share one paid answer.

        A call that fails for a passing reason (rate limit, server error, lost connection) is made again, up to
        `ATTEMPTS` times, after the time the server asks for or with exponential backoff and jitter.

        Raises:
            BudgetExceededError: before a call that might pass the budget, first or repeated.
        """
        with self._flight(prompt, messages, kwargs):
            retrying = Retrying(
                stop=stop_after_attempt(ATTEMPTS),
                wait=_wait,
                retry=retry_if_exception(dspy.is_retryable_lm_error),
                sleep=self.ledger.wait,
                reraise=True,
            )
            return retrying(self._attempt, prompt, messages, kwargs)

    def _attempt(self, prompt: str | None, messages: list[dict[str, Any]] | None, kwargs: dict[str, Any]) -> Any:
        worst = self._worst_usd(prompt, messages, kwargs)
        call = self._current
        call.paid, call.answered, call.started = False, False, time.perf_counter()

        def check() -> None:
            self.ledger.reserve(worst)
            call.paid = True

        store = dspy.cache
        if isinstance(store, CallStore):
            store.before_call.check = check
        else:
            check()
        try:
            return super().__call__(prompt, messages=messages, **kwargs)
        finally:
            if isinstance(store, CallStore):
                store.before_call.check = None
            if call.paid:
                if not call.answered:
                    self.ledger.record(Call(role=self.role, model=self.model, failed=True, at=round(time.time(), 3)))
                self.ledger.release(worst)

    @contextmanager
    def _flight(self, *question: Any) -> Iterator[None]:
        key = hashlib.sha256(json.dumps(question, sort_keys=True, default=str).encode()).hexdigest()
        with self._flights_lock:
            flight = self._flights.setdefault(key, _Flight())
        with flight.lock:
            yield

    def _worst_usd(
        self, prompt: str | None, messages: list[dict[str, Any]] | None, kwargs: dict[str, Any]
    ) -> float | None:
        if self.price is None:
            return None
        # Two bytes a token is above every tokenizer seen on European text; the schema travels with the prompt.
        tokens = len(json.dumps([prompt, messages, kwargs], default=str).encode()) // 2 + 64
        most = (
            kwargs.get("max_tokens") or self.kwargs.get("max_tokens") or self.kwargs.get("max_completion_tokens") or 0
        )
        return self.price.usd(tokens, int(most))

    def update_history(self, entry: dict[str, Any]) -> None:
        """DSPy's hook: runs once per answered call, hits included, in the thread that asked."""
        self._current.answered = True
        tokens_in, tokens_out, tokens_cached = _tokens(entry["response"])
        self.ledger.record(
            Call(
                role=self.role,
                model=self.model,
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                tokens_cached=tokens_cached,
                usd=None if self.price is None else self.price.usd(tokens_in, tokens_out, tokens_cached),
                seconds=round(time.perf_counter() - self._current.started, 4),
                hit=not self._current.paid,
                at=round(time.time(), 3),
            )
        )


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(error, "retry_after", None)
    return float(asked) if asked is not None else wait_exponential_jitter(initial=1, max=60)(state)


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
