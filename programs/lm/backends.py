"""Registry of the language models of all roles, bound to predictors at call time.

DSPy's `reset_copy` clears the model of every predictor and `deepcopy` clones it (measured). Here predictors hold no
model: a module asks `Backends`, which knows the model, adapter and sampling of its role.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy
from dspy.utils.exceptions import (
    AdapterParseError,
    ContextWindowExceededError,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMInvalidRequestError,
    LMUnsupportedFeatureError,
    LMUnsupportedModelError,
)

from programs.lm.adapters import ChoiceAdapter, RatingAdapter, build_adapter
from programs.lm.circuit_breaker import BackendDownError
from programs.lm.endpoints import (
    connect,
    connect_route,
    credentials,
    is_server,
    key_variable,
    model_name,
    require_listening,
)
from programs.lm.given import GivenLM, require_usable, with_address
from programs.lm.keys import no_secret_in_errors
from programs.lm.ledger import Ledger
from programs.lm.limits import Limits, limits_for, stated_limits
from programs.lm.prices import PriceTable, price_table
from programs.lm.rate_limiter import RateLimiter
from programs.lm.refused_parameters import RefusedParameters, refuses_text
from programs.lm.role_lm import RoleLM
from programs.lm.roles import GIVEN, ROLE_NAMES, RoleConfig, RoleName, Roles
from programs.lm.routes import Route, RouteLM
from programs.runtime.errors import InputError, abridged, one_line
from programs.runtime.events import Note, OnEvent, ignore
from programs.runtime.nocopy import SharedByCopies

_RETRIES_AFTER_UNPARSABLE = 1
_KEYED_TIMEOUT = 600.0
"""What the timeout was when it was part of a request's key in the response cache."""

_SHOWN_CHARACTERS = 300
"""Of an answer or an error in a message."""

_SHOWN_REFUSED_ITEMS = 3
"""Refused items with a note of their own; results count all of them."""

_THINKING = "cut off after {} tokens, before it began: the model was still thinking; allow it more with --max-tokens"


Accept = Callable[[dspy.Prediction], bool]


class UnparsableError(Exception):
    """Neither the first nor the repeated answer of a model could be parsed. `answers` counts them."""

    def __init__(self, message: str, answers: int) -> None:
        super().__init__(message)
        self.answers = answers


class RefusedTextError(UnparsableError):
    """The provider refuses the text of this one user or item (content filter, too long): asking again does not help."""


@dataclass(frozen=True)
class UnreadAnswer:
    """An answer that could not be parsed.

    Attributes:
        error: What was wrong with it.
        cut_off_thinking: Whether it was cut off before the model wrote more than its thoughts.
    """

    error: AdapterParseError
    cut_off_thinking: bool


