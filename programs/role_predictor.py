"""A DSPy predictor bound to a role: its language model is looked up when it is called, never stored in it."""

from __future__ import annotations

from typing import Any

import dspy

from programs.lm.ambient import AmbientBackends
from programs.lm.backends import Backends
from programs.lm.roles import RoleName


class RolePredictor(dspy.Module):
    """A predictor and the role whose language model answers it.

    Args:
        signature: What is asked.
        role: Whose language model answers.
        backends: Where the language models are; None asks the model of `dspy.configure`.
        enough: Tokens any valid answer fits in.
        demos: Worked examples that stand in the prompt until a compiled program brings its own.
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

    def forward(self, rollout: int | None = None, enough: int | None = None, **inputs: Any) -> dspy.Prediction:
        """Ask; see `Backends.ask` for what is raised. `enough` replaces the constructor's for this question."""
        return self.backends.ask(self.role, self.predict, rollout, enough or self.enough, **inputs)
