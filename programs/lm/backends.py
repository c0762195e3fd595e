"""Language models bound to roles at call time, so that no optimizer can drop, clone or merge them.

DSPy's `reset_copy` clears the model of every predictor and `deepcopy` clones it (measured, design.md section 4).
Here predictors hold no model: a module asks `Backends`, which knows the model, adapter and sampling of its role.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import dspy
from dspy.lm15 import AccessPolicy, ModelSupport, OpenAIChatCompat, ProviderDefinition, register_provider
from dspy.utils.exceptions import (
    AdapterParseError,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMUnsupportedModelError,
)
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from programs.errors import InputError
from programs.lm.adapters import RatingAdapter, build_adapter
from programs.lm.call_store import CallStore
from programs.lm.engine import ENGINE, gguf_identity
from programs.lm.ledger import Call, Ledger
from programs.lm.prices import Price, PriceTable, price_table
from programs.lm.roles import ROLE_NAMES, RoleConfig, RoleName, Roles
from programs.weights import locate

_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
_RETRIES_AFTER_UNPARSABLE = 1
ATTEMPTS = 4


class UnparsableError(Exception):
    """The model's answers, first and repeated, could not be parsed. `answers` counts them."""

    def __init__(self, message: str, answers: int) -> None:
        super().__init__(message)
        self.answers = answers


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


class Backends:
    """The language models of all roles, built when first asked. Deep copies are the same object."""

    def __init__(self, roles: Roles, ledger: Ledger | None = None, prices: PriceTable | None = None) -> None:
        self.roles = roles
        self.ledger = ledger or Ledger()
        self.prices = prices or price_table()
        self._lms: dict[RoleName, RoleLM] = {}
        self._lock = threading.Lock()
        self._refuse_unpriced()

    def __deepcopy__(self, memo: dict[int, object]) -> Backends:
        return self

    def _refuse_unpriced(self) -> None:
        if self.ledger.budget.usd is None:
            return
        for role in ROLE_NAMES:
            config = self.roles.of(role)
            if not config.is_local and config.model not in self.prices.models:
                raise InputError(
                    f"a dollar budget cannot be kept: {role}'s model {config.model!r} has no known price "
                    "(limit calls with --max-calls, or add a price)"
                )

    def require(self, role: RoleName) -> None:
        """Refuse a role that cannot be asked, before anything is begun; starts and sends nothing.

        Raises:
            InputError: if its weights are missing or no GGUF file, its server's address is malformed, or its key
                is not set.
        """
        model_name(self.roles.of(role))
        _credentials(self.roles.of(role))

    def lm(self, role: RoleName) -> RoleLM:
        """The role's language model; starts the local engine if the role needs it."""
        with self._lock:
            if role not in self._lms:
                self._lms[role] = self._build(role, self.roles.of(role))
            return self._lms[role]

    def _build(self, role: RoleName, config: RoleConfig) -> RoleLM:
        connection = _connect(config)
        sampling = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
        return RoleLM(
            model_name(config),
            role,
            self.ledger,
            self.prices.models.get(config.model),
            timeout=config.timeout,
            **{key: value for key, value in sampling.items() if value is not None},
            **connection,
        )

    def adapter_for(self, role: RoleName, predictor: dspy.Predict) -> dspy.Adapter:
        """The role's adapter; a lone `rating` is always a bare label, because its probabilities are read."""
        if list(predictor.signature.output_fields) == ["rating"]:
            return RatingAdapter()
        return build_adapter(self.roles.of(role).adapter)

    def ask(
        self,
        role: RoleName,
        predictor: dspy.Predict,
        rollout: int | None = None,
        enough: int | None = None,
        **inputs: Any,
    ) -> dspy.Prediction:
        """Ask `predictor`'s question in a role.

        Args:
            enough: Tokens any valid answer fits in; the cap of a terse role.
            rollout: Distinguishes otherwise equal questions whose answers should be drawn anew (k samples).

        Returns:
            The prediction; `unparsable` on it counts answers that were thrown away before it.

        Raises:
            UnparsableError: if the repeated answer cannot be parsed either.
            InputError: if the backend has no key or refuses it.
        """
        adapter = self.adapter_for(role, predictor)
        config: dict[str, Any] = {} if rollout is None else {"rollout_id": rollout}
        if self.roles.of(role).terse and enough is not None:
            config["max_tokens"] = min(enough, self.roles.of(role).max_tokens)
        # A reasoning model has no log-probabilities to read, and needs its tokens to think.
        if isinstance(adapter, RatingAdapter) and self.roles.of(role).logprobs:
            config |= {"max_tokens": 4, "logprobs": True, "top_logprobs": 20}
        for attempt in range(_RETRIES_AFTER_UNPARSABLE + 1):
            if attempt:
                # The same greedy question would bring the same answer back.
                config["rollout_id"] = 1000 * attempt + (rollout or 0)
                if self.roles.of(role).temperature is not None:
                    config["temperature"] = 0.7
            try:
                with dspy.context(adapter=adapter):
                    prediction = predictor(**inputs, lm=self.lm(role), config=config)
            except AdapterParseError as error:
                last = error
                continue
            except (LMConfigurationError, LMAuthError, LMBillingError, LMUnsupportedModelError) as error:
                raise InputError(f"{role}: {self.roles.of(role).model}: {error}") from error
            prediction.unparsable = attempt
            return prediction
        answers = _RETRIES_AFTER_UNPARSABLE + 1
        raise UnparsableError(f"{role}: {answers} answers could not be parsed; the last: {last}", answers)


