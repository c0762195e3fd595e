"""Recording: backends that answer from the response cache and note the questions that it cannot answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import dspy
from dspy._vendor.lm15.transports import TransportRequest, TransportResponse
from dspy.lm15 import Request, Response

from programs.batch.providers import dialect_of
from programs.batch.question import GIVEN_UP, BatchQuestion, Refusal, Refusals, form_of, most_tokens, without_messages
from programs.lm.backends import Backends
from programs.lm.chat_body import shown
from programs.lm.ledger import Ledger
from programs.lm.pending import GivenUpError, PendingCall
from programs.lm.prices import BatchPrices, price_table
from programs.lm.response_cache import ResponseCache
from programs.lm.role_lm import RoleLM
from programs.lm.roles import RoleConfig, RoleName, Roles
from programs.lm.routes import Route, RouteLM
from programs.lm.transport import arrived, instead_of_sending
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore


class Recorder:
    """Questions of the wave under way, each once; safe to use from several threads.

    Attributes:
        refusals: Of earlier waves: they are raised as on the direct path.
    """

    def __init__(self) -> None:
        self.refusals: Refusals = {}
        self._questions: dict[str, BatchQuestion] = {}
        self._lock = threading.Lock()

    def add(self, question: BatchQuestion) -> None:
        """Note a question."""
        with self._lock:
            self._questions[question.key] = question

    def take(self) -> list[BatchQuestion]:
        """The questions since the last time."""
        with self._lock:
            taken, self._questions = [*self._questions.values()], {}
        return taken


class RecordingCache(ResponseCache):
    """A response cache in front of calls that are not sent: a miss needs neither budget nor a place in line.

    Args:
        cache: Whose answers and state it shares.
    """

    def __init__(self, cache: ResponseCache) -> None:
        self.__dict__.update(cache.__dict__)

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:
        """The cached answer, or None."""
        this_call = self.this_call
        check, this_call.check = this_call.check, None
        try:
            return super().get(request, ignored_args_for_cache_key)
        finally:
            this_call.check = check


def cache_in_use() -> ResponseCache:
    """DSPy's cache.

    Raises:
        InputError: if it is not a response cache.
    """
    cache = dspy.cache
    if not isinstance(cache, ResponseCache):
        raise InputError("batches need the response cache of this package: call use_response_cache(PATH) first")
    return cache


@contextmanager
def recording() -> Iterator[None]:
    """Inside the block DSPy's cache is a `RecordingCache` over the response cache in use."""
    cache = cache_in_use()
    dspy.cache = RecordingCache(cache)
    try:
        yield
    finally:
        dspy.cache = cache


class RecordingEngine:
    """DSPy's engine interface in front of a client that renders requests and reads answers, but sends nothing.

    Args:
        engine: The client of the direct path.
    """

    def __init__(self, engine: Any, config: RoleConfig, recorder: Recorder) -> None:
        self._engine = engine
        self._config = config
        self._recorder = recorder
        self.lm: RoleLM | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)  # capabilities of the model, and the parameters that it refused

    def complete(self, request: Request) -> Response:
        """Note the question, unless its answer is a known refusal.

        Raises:
            PendingCall: after the question was noted.
            GivenUpError: if this session has asked it several times in vain.
            LM15Error: if the provider has refused it.
        """
        with instead_of_sending(partial(self._answer, request, {})):
            response: Response = self._engine.complete(request)
            return response

    def _answer(self, request: Request, refused: dict[str, Refusal], sent: TransportRequest) -> TransportResponse:
        key, form = dspy.cache.this_call.key, form_of(sent.body)
        refusal = self._recorder.refusals.get((key, form))
        if refusal is None:
            self._recorder.add(self._question(key, form, request, refused, sent))
            raise PendingCall
        if refusal.status == GIVEN_UP:
            said = shown(refusal.body.encode())
            raise GivenUpError(f"asked several times in batches, without an answer; the last: {said}")
        refused[form] = refusal
        return arrived(refusal.body.encode(), refusal.status)

    def _question(
        self, key: str, form: str, request: Request, refused: dict[str, Refusal], sent: TransportRequest
    ) -> BatchQuestion:
        lm = cast(RoleLM, self.lm)
        tokens_in, tokens_out = most_tokens(sent.body)
        return BatchQuestion(
            key=key,
            role=lm.role,
            config=self._config,
            model=lm.model,
            about=lm.ledger.about(lm.about),
            url=sent.url,
            body=sent.body.decode(),
            form=form,
            refusals=dict(refused),
            request=without_messages(request),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            most_usd=None if lm.price is None else lm.price.most_usd(tokens_in, tokens_out),
        )


class BatchBackends(Backends):
    """Backends whose calls are lines of batches, at the prices of those."""

    def __init__(self, roles: Roles, ledger: Ledger, recorder: Recorder, on_event: OnEvent = ignore) -> None:
        self._recorder = recorder
        super().__init__(roles, ledger, BatchPrices(**dict(price_table())), on_event=on_event)

    def require_priced(self, role: str, config: RoleConfig) -> None:
        """Refuse a model without a known price in a batch if there is a budget in dollars.

        Raises:
            InputError: naming role and model.
        """
        if self.ledger.budget.usd is not None and not config.is_local and self.prices.of(config.model) is None:
            raise InputError(
                f"a dollar budget cannot be kept: the price of {role}'s model {config.model!r} in a batch is not known "
                "(limit calls with --max-calls, or add `batch` to its price in a file for --prices)"
            )

    def require(self, role: RoleName) -> None:
        """See `Backends.require`; the model needs a batch interface, too."""
        dialect_of(self.roles.of(role).model)
        super().require(role)

    def connection(self, config: RoleConfig) -> dict[str, Any]:
        """The connection of the direct path, behind a `RecordingEngine`."""
        return {"engine": RecordingEngine(super().connection(config)["engine"], config, self._recorder)}

    def build(self, role: str, config: RoleConfig) -> RoleLM:
        """See `Backends.build`.

        Raises:
            InputError: if the model has no batch interface.
        """
        dialect_of(config.model)
        lm = super().build(role, config)
        lm.engine.lm = lm
        return lm

    def _route_lm(self, role: str, config: RoleConfig, route: Route) -> RouteLM:
        raise InputError(f"{role}: {config.model}: batches have no {route.path}; choose another program, or no batches")
