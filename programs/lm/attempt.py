"""One attempt of a call: what it reserves, what the ledger records of it, and what it gives back; it never waits.

Threads (`RoleLM`) and an event loop (`programs.bulk`) drive the same attempts: they wait for budget and permit, send,
and report what happened here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dspy.lm15 import Response, TextPart

from programs.lm.answer_text import answer_text
from programs.lm.call_spans import Tracing, record_span, span_tracer
from programs.lm.chat_body import token_count
from programs.lm.circuit_breaker import is_unbilled
from programs.lm.ledger import Call, Ledger
from programs.lm.prices import Price
from programs.lm.rate_limiter import Permit, RateLimiter
from programs.runtime.environment import environment


@dataclass(frozen=True)
class Account:
    """Whom a role's calls are charged to: the model and its price, the ledger, and the backend's rate limiter.

    Attributes:
        max_seconds: Seconds one attempt may take; bounds its cost at a price per hour.
        operation: `chat`, or the name of another route; in spans.
        tracing: Whether calls get spans, see `programs.lm.call_spans`.
    """

    role: str
    model: str
    ledger: Ledger
    price: Price | None
    rate_limiter: RateLimiter
    max_seconds: float
    operation: str = "chat"
    tracing: Tracing | None = field(default_factory=lambda: environment().trace)

    def __post_init__(self) -> None:
        if self.tracing is not None:
            span_tracer()  # what is wrong with it is said before a call is paid

    def attempt(self, about: str, most: tuple[int, int], asked: bytes = b"") -> CallAttempt:
        """A new attempt, of which nothing is reserved yet.

        Args:
            about: Hash of the prompt.
            most: The most tokens that its prompt and its answer may take.
            asked: Prompt, messages and settings as a JSON list, for spans with texts.
        """
        worst = None if self.price is None else self.price.most_usd(*most, seconds=self.max_seconds)
        return CallAttempt(self, about, most, worst, asked)

    def record(self, call: Call, asked: bytes, response: Any = None, error: BaseException | None = None) -> None:
        """Write a call that has ended to the ledger, and its span if it was sent and calls are traced."""
        self.ledger.record(call)
        if self.tracing is not None and not call.hit:
            record_span(call, self.operation, self.tracing, asked, response, error)


@dataclass
class CallAttempt:
    """An attempt, from the look into the response cache to its line in the ledger.

    The order is: look up; if there is no answer, budget (`Ledger.reserve`), permit (`RateLimiter`), another look, as
    somebody else may have asked meanwhile, and `sent` or `not_sent`; then `arrived` and `answered`, or an error; at
    last `ended`. Without `sent` the answer is a cache hit.

    Attributes:
        worst: Upper estimate of its price in dollars, None where unknown.
        asked: Prompt, messages and settings as a JSON list, for spans with texts.
        permit: From the rate limiter; None while nothing was sent.
        released: Whether the permit was given back.
        unfinished: Whether its answer was cut off before the model wrote more than its thoughts.
        started: `time.perf_counter()` when it was sent, or looked up.
        queued: Seconds that it waited for budget and permit.
        took: Seconds until its answer arrived; None without an answer, or without our response cache.
        was_answered: Whether an answer was recorded.
        tokens: Tokens of prompt and answer, None where the answer does not say both, or there is none.
        id: Of its line in the ledger; empty while nothing was sent.
        hit: Whether its answer came from the response cache.
    """

    account: Account
    about: str
    most: tuple[int, int]
    worst: float | None
    asked: bytes = b""
    permit: Permit | None = None
    released: bool = False
    unfinished: bool = False
    started: float = field(default_factory=time.perf_counter)
    queued: float = 0.0
    took: float | None = None
    was_answered: bool = False
    tokens: int | None = None
    id: str = ""
    hit: bool = False

    def sent(self, permit: Permit) -> None:
        """It is about to be sent, with budget and permit: the ledger gets its first line."""
        self.permit = permit
        self.id = self.account.ledger.record_sent(
            Call(
                role=self.account.role,
                model=self.account.model,
                about=self.about,
                tokens_in=self.most[0],
                tokens_out=self.most[1],
                usd=self.worst,
                at=round(time.time(), 3),
                in_flight=True,
            )
        )
        now = time.perf_counter()
        self.started, self.queued = now, now - self.started

    def not_sent(self, permit: Permit | None) -> None:
        """It is not sent although its budget was reserved: that is given back, with the permit if it got one."""
        self.permit = None
        if permit is not None:
            self.account.rate_limiter.not_sent(permit)
        self.account.ledger.release(self.worst)

    def arrived(self, answer: Any, seconds: float) -> None:
        """Its answer is here, in DSPy's form or as plain data, and not stored yet: the next call may be sent."""
        self.took = seconds
        self._release(tokens_of(answer, self.account.model).sent_and_written)

    def answered(self, response: Any, stored_seconds: float | None = None) -> None:
        """Record the answer, sent or from the response cache.

        Args:
            stored_seconds: What a cached answer took when it was made; None if unknown.
        """
        price = self.account.price
        self.unfinished = _unfinished(response)
        tokens = tokens_of(response, self.account.model)
        self.tokens = tokens.sent_and_written
        hit = self.hit = self.permit is None
        # Without both counts the price of its tokens is unknown, which is not zero; one per hour needs none.
        metered = tokens.known or (price is not None and price.usd_per_hour is not None)
        took = time.perf_counter() - self.started if self.took is None else self.took
        seconds = stored_seconds if hit else took
        self.account.record(
            Call(
                role=self.account.role,
                model=self.account.model,
                about=self.about,
                tokens_in=tokens.prompt,
                tokens_out=tokens.answer,
                tokens_cached=tokens.cached,
                tokens_written=tokens.cache_write,
                usd=self._usd(tokens, seconds) if metered else None,
                most_usd=None if metered or hit else self.worst,
                seconds=round(seconds or 0.0, 4),
                waited=0.0 if self.permit is None else round(self.permit.waited, 4),
                hit=hit,
                id=self.id,
                at=round(time.time(), 3),
            ),
            self.asked,
            response,
        )
        # Not before: an answer that could not be recorded is one that `ended` has to record.
        self.was_answered = True

    def ended(self, error: BaseException | None = None) -> None:
        """It is over: a failure is recorded, and budget and permit are given back."""
        if self.permit is None:
            return
        self._release(self.tokens, error)
        if not self.was_answered:
            self.account.record(
                Call(
                    role=self.account.role,
                    model=self.account.model,
                    usd=None if is_unbilled(error) else self.worst,
                    seconds=round(time.perf_counter() - self.started, 4),
                    waited=round(self.permit.waited, 4),
                    failed=True,
                    id=self.id,
                    at=round(time.time(), 3),
                ),
                self.asked,
                error=error,
            )
        self.account.ledger.release(self.worst)

    def _release(self, tokens: int | None, error: BaseException | None = None) -> None:
        if self.permit is not None and not self.released:
            self.released = True
            self.account.rate_limiter.release(self.permit, tokens, error)

    def _usd(self, tokens: Tokens, seconds: float | None) -> float | None:
        price = self.account.price
        if price is None or (seconds is None and price.usd_per_hour is not None):
            return None
        return price.usd(tokens.prompt, tokens.answer, tokens.cached, seconds or 0.0, tokens.cache_write)


