"""Language models of a bulk: `Backends` whose questions are sent by an event loop, from prompts rendered once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.lm15 import UnsupportedFeatureError
from dspy.utils.exceptions import AdapterParseError

from programs.bulk.driver import Driver, ForeignAnswerError
from programs.bulk.rendered import RenderedPrompt, engine_of
from programs.lm.backends import Accept, Backends, UnreadAnswer, plain_errors
from programs.lm.role_lm import RoleLM
from programs.lm.roles import RoleConfig, RoleName
from programs.lm.routes import Route
from programs.runtime.events import Note
from programs.runtime.greenlets import on_event_loop, wait_for


class BulkBackends(Backends):
    """The same models, ledger, limits and answers as `backends`, asked on an event loop.

    Inside `in_greenlet` a question is sent from a rendered prompt. The general path answers, in a thread, whatever
    needs more than one good answer: it goes on after the first one, or finds that one in the response cache.
    Predictors must not change, as those of a compiled program do not: their prompts are rendered once.

    Args:
        driver: Of the event loop.
    """

    def __init__(self, backends: Backends, driver: Driver) -> None:
        self.__dict__.update(backends.__dict__)
        self._driver = driver
        self._prompts: dict[tuple[object, ...], _Frozen] = {}

    def ask(
        self,
        role: RoleName,
        predictor: dspy.Predict,
        rollout: int | None = None,
        enough: int | None = None,
        accept: Accept | None = None,
        **inputs: Any,
    ) -> dspy.Prediction:
        """See `Backends.ask`."""
        if not on_event_loop():
            return super().ask(role, predictor, rollout, enough, accept, **inputs)
        return wait_for(self._ask(role, predictor, rollout, enough, accept, inputs))

    def ask_route(self, role: str, config: RoleConfig, route: Route, **fields: Any) -> Any:
        """See `Backends.ask_route`; asked in a thread."""
        if not on_event_loop():
            return super().ask_route(role, config, route, **fields)
        return wait_for(asyncio.to_thread(super().ask_route, role, config, route, **fields))

    async def _ask(
        self,
        role: RoleName,
        predictor: dspy.Predict,
        rollout: int | None,
        enough: int | None,
        accept: Accept | None,
        inputs: dict[str, Any],
    ) -> dspy.Prediction:
        first = await self._first_answer(role, predictor, rollout, enough, inputs)
        unread = first if isinstance(first, UnreadAnswer) else None
        if isinstance(first, _Read):
            final = first.sent or not self.retry_unparsable
            if final or accept is None or accept(first.prediction):
                first.prediction.unparsable = 0
                return first.prediction
        return await asyncio.to_thread(self._readable, role, predictor, rollout, enough, accept, inputs, unread)

    async def _first_answer(
        self, role: RoleName, predictor: dspy.Predict, rollout: int | None, enough: int | None, inputs: dict[str, Any]
    ) -> _Read | UnreadAnswer | None:
        """The first answer; None if it cannot be asked for here, or is stored and cannot be parsed."""
        prompt = self._prompt(role, predictor, rollout, enough)
        if prompt is None:
            return None
        try:
            with self.told_of_refused_items(role), plain_errors(role, self.roles.of(role)):
                answer = await self._driver.ask(prompt.call(inputs))
        except (ForeignAnswerError, UnsupportedFeatureError):
            return None
        finally:
            self._tell_refused(role)
        try:
            return _Read(prompt.prediction(answer.outputs), sent=not answer.hit)
        except AdapterParseError as error:
            return None if answer.hit else UnreadAnswer(error, answer.cut_off_thinking)

    def _prompt(
        self, role: RoleName, predictor: dspy.Predict, rollout: int | None, enough: int | None
    ) -> RenderedPrompt | None:
        thinks = self.roles.of(role).model in self._thinking
        known = role, id(predictor), rollout, enough, thinks
        if known not in self._prompts:
            self._prompts[known] = self._rendered(role, predictor, rollout, enough)
        return self._prompts[known].prompt

    def _rendered(self, role: RoleName, predictor: dspy.Predict, rollout: int | None, enough: int | None) -> _Frozen:
        lm = self.lm(role)
        if not isinstance(lm, RoleLM) or lm.model_type != "chat" or engine_of(lm) is None:
            self.on_event(
                Note(f"{role}: {self.roles.of(role).model} is asked in threads: it is behind a client library")
            )
            return _Frozen(predictor, None)
        adapter = self.adapter_for(role, predictor)
        config = self.call_settings(role, adapter, rollout, enough)
        prompt = RenderedPrompt.frozen(lm, adapter, predictor, config)
        if prompt is None:
            self.on_event(Note(f"{role}: its prompt cannot be rendered once, so it is rendered for every call"))
            prompt = RenderedPrompt(lm, adapter, predictor, config, dict.fromkeys(predictor.signature.input_fields, ""))
        return _Frozen(predictor, prompt)


@dataclass(frozen=True)
class _Read:
    """An answer that could be parsed, and whether it was sent, or stored before."""

    prediction: dspy.Prediction
    sent: bool


class _Frozen:
    """A prompt with its predictor, which must live as long: prompts are known by its identity."""

    def __init__(self, predictor: dspy.Predict, prompt: RenderedPrompt | None) -> None:
        self.predictor = predictor
        self.prompt = prompt