def model_name(config: RoleConfig) -> str:
    """The model string DSPy gets: `provider/model`, the same wherever a file lies or a server's port is.

    DSPy's cache key leaves the address out, so for servers and files the provider part stands for it.

    Raises:
        InputError: if the weights are missing or the server's address is malformed.
    """
    if config.is_local:
        identity = gguf_identity(_weights_of(config.model))
        return f"gguf-{identity[-8:]}/{identity}"
    if config.model.startswith(("http://", "https://")):
        url, _, name = config.model.partition("#")
        if not name or not urlsplit(url).netloc:
            raise InputError(f"model {config.model!r}: write an OpenAI-compatible server as http://host:port/v1#model")
        return f"server-{hashlib.sha256(url.encode()).hexdigest()[:8]}/{name}"
    return config.model


def _connect(config: RoleConfig) -> dict[str, Any]:
    """Start or register what answers for `model_name(config)`; the connection settings for `dspy.LM`."""
    name = model_name(config)
    if config.is_local:
        _register(name.split("/")[0], ENGINE.serve(_weights_of(config.model)))
    elif name != config.model:
        _register(name.split("/")[0], config.model.partition("#")[0])
    return _credentials(config)


def _credentials(config: RoleConfig) -> dict[str, str]:
    """The key for `dspy.LM`, where the model wants one; servers and files have no provider to name a variable."""
    variable = config.api_key_env or _KEYS.get(config.model.split("/")[0])
    return {"api_key": _key(variable, config.model)} if variable else {}


def _weights_of(model: str) -> Path:
    if model.startswith("gguf:"):
        return Path(model.removeprefix("gguf:")).expanduser()
    name = model.removeprefix("local/")
    found = locate(name)
    if found is None:
        raise InputError(f"the weights of {name!r} are not here yet: run `mllm3rec models fetch {name}`")
    return next(path for path in found.values() if path.suffix == ".gguf")


def _register(provider: str, base_url: str) -> None:
    register_provider(
        ProviderDefinition.chat(
            AccessPolicy(provider=provider, base_url=base_url),
            compat=OpenAIChatCompat.preset("lmstudio"),
            placeholder_key="none",
        ),
        supports=ModelSupport(response_schema=True, function_calling=False, reasoning=False),
        replace=True,
    )


def _key(variable: str, model: str) -> str:
    key = os.environ.get(variable)
    if not key:
        raise InputError(f"{model} needs a key: set the environment variable {variable}")
    return key
