"""Prompts of a program: the instructions and demos of its predictors. Compiling changes nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dspy
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from programs.program import MLLM3Rec
from programs.trait_filter import contains_instructions

Demo = dict[str, JsonValue]
"""One demo as plain data: inputs and outputs by field name."""


class Prompt(BaseModel):
    """The tunable part of one predictor's prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instructions: str
    demos: tuple[Demo, ...] = ()


Prompts = dict[str, Prompt]
"""By predictor name, as DSPy names it (`shopper.infer.predict`)."""

_PLAIN: TypeAdapter[Any] = TypeAdapter(Any)


def module_of(predictor: str, program: str) -> str | None:
    """The module of a predictor: `mope`, `mote`, or MAR under the name of its program.

    None for the predictors that explain, whose prompts are not compiled.

    >>> module_of("shopper.reassess.predict", "listwise"), module_of("aligner.rank.predict", "listwise")
    ('mope', 'listwise')
    """
    return {"shopper": "mope", "product": "mote", "aligner": program}.get(predictor.partition(".")[0])


def prompts_of(program: MLLM3Rec) -> Prompts:
    """The current prompts of a program."""
    return {
        name: Prompt(
            instructions=predictor.signature.instructions,
            demos=tuple(plain_demo(demo, predictor.signature) for demo in predictor.demos),
        )
        for name, predictor in program.named_predictors()
    }


def with_prompts(program: MLLM3Rec, prompts: Mapping[str, Prompt]) -> MLLM3Rec:
    """A copy of `program` with other prompts for the named predictors.

    Raises:
        KeyError: if the program has no predictor of that name.
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
    """A demo's fields as plain data, without log-probabilities and flags from a DSPy trace."""
    plain: Demo = _PLAIN.dump_python({name: demo[name] for name in signature.fields if name in demo}, mode="json")
    return plain


def safe(demos: Iterable[Demo]) -> list[Demo]:
    """The demos without prompt injections, because demos are part of every prompt."""
    return [demo for demo in demos if not any(map(contains_instructions, texts_in(demo)))]


def texts_in(value: JsonValue) -> Iterator[str]:
    """All texts inside a value of a demo."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_in(part)


def safe_prompts(prompts: Mapping[str, Prompt]) -> Prompts:
    """The prompts with `safe` demos only."""
    return {name: prompt.model_copy(update={"demos": tuple(safe(prompt.demos))}) for name, prompt in prompts.items()}


def fingerprint(prompts: Mapping[str, Prompt]) -> str:
    """Hash of prompts."""
    text = json.dumps({name: prompt.model_dump(mode="json") for name, prompt in prompts.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
