"""Event-loop driver of calls: waits for budget and permits, sends, retries and stores, by the rules of `programs.lm`.

What a call reserves and records is in `CallAttempt`, when the next may be sent in `RateLimiter`, what is tried again in
`RoleLM.retry_pause`, who asks a question in `SingleFlight`. `RoleLM` drives the same rules in threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from dspy.clients.call_result import CACHE_FORMAT, CallResult
from dspy.clients.errors import error_boundary
from dspy.clients.execution import _result
from dspy.lm15 import InvalidRequestError

from programs.bulk.client import Client
from programs.bulk.rendered import PromptCall, engine_of
from programs.lm.attempt import CallAttempt
from programs.lm.deadline import Deadline, before, current_deadline
from programs.lm.keys import no_key_in_errors
from programs.lm.ledger import Ledger
from programs.lm.rate_limiter import Permit, RateLimiter
from programs.lm.response_cache import ResponseCache, Stored, asked_by
from programs.lm.single_flight import POLL
from programs.runtime.errors import BudgetExceededError

_LOOK = 0.2
"""Seconds between two looks at a stopped ledger, a spent budget, or a limiter that threads use, too."""


@dataclass(frozen=True)
class Answer:
    """What a model answered, in DSPy's form.

    Attributes:
        hit: Whether it came from the response cache.
        cut_off_thinking: Whether it was cut off before the model wrote more than its thoughts.
    """

    outputs: list[Any]
    hit: bool
    cut_off_thinking: bool


class _Asked:
    """A call under way.

    Attributes:
        attempt: The last one.
    """

    attempt: CallAttempt

    def __init__(self, call: PromptCall) -> None:
        self.call = call
        self.lm = call.prompt.lm
        self._began = time.monotonic()
        self._attempts: list[CallAttempt] = []

    def attempt_again(self) -> None:
        """Begin another attempt, of which nothing is reserved yet."""
        question = self.call.question
        self.attempt = self.lm.account.attempt(question.about, question.most, question.asked)
        self._attempts.append(self.attempt)

    @property
    def seconds(self) -> float:
        """Seconds since the first one, without those in which all of them waited for budget and permits."""
        return time.monotonic() - self._began - sum(attempt.queued for attempt in self._attempts)


class ForeignAnswerError(Exception):
    """The stored answer has another form than DSPy's own: the general path can read it."""


class Driver:
    """Makes calls on one event loop.

    Args:
        store: The response cache; the general path finds the answers there, and the other way round.
    """

    def __init__(self, store: ResponseCache) -> None:
        self._store = store
        self._client = Client()
        self._lines: dict[int, _Line] = {}
        self._deadlines: dict[str, Deadline] = {}
        self._writer = _Writer(store)

    async def ask(self, call: PromptCall) -> Answer:
        """The answer to a call; equal calls, of other processes too, are sent once.

        A call that several requests wait for is sent until the last of their deadlines.

        Raises:
            ForeignAnswerError: if the stored answer has another form than DSPy's own.
            Exception: what `RoleLM.__call__` raises for the same call.
        """
        lm, flight, own = call.prompt.lm, call.question.flight, current_deadline()
        give_up = time.monotonic() + lm.max_seconds
        while not self._store.flights.take(flight, time.monotonic() >= give_up):
            if flight in self._deadlines:
                self._deadlines[flight].extend(own)
            await _pause(lm.ledger, POLL)
        try:
            with before(self._deadlines.setdefault(flight, Deadline(own.until))):
                return await self._retried(call)
        except ForeignAnswerError:
            raise
        except Exception as error:
            lm.rate_limiter.record_failure(error)
            raise
        finally:
            self._deadlines.pop(flight, None)
            self._store.flights.let_go(flight)

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    async def _retried(self, call: PromptCall) -> Answer:
        asked = _Asked(call)
        for attempts in count(1):
            asked.attempt_again()
            try:
                return await self._answered(asked)
            except Exception as error:
                pause = asked.lm.retry_pause(error, attempts, asked.seconds)
                if pause is None:
                    raise
            await _pause(asked.lm.ledger, pause)
        raise AssertionError("there is always another attempt, or an error")

    async def _answered(self, asked: _Asked) -> Answer:
        found = self._store.find(asked.call.key) or await self._permitted(asked)
        if found is not None:
            plain, seconds = found
            if plain.get("_dspy_format") != CACHE_FORMAT:
                raise ForeignAnswerError
            stored = CallResult.load(plain)
            asked.attempt.answered(stored.raw, seconds)
            return Answer(stored.outputs, True, asked.attempt.unfinished)
        try:
            result = await self._complete(asked)
        except BaseException as error:
            asked.attempt.ended(error)
            raise
        asked.attempt.ended()
        return Answer(result.outputs, False, asked.attempt.unfinished)

    async def _permitted(self, asked: _Asked, look: bool = True) -> Stored | None:
        """Wait until the attempt may be sent; what another process has stored meanwhile, or None if it is sent.

        Args:
            look: Whether to look for that.
        """
        lm, attempt = asked.lm, asked.attempt
        lm.before_first()
        current_deadline().require()
        while not lm.ledger.try_reserve(attempt.worst):
            await _pause(lm.ledger, _LOOK)
        permit = None
        try:
            permit = await self._line(lm.rate_limiter).permit(sum(attempt.most), lm.ledger)
            found = self._store.find(asked.call.key) if look else None
            if found is None:
                attempt.sent(permit)
                return None
        except BaseException:
            attempt.not_sent(permit)
            raise
        attempt.not_sent(permit)
        return found

    def _line(self, limiter: RateLimiter) -> _Line:
        if id(limiter) not in self._lines:
            self._lines[id(limiter)] = _Line(limiter)
        return self._lines[id(limiter)]

    async def _complete(self, asked: _Asked) -> CallResult:
        call, lm, prompt = asked.call, asked.lm, asked.call.prompt
        engine = engine_of(lm)
        assert engine is not None  # noqa: S101 - only such models have rendered prompts
        with error_boundary(lm.model, unexpected=True), no_key_in_errors(engine.key):
            trial = engine.refused.trial(prompt.request)
            while True:
                exchange = prompt.exchange(trial)
                try:
                    response = await self._client.send(exchange, exchange.body.fill(call.values))
                except InvalidRequestError as error:
                    trial.refused(error)
                    # The request without what was refused is a further attempt, for budget and limits alike.
                    if lm.is_late(asked.seconds):
                        raise
                    asked.attempt.ended(error)
                    asked.attempt_again()
                    await self._permitted(asked, look=False)
                else:
                    trial.accepted()
                    break
            result: CallResult = _result(lm, response, prompt.prepared, None, prompt.request)
        attempt = asked.attempt
        seconds = time.perf_counter() - attempt.started
        plain = result.dump()
        attempt.arrived(plain, round(seconds, 4))
        self._line(lm.rate_limiter).serve()
        await self._writer.keep(call.key, asked_by(plain, lm.model, lm.role), seconds)
        attempt.answered(response)
        return result


