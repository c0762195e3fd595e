"""State of a compiled program, read from an untrusted artifact: instructions, demos and field descriptions only.

DSPy's `load_state` sets every key as an attribute of the predictor, so an untrusted artifact could send calls, with the
key, to another server. Therefore this module validates each key and applies the state with its own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from programs.program import MLLM3Rec
from programs.runtime.errors import InputError, input_error, quoted
from programs.runtime.untrusted import parse_untrusted_json, read_untrusted

REMEDY = "the artifact is damaged, compile it again"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FieldState(_Strict):
    """How one field of a signature is presented in the prompt."""

    prefix: str
    description: str


class SignatureState(_Strict):
    """The instruction of a predictor and its fields, in the signature's order."""

    instructions: str
    fields: list[FieldState]


class PredictorState(_Strict):
    """State of a compiled predictor.

    Attributes:
        demos: Worked examples, values by field name; `augmented` marks bootstrapped ones.
        traces, train, lm: Always empty; DSPy writes them.
    """

    demos: list[dict[str, JsonValue]]
    signature: SignatureState
    traces: list[JsonValue] = Field(default_factory=list, max_length=0)
    train: list[JsonValue] = Field(default_factory=list, max_length=0)
    lm: None = None


_STATES = TypeAdapter(dict[str, PredictorState])
_MARKERS = {"augmented"}


def read_state(path: Path) -> dict[str, PredictorState]:
    """The states in a `program.json`, by predictor.

    Raises:
        InputError: naming file and key, if there is other content than instructions, demos and field descriptions.
    """
    content = parse_untrusted_json(read_untrusted(path), path, REMEDY)
    try:
        return _STATES.validate_python(content)
    except ValidationError as error:
        raise input_error(path, error, "an artifact may hold instructions, demos and field descriptions only") from None


def apply_state(program: MLLM3Rec, states: Mapping[str, PredictorState], where: Path) -> None:
    """Give a program the instructions and demos of an artifact; predictors without a state stay as they are.

    Raises:
        InputError: if a state belongs to no predictor, or its fields or demos do not fit the signature.
    """
    predictors: dict[str, Any] = dict(program.named_predictors())
    for name, state in states.items():
        if name not in predictors:
            raise InputError(f"{where}: the program has no predictor {name[:60]!r}; {REMEDY}")
        signature = predictors[name].signature
        if len(state.signature.fields) != len(signature.fields):
            counts = f"{len(state.signature.fields)} fields, the signature has {len(signature.fields)}"
            raise InputError(f"{where}: {name}: {counts}; {REMEDY}")
        for number, demo in enumerate(state.demos):
            strange = sorted(demo.keys() - signature.fields.keys() - _MARKERS)
            if strange:
                raise InputError(f"{where}: {name}: demo {number} has the unknown field {strange[0][:60]!r}; {REMEDY}")
            wrong = [key for key, value in demo.items() if not _fits(value, signature.fields.get(key))]
            if wrong:
                raise InputError(
                    f"{where}: {name}: demo {number}: the value of {quoted(wrong[0])} has a wrong type; {REMEDY}"
                )
        # Instructions, prefixes and descriptions are all that a signature reads of its state.
        predictors[name].signature = signature.load_state(state.signature.model_dump())
        predictors[name].demos = [dict(demo) for demo in state.demos]


def _fits(value: JsonValue, field: FieldInfo | None) -> bool:
    """Whether a demo's value has the type of its field; a marker, which has none, is true or false."""
    expected: Any = bool if field is None else field.annotation
    try:
        TypeAdapter(expected).validate_python(value)
    except ValidationError:
        return False
    return True
