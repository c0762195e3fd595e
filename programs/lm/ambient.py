"""Backends from DSPy's own settings: every role uses the model of `dspy.configure` or `dspy.context`."""

from __future__ import annotations

import threading
from typing import Any

import dspy

from programs.lm.backends import Backends
from programs.lm.decoding import decoding_policy
from programs.lm.endpoints import model_name
from programs.lm.given import with_address
from programs.lm.ledger import Ledger
from programs.lm.roles import GIVEN, RoleConfig, RoleName, Roles
from programs.lm.routes import Route
from programs.runtime.errors import InputError
from programs.runtime.events import ignore


class AmbientBackends(Backends):
    """The default backends of MOPE, MOTE and MAR.

    Calls go to `dspy.settings.lm` directly, with its own cache, retries and sampling, but without our rate limiter,
    response cache, prices and budget. Use `mllm3rec.program(...)` for those.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.on_event = ignore
        self.retry_unparsable = False
        self._thinking = set()
        self._told = set()
        self._lock = threading.Lock()
        self._refused_items = 0

    @property
    def roles(self) -> Roles:  # type: ignore[override]
        """Every role on the current model."""
        lm = self._current()
        names = {"temperature", "top_p", "max_tokens"} - decoding_policy(lm.model).keys()
        sampling = {name: lm.kwargs[name] for name in names if lm.kwargs.get(name) is not None}
        return Roles.all_on(RoleConfig(model=f"{GIVEN}{lm.model}", logprobs=False, **{"temperature": None, **sampling}))

    def require(self, role: RoleName) -> None:
        """Raise if no model is configured; see `Backends.require`."""
        self._current()

    def lm(self, role: RoleName) -> dspy.BaseLM:
        """The current model."""
        return self._current()

    def known_as(self, role: RoleName) -> str:
        """See `Backends.known_as`."""
        return with_address(model_name(self.roles.of(role)), self._current())

    def ask_route(self, role: str, config: RoleConfig, route: Route, **fields: Any) -> Any:
        """Refused: a `dspy.LM` has chat only."""
        raise InputError(
            f"{role}: the model of dspy.configure has no {route.path}; name a server, as in docs/models.md"
        )

    def adapter_for(self, role: RoleName, predictor: dspy.Predict) -> dspy.Adapter:
        """The adapter of DSPy's settings, else the one for hosted models."""
        adapter: dspy.Adapter | None = dspy.settings.adapter
        return super().adapter_for(role, predictor) if adapter is None else adapter

    @staticmethod
    def _current() -> dspy.BaseLM:
        lm: dspy.BaseLM | None = dspy.settings.lm
        if lm is None:
            raise InputError(
                "no language model: call dspy.configure(lm=dspy.LM(...)) first, or build the program with "
                "mllm3rec.program(..., model=...)"
            )
        return lm