async def _pause(ledger: Ledger, seconds: float) -> None:
    """Sleep before a call is tried again; ends with `BudgetExceededError` after `Ledger.stop`, and at the deadline."""
    end, deadline = time.monotonic() + seconds, current_deadline()
    while True:
        ledger.wait(0)
        deadline.require()
        left = end - time.monotonic()
        if left <= 0:
            return
        await asyncio.sleep(min(left, _LOOK))


class _Waiting(NamedTuple):
    """A call that waits for a permit; the rest is as in `RateLimiter.acquire`."""

    permit: asyncio.Future[Permit]
    tokens: int
    came: float
    ledger: Ledger
    deadline: Deadline

    def may_go_on(self) -> bool:
        """Whether it still waits and may be sent; if it may not, it is told why."""
        if self.permit.done():
            return False
        try:
            self.ledger.require_time()
            self.deadline.require()
        except BudgetExceededError as error:
            self.permit.set_exception(error)
            return False
        return True


class _Line:
    """Calls that wait for a permit of one rate limiter, first come, first served."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._waiting: deque[_Waiting] = deque()
        self._look: asyncio.TimerHandle | None = None

    async def permit(self, tokens: int, ledger: Ledger) -> Permit:
        """Wait until a call may be sent; see `RateLimiter.acquire`."""
        came = self._limiter.now()
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(future, tokens, came, ledger, current_deadline()))
        self.serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._limiter.not_sent(future.result())
            raise

    def serve(self) -> None:
        """Give out the permits that there are now, and look again when there may be more."""
        while self._waiting:
            first = self._waiting[0]
            if first.may_go_on():
                try:
                    found = self._limiter.try_acquire(first.tokens, first.came)
                except BaseException as error:
                    first.permit.set_exception(error)
                else:
                    if not isinstance(found, Permit):
                        self._look_again(min(found, _LOOK))
                        return
                    first.permit.set_result(found)
            self._waiting.popleft()

    def _look_again(self, seconds: float) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(seconds, self._looked)

    def _looked(self) -> None:
        self._look = None
        # Also behind the first one: whom nobody waits for any more need not wait for its turn.
        self._waiting = deque(one for one in self._waiting if one.may_go_on())
        self.serve()


class _Writer:
    """Stores answers: all that arrive in one turn of the event loop in one transaction."""

    def __init__(self, store: ResponseCache) -> None:
        self._store = store
        self._waiting: dict[str, tuple[dict[str, Any], float]] = {}
        self._stored: asyncio.Future[None] | None = None

    async def keep(self, key: str, plain: dict[str, Any], seconds: float) -> None:
        """Store an answer; returns when it is stored."""
        self._waiting[key] = plain, seconds
        if self._stored is None:
            loop = asyncio.get_running_loop()
            self._stored = loop.create_future()
            loop.call_soon(self._write)
        await asyncio.shield(self._stored)

    def _write(self) -> None:
        stored, self._stored = self._stored, None
        waiting, self._waiting = self._waiting, {}
        assert stored is not None  # noqa: S101 - set with the first answer
        try:
            self._store.keep(waiting)
        except BaseException as error:
            stored.set_exception(error)
        else:
            stored.set_result(None)
