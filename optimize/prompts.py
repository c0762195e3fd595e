"""What compiling may change of a program: the instructions and demonstrations of its predictors, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dspy
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from programs.mote import contains_instructions
from programs.program import MLLM3Rec

Demo = dict[str, JsonValue]
"""One worked example, inputs and outputs by field name, as plain data."""


class Prompt(BaseModel):
    """The tunable part of one predictor's prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instructions: str
    demos: tuple[Demo, ...] = ()


Prompts = dict[str, Prompt]
"""By predictor name, as DSPy names it (`shopper.infer.predict`)."""

_PLAIN: TypeAdapter[Any] = TypeAdapter(Any)


def module_of(predictor: str, family: str) -> str | None:
    """The module a predictor belongs to: `mope`, `mote`, or MAR under the name of its ranking family.

    None for the predictors that explain: their prompts are no matter of the ranking.

    >>> module_of("shopper.reassess.predict", "listwise"), module_of("aligner.rank.predict", "listwise")
    ('mope', 'listwise')
    """
    return {"shopper": "mope", "product": "mote", "aligner": family}.get(predictor.partition(".")[0])


def prompts_of(program: MLLM3Rec) -> Prompts:
    """The prompts a program has now; demonstrations as plain data."""
    return {
        name: Prompt(
            instructions=predictor.signature.instructions,
            demos=tuple(plain_demo(demo, predictor.signature) for demo in predictor.demos),
        )
        for name, predictor in program.named_predictors()
    }


def with_prompts(program: MLLM3Rec, prompts: Mapping[str, Prompt]) -> MLLM3Rec:
    """A copy of `program` with other prompts; predictors that are not named keep theirs.

    Raises:
        KeyError: if the program has no predictor of a name.
    """
    copy: MLLM3Rec = program.deepcopy()
    predictors = dict(copy.named_predictors())
    for name, prompt in prompts.items():
        predictor = predictors[name]
        predictor.signature = predictor.signature.with_instructions(prompt.instructions)
        inputs = list(predictor.signature.input_fields)
        predictor.demos = [dspy.Example(**demo).with_inputs(*inputs) for demo in prompt.demos]
    return copy


def plain_demo(demo: Mapping[str, Any], signature: type[dspy.Signature]) -> Demo:
    """A demonstration's fields as plain data, without what a trace carries along (log-probabilities, flags)."""
    plain: Demo = _PLAIN.dump_python({name: demo[name] for name in signature.fields if name in demo}, mode="json")
    return plain


def safe(demos: Iterable[Demo]) -> list[Demo]:
    """The demonstrations in which no text reads like an order to the model: they become part of every prompt."""
    return [demo for demo in demos if not any(map(contains_instructions, _texts(demo)))]


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def safe_prompts(prompts: Mapping[str, Prompt]) -> Prompts:
    """The prompts with `safe` demonstrations only."""
    return {name: prompt.model_copy(update={"demos": tuple(safe(prompt.demos))}) for name, prompt in prompts.items()}


def fingerprint(prompts: Mapping[str, Prompt]) -> str:
    """Equal for equal prompts, and only for them."""
    text = json.dumps({name: prompt.model_dump(mode="json") for name, prompt in prompts.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