class Tokens(NamedTuple):
    """Tokens of a call; those read from the provider's cache and written to it are among those of the prompt.

    Attributes:
        known: Whether the answer says how many there are, of prompt and answer: with one of the two, or for a prompt
            of none, the rest is not free.
    """

    prompt: int = 0
    answer: int = 0
    cached: int = 0
    cache_write: int = 0
    known: bool = False

    @property
    def sent_and_written(self) -> int | None:
        """Of prompt and answer together; None if they are not known."""
        return self.prompt + self.answer if self.known else None


def tokens_of(response: Any, model: str) -> Tokens:
    """Tokens of an answer, in DSPy's form or as plain data from the response cache; those it does not say are 0."""
    # A LiteLLM answer comes back from the cache as plain data, and has been brought to OpenAI's form.
    usage: Any = response.get("usage") if isinstance(response, dict) else response.usage
    if not hasattr(usage, "input_tokens"):
        usage = _fields(usage)
        details = _fields(usage.get("prompt_tokens_details"))
        written = details.get("cache_creation_tokens") or details.get("cache_write_tokens")
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"), details.get("cached_tokens"), written)
        return _bounded(*map(token_count, counts))
    # DSPy's own client leaves each provider's way of counting: Anthropic counts a prompt without what its cache
    # holds, Google and xAI an answer without the thoughts before it, and all of them bill it.
    prompt, answer = token_count(usage.input_tokens), token_count(usage.output_tokens)
    cached, written = token_count(usage.cache_read_tokens), token_count(usage.cache_write_tokens)
    provider = model.partition("/")[0]
    if provider == "anthropic" and prompt is not None:
        prompt += (cached or 0) + (written or 0)
    if provider in ("gemini", "xai") and answer is not None:
        answer += token_count(usage.reasoning_tokens) or 0
    return _bounded(prompt, answer, cached, written)


def _bounded(prompt: int | None, answer: int | None, cached: int | None, written: int | None) -> Tokens:
    """No more tokens are read from a cache and written to it than there are: no other has a negative price."""
    of_prompt = prompt or 0
    from_cache = min(cached or 0, of_prompt)
    into_cache = min(written or 0, of_prompt - from_cache)
    return Tokens(of_prompt, answer or 0, from_cache, into_cache, of_prompt > 0 and answer is not None)


def _fields(value: Any) -> dict[str, Any]:
    try:
        return dict(value or {})
    except (TypeError, ValueError):
        return {}


def _unfinished(response: Any) -> bool:
    if not isinstance(response, Response) or response.finish_reason != "length":
        return False
    return not answer_text("".join(part.text for part in response.message.parts if isinstance(part, TextPart))).strip()
