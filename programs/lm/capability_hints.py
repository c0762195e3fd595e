"""What DSPy knows of a model's capabilities, which its adapters read."""

from __future__ import annotations

import dspy


class CapabilityHints:
    """The hints that DSPy's adapters read from an engine, as `dspy.LM` has them for a model.

    Attributes:
        supports_function_calling, supports_reasoning, supports_response_schema, supported_params: DSPy's hints.
    """

    def __init__(self, lm: dspy.LM) -> None:
        self.supports_function_calling = lm.supports_function_calling
        self.supports_reasoning = lm.supports_reasoning
        self.supports_response_schema = lm.supports_response_schema
        self.supported_params = lm.supported_params