class Backends(SharedByCopies):
    """The language models of all roles, built when first used. Deep copies are the same object.

    Attributes:
        retry_unparsable: Whether questions are sent again whose stored answers are unparsable.

    Args:
        prices: None for the shipped ones under the user's own (`price_table`).
        limits: By model string; None for the user's own (`stated_limits`). Roles of one model share one limit.
        given: `dspy.LM` objects by their model string (`dspy:NAME`), used with their own key, address and sampling.
        on_event: Told before a model is loaded into this process; called in the thread that first asks it.
    """

    def __init__(
        self,
        roles: Roles,
        ledger: Ledger | None = None,
        prices: PriceTable | None = None,
        limits: Mapping[str, Limits] | None = None,
        given: Mapping[str, dspy.LM] | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self.roles = roles
        self.ledger = ledger or Ledger()
        self.prices = price_table() if prices is None else prices
        self.limits = stated_limits() if limits is None else limits
        self.given = dict(given or {})
        self.on_event = on_event
        self._lms: dict[tuple[str, RoleConfig], RoleLM] = {}
        self._rate_limiters: dict[tuple[str, str | None], RateLimiter] = {}
        self._lock = threading.Lock()
        self.retry_unparsable = False
        self._thinking: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._refused_items = 0
        self._refuse_unpriced()

    def with_roles(
        self, roles: Roles, ledger: Ledger | None = None, given: Mapping[str, dspy.LM] | None = None
    ) -> Backends:
        """Backends for other roles, under the same rate limits.

        Args:
            ledger: Records their calls; None for the same ledger.
            given: Further `dspy.LM` objects.
        """
        other = copy.copy(self)
        other.roles = roles
        other.given = self.given | dict(given or {})
        if ledger is not None:
            other.ledger = ledger
            other._lms = {}
            # Another run: a backend that was down for the last one may be back.
            for rate_limiter in [*self._rate_limiters.values()]:
                rate_limiter.reset()
        other._refuse_unpriced()
        return other

    def _refuse_unpriced(self) -> None:
        for role in ROLE_NAMES:
            self.require_priced(role, self.roles.of(role))

    def require_priced(self, role: str, config: RoleConfig) -> None:
        """Refuse a model without a known price if there is a budget in dollars.

        Raises:
            InputError: naming role and model.
        """
        if self.ledger.budget.usd is None or config.is_local:
            return
        if "://" in config.model:
            model_name(config)  # an address that holds a password is not repeated below
        given = self.given.get(config.model)
        if given is not None and not (given.kwargs.get("max_tokens") or given.kwargs.get("max_completion_tokens")):
            raise InputError(
                f"a dollar budget cannot be kept: nothing limits the answers of {role}'s model {given.model!r}; give "
                "it a limit, dspy.LM(..., max_tokens=1000)"
            )
        if self.prices.of(config.model.removeprefix(GIVEN)) is not None:
            return
        raise InputError(
            f"a dollar budget cannot be kept: {role}'s model {config.model!r} has no known price "
            "(limit calls with --max-calls, or add a price)"
        )

    def require(self, role: RoleName) -> None:
        """Check that a role's model can be used, before a run begins; starts no engine and sends nothing.

        Raises:
            InputError: if its weights are missing or not a GGUF file, its server's address is malformed, or its key
                is not set.
        """
        config = self.roles.of(role)
        if config.model.startswith(GIVEN):
            self._given(role, config)
        model_name(config)
        credentials(config)

    def lm(self, role: RoleName) -> RoleLM:
        """The role's language model; starts the local engine if the role needs it.

        Raises:
            InputError: if it cannot be used, or not with the role's settings.
        """
        config = self.roles.of(role)
        with self._lock:
            if (role, config) not in self._lms:
                try:
                    self._lms[role, config] = self.build(role, config)
                except LMConfigurationError as error:
                    raise InputError(f"{role}: {config.model}: {error}") from error
            return self._lms[role, config]

    def build(self, role: str, config: RoleConfig) -> RoleLM:
        """A language model whose calls are recorded under the name `role`; starts its engine."""
        if config.model.startswith(GIVEN):
            lm = self._given(role, config)
            price, limiter = self.prices.of(lm.model), self.rate_limiter(config)
            return GivenLM(lm, role, self.ledger, price, limiter, max_seconds=config.timeout)
        sampling = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
        hosted = not config.is_local and not is_server(config.model)
        return RoleLM(
            model_name(config),
            role,
            self.ledger,
            self.prices.of(config.model),
            self.rate_limiter(config),
            max_seconds=config.timeout,
            # Where the response cache keeps the answers of hosted models since its first version.
            keyed={"timeout": _KEYED_TIMEOUT} if hosted else None,
            before_first=partial(require_listening, config.model) if is_server(config.model) else lambda: None,
            **{key: value for key, value in sampling.items() if value is not None},
            **({} if config.effort is None else {"reasoning_effort": config.effort}),
            **self.connection(config),
        )

    def connection(self, config: RoleConfig) -> dict[str, Any]:
        """The connection settings for `dspy.LM`; starts the local engine if the model needs it."""
        return connect(config, self.on_event)

    def ask_route(self, role: str, config: RoleConfig, route: Route, **fields: Any) -> Any:
        """Ask a model by a route other than chat; its calls are recorded under the name `role`.

        Args:
            fields: What is sent, beside the model's name.

        Returns:
            What the route keeps of the answer.

        Raises:
            RefusedTextError: if the provider refuses these texts, and would refuse them again.
            InputError: if there is no such route for the model, or its key is missing or rejected.
        """
        key = role + route.path, config
        with self._lock:
            if key not in self._lms:
                self._lms[key] = self._route_lm(role, config, route)
            lm = self._lms[key]
        with plain_errors(role, config):
            try:
                (answer,) = lm(json.dumps(fields))
            except LMUnsupportedFeatureError as error:
                raise InputError(f"{role}: {config.model}: {one_line(error)}") from error
        return json.loads(answer)

    def _route_lm(self, role: str, config: RoleConfig, route: Route) -> RouteLM:
        return RouteLM(
            model_name(config),
            role,
            self.ledger,
            self.prices.of(config.model),
            self.rate_limiter(config),
            max_seconds=config.timeout,
            before_first=partial(require_listening, config.model) if is_server(config.model) else lambda: None,
            route=route,
            engine=connect_route(config, route, self.on_event),
        )

    def _given(self, role: str, config: RoleConfig) -> dspy.LM:
        lm = self.given.get(config.model)
        if lm is None:
            raise InputError(f"{role}: the model {config.model!r} was a dspy.LM object: pass that object again")
        require_usable(lm, role)
        return lm

    def known_as(self, role: RoleName) -> str:
        """What a role's model is known by where its results are stored: its name, and a given object's own address."""
        return with_address(model_name(self.roles.of(role)), self.given.get(self.roles.of(role).model))

    def rate_limiter(self, config: RoleConfig) -> RateLimiter:
        """The rate limiter of a role's backend; one for all roles on one model and key."""
        account = model_name(config), config.api_key_env
        return self._rate_limiters.setdefault(account, RateLimiter(config.model, limits_for(config, self.limits)))

    def adapter_for(self, role: RoleName, predictor: dspy.Predict) -> dspy.Adapter:
        """The role's adapter; a lone `rating` or `choice` is always a bare label, whose probabilities are read."""
        if list(predictor.signature.output_fields) == ["rating"]:
            return RatingAdapter()
        if list(predictor.signature.output_fields) == ["choice"]:
            return ChoiceAdapter()
        return build_adapter(self.roles.of(role).adapter)

    def ask(
        self,
        role: RoleName,
        predictor: dspy.Predict,
        rollout: int | None = None,
        enough: int | None = None,
        accept: Accept | None = None,
        **inputs: Any,
    ) -> dspy.Prediction:
        """Call a predictor with the model of a role.

        Args:
            rollout: Number of a sample: equal calls with different numbers are sampled independently.
            enough: Tokens that any valid answer fits in; the limit for a terse role.
            accept: Whether a prediction that could be parsed says anything; None for always.

        Returns:
            The prediction; its `unparsable` counts answers that were discarded before it.

        Raises:
            UnparsableError: if the answer to the repeated call cannot be parsed either.
            RefusedTextError: if the provider refuses this text, and would refuse it again.
            InputError: if the backend has no key or rejects it.
        """
        return self._readable(role, predictor, rollout, enough, accept, inputs)

    def _readable(
        self,
        role: RoleName,
        predictor: dspy.Predict,
        rollout: int | None,
        enough: int | None,
        accept: Accept | None,
        inputs: dict[str, Any],
        first: UnreadAnswer | None = None,
    ) -> dspy.Prediction:
        """See `ask`.

        Args:
            first: The first answer, if this question has just been sent elsewhere: it is not sent once more.
        """
        adapter = self.adapter_for(role, predictor)
        lm, model = self.lm(role), self.roles.of(role)
        config = self.call_settings(role, adapter, rollout, enough)
        cap = _cap_of(lm)
        last = "" if first is None else self._unread(first, model, config, cap)
        for attempt in range(0 if first is None else 1, _RETRIES_AFTER_UNPARSABLE + 1):
            if attempt:
                # Repeated unchanged, a greedy call would give the same answer.
                config["rollout_id"] = 1000 * attempt + (rollout or 0)
                if model.temperature is not None:
                    config["temperature"] = 0.7
            again = self.retry_unparsable
            try:
                with (
                    dspy.context(adapter=adapter),
                    self.told_of_refused_items(role),
                    plain_errors(role, model),
                    no_secret_in_errors(lm.kwargs),
                ):
                    prediction = self._predicted(lambda: predictor(**inputs, lm=lm, config=config), lm, accept, again)
            except AdapterParseError as error:
                last = self._unread(UnreadAnswer(error, getattr(lm, "cut_off_thinking", False)), model, config, cap)
                continue
            finally:
                self._tell_refused(role)
            prediction.unparsable = attempt
            return prediction
        answers = _RETRIES_AFTER_UNPARSABLE + 1
        raise UnparsableError(f"{role}: {answers} answers could not be parsed; the last: {last}", answers)

    def _unread(self, answer: UnreadAnswer, model: RoleConfig, config: dict[str, Any], cap: str) -> str:
        """What was wrong with an answer; lifts the limit `cap` in the settings of the next call if it was too low."""
        if not answer.cut_off_thinking:
            return _brief(answer.error)
        # A model that thinks before it answers needs more tokens than a valid answer fits in.
        self._thinking.add(model.model)
        return _THINKING.format(config.pop(cap, model.max_tokens))

    def _predicted(
        self, ask: Callable[[], dspy.Prediction], lm: dspy.BaseLM, accept: Accept | None, again: bool
    ) -> dspy.Prediction:
        """The prediction; with `again` the question is sent again if its stored answer is unparsable."""
        try:
            prediction = ask()
            if accept is None or accept(prediction) or not again:
                return prediction
        except AdapterParseError:
            if not (again and getattr(lm, "was_hit", False)):
                raise
        if not getattr(lm, "was_hit", False):
            return prediction
        with lm.anew():
            return ask()

    def call_settings(
        self, role: RoleName, adapter: dspy.Adapter, rollout: int | None, enough: int | None
    ) -> dict[str, Any]:
        """Settings of a role's call beside those of its language model; see `ask`."""
        settings = self._settings(role, adapter, _cap_of(self.lm(role)), enough)
        config = {name: value for name, value in settings if value is not None}
        return config if rollout is None else config | {"rollout_id": rollout}

    def _settings(
        self, role: RoleName, adapter: dspy.Adapter, cap: str, enough: int | None
    ) -> Iterator[tuple[str, Any]]:
        config = self.roles.of(role)
        thinks = config.model in self._thinking
        if config.terse and enough is not None and not thinks:
            yield cap, min(enough, config.max_tokens)
        # A reasoning model has no log-probabilities to read, and needs its tokens to think.
        if isinstance(adapter, RatingAdapter) and config.logprobs:
            yield cap, None if thinks else 4
            yield "logprobs", True
            # Among 20 tokens some of many labels may be missing; hosted models and most servers give no more.
            yield "top_logprobs", 100 if isinstance(adapter, ChoiceAdapter) and config.is_local else 20

    def _tell_refused(self, role: RoleName) -> None:
        model = self.roles.of(role).model
        for name in self.left_out(role):
            if (model, name) not in self._told:
                self._told.add((model, name))
                self.on_event(Note(f"{model} refuses the parameter {name!r} as we send it: it is left out or lowered"))

    @contextmanager
    def told_of_refused_items(self, role: RoleName) -> Iterator[None]:
        """Say of the first refused items that they have no traits; of a refused user the run says it."""
        try:
            yield
        except RefusedTextError as error:
            with self._lock:
                self._refused_items += role == "mote"
                told = role == "mote" and self._refused_items <= _SHOWN_REFUSED_ITEMS
            if told:
                self.on_event(Note(f"{error}; this item has no traits"))
            raise

    def left_out(self, role: RoleName) -> tuple[str, ...]:
        """Optional request parameters that the role's server refused, and that are left out or lowered since."""
        engine = getattr(self.lm(role), "engine", None)
        refused: RefusedParameters | None = getattr(engine, "refused", None)
        return () if refused is None else refused.names


def _cap_of(lm: dspy.BaseLM) -> str:
    """The name of the limit on an answer's length as DSPy set it for this model: newer OpenAI models have another."""
    return "max_completion_tokens" if "max_completion_tokens" in lm.kwargs else "max_tokens"


@contextmanager
def plain_errors(role: str, config: RoleConfig) -> Iterator[None]:
    """Errors of DSPy that concern the text, the key or the model, as our own."""
    try:
        yield
    except LMInvalidRequestError as error:
        if isinstance(error, ContextWindowExceededError) or refuses_text(str(error), error.provider_code):
            raise RefusedTextError(f"{role}: refused by the provider: {_brief(error)}", 1) from error
        if isinstance(error, LMUnsupportedModelError):
            raise InputError(f"{role}: {config.model}: {one_line(error)}") from error
        raise
    except LMAuthError as error:
        variable = f"set the environment variable {config.api_key_env or key_variable(config.model)}"
        remedy = f"give the dspy.LM object a key, or {variable}" if config.model.startswith(GIVEN) else variable
        raise InputError(f"{role}: {config.model}: {one_line(error)}; {remedy}") from error
    except (LMConfigurationError, LMBillingError) as error:
        raise InputError(f"{role}: {config.model}: {one_line(error)}") from error
    except BackendDownError as error:
        if not error.refused:
            raise
        raise InputError(f"{role}: {error}") from error


def _brief(error: Exception) -> str:
    return abridged(one_line(error), _SHOWN_CHARACTERS)
