"""Language models of a bulk: `Backends` whose questions are sent by an event loop, from prompts rendered once."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
from dspy.lm15 import UnsupportedFeatureError
from dspy.utils.exceptions import AdapterParseError

from programs.bulk.driver import Driver, ForeignAnswerError
from programs.bulk.greenlets import on_event_loop, wait_for
from programs.bulk.rendered import RenderedPrompt, engine_of
from programs.lm.backends import Accept, Backends, plain_errors
from programs.lm.role_lm import RoleLM
from programs.lm.roles import RoleConfig, RoleName
from programs.lm.routes import Route
from programs.runtime.events import Note


class BulkBackends(Backends):
    """The same models, ledger, limits and answers as `backends`, asked on an event loop.

    Inside `in_greenlet` a question is sent from a rendered prompt. The general path answers, in a thread, whatever
    needs more than one good answer: it finds the first one in the response cache, and goes on from there as always.
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
        prediction, sent = await self._first_answer(role, predictor, rollout, enough, inputs)
        final = sent or not self.retry_unparsable
        if prediction is None or not (final or accept is None or accept(prediction)):
            return await asyncio.to_thread(self._readable, role, predictor, rollout, enough, accept, inputs, sent)
        prediction.unparsable = 0
        return prediction

    async def _first_answer(
        self, role: RoleName, predictor: dspy.Predict, rollout: int | None, enough: int | None, inputs: dict[str, Any]
    ) -> tuple[dspy.Prediction | None, bool]:
        """What the first answer says, None if it cannot be asked for here or not be parsed, and whether it was sent."""
        prompt = self._prompt(role, predictor, rollout, enough)
        sent = False
        if prompt is None:
            return None, sent
        try:
            with self.told_of_refused_items(role), plain_errors(role, self.roles.of(role)):
                answer = await self._driver.ask(prompt.call(inputs))
            sent = not answer.hit
            return prompt.prediction(answer.outputs), sent
        except (AdapterParseError, ForeignAnswerError, UnsupportedFeatureError):
            return None, sent
        finally:
            self._tell_refused(role)

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


class _Frozen:
    """A prompt with its predictor, which must live as long: prompts are known by its identity."""

    def __init__(self, predictor: dspy.Predict, prompt: RenderedPrompt | None) -> None:
        self.predictor = predictor
        self.prompt = prompt
