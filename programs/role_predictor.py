"""A DSPy predictor bound to a role: its language model is looked up when it is called, never stored in it."""

from __future__ import annotations

from typing import Any

import dspy

from programs.lm.ambient import AmbientBackends
from programs.lm.backends import Accept, Backends
from programs.lm.roles import RoleName


class RolePredictor(dspy.Module):
    """A predictor with the role whose language model answers it.

    Args:
        signature: Inputs, outputs and instruction.
        role: The role whose language model is called.
        backends: The language models by role; None uses the model of `dspy.configure`.
        enough: Tokens that any valid answer fits in.
        demos: Worked examples in the prompt of the uncompiled program.
    """

    def __init__(
        self,
        signature: type[dspy.Signature],
        role: RoleName,
        backends: Backends | None,
        enough: int,
        demos: list[dspy.Example] | None = None,
    ) -> None:
        super().__init__()
        self.role = role
        self.backends = AmbientBackends() if backends is None else backends
        self.enough = enough
        self.predict = dspy.Predict(signature)
        self.predict.demos = list(demos or [])

    def forward(
        self,
        rollout: int | None = None,
        enough: int | None = None,
        accept: Accept | None = None,
        **inputs: Any,
    ) -> dspy.Prediction:
        """Call the model; `enough` replaces the constructor's for this call. Raises: see `Backends.ask`."""
        return self.backends.ask(self.role, self.predict, rollout, enough or self.enough, accept, **inputs)
