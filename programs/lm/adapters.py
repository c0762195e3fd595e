"""Adapters: render a signature as messages and parse an answer into fields; each role has one.

Another adapter makes other prompts, so the choice belongs to the role's configuration and is recorded with every
artifact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal, get_origin

import dspy
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.adapters.utils import serialize_for_json
from dspy.utils.exceptions import AdapterParseError
from pydantic import BaseModel, TypeAdapter

from programs.lm.answer_text import answer_text
from programs.lm.logprobs import MARKUP, begins_with_word
from programs.lm.prompt_cache import CachedPromptAdapter, cached_per_signature

AdapterName = Literal["json", "compact", "chat"]

LENIENT_CHARACTERS = 4000
"""Of an answer that is not valid JSON. Repairing one takes time that grows with the square of its length."""

_MOST_OBJECTS = 20
"""Places in an answer where a JSON object may begin."""


class CachedParseAdapter(CachedPromptAdapter):
    """Mixin to put before a JSON adapter: a valid answer is parsed with validators that are built once per signature.

    DSPy builds one for each field of every answer. Invalid answers are left to its lenient parser, a truncated one
    without the list element it was cut off in: it would read half a phrase as a whole one.
    """

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        validators = cached_per_signature(signature, "validators", lambda: _validators(signature))
        text = answer_text(completion)
        for answer in _json_objects(text):
            try:
                return {name: validator.validate_python(answer[name]) for name, validator in validators.items()}
            except (ValueError, LookupError):
                continue
        problem: Exception = ValueError(f"{len(text):,} characters that hold no JSON object with the fields asked for")
        if len(text) <= LENIENT_CHARACTERS:
            try:
                fields: dict[str, Any] = super().parse(signature, complete_elements(text))
                return fields
            except AdapterParseError:
                raise
            except (ValueError, RecursionError, OverflowError) as error:  # Nested too deep for DSPy's parser.
                problem = error
        raise AdapterParseError(
            adapter_name=type(self).__name__,
            signature=signature,
            lm_response=completion[:LENIENT_CHARACTERS],
            message=str(problem),
        ) from problem


def _json_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in an answer, in order: the whole answer, or those in a code fence or between sentences."""
    decoder = json.JSONDecoder()
    start = 0
    for _ in range(_MOST_OBJECTS):
        start = text.find("{", start)
        if start == -1:
            return
        try:
            answer, start = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start += 1
        else:
            yield answer


def _validators(signature: type[dspy.Signature]) -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(field.annotation) for name, field in signature.output_fields.items()}


class CompactAdapter(CachedParseAdapter, BAMLAdapter):
    """BAML-style schema (half the prompt of `JSONAdapter`) for models that run on the user's own machine.

    Three changes to its parent: the reminder after the inputs is one short line, because it is the part of the
    prompt that no prefix cache can serve; the answers of demos are written without line breaks, because the model
    imitates them and every space is a token; and the list bounds of an output field reach the server's grammar, so
    that a small model cannot repeat itself until its tokens run out.
    """

    def user_message_output_requirements(self, signature: type[dspy.Signature]) -> str:
        return f"Answer in JSON: {', '.join(signature.output_fields)}."

    def format_assistant_message_content(
        self, signature: type[dspy.Signature], outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        fields = {name: outputs.get(name, missing_field_message) for name in signature.output_fields}
        return json.dumps(serialize_for_json(fields), ensure_ascii=False)

    def _prepare_response_format(self, lm: Any, lm_kwargs: dict[str, Any], signature: type[dspy.Signature]) -> None:
        prepare = super()._prepare_response_format
        lm_kwargs |= cached_per_signature(
            signature, ("bounded", lm.model), lambda: self._bounded(_prepared(prepare, lm, signature), signature)
        )

    def _bounded(self, settings: dict[str, Any], signature: type[dspy.Signature]) -> dict[str, Any]:
        model = settings.get("response_format")
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return settings
        schema = model.model_json_schema()
        for name, field in signature.output_fields.items():
            if schema["properties"][name].get("type") == "array":
                for bound in field.metadata:
                    if (least := getattr(bound, "min_length", None)) is not None:
                        schema["properties"][name]["minItems"] = least
                    if (most := getattr(bound, "max_length", None)) is not None:
                        schema["properties"][name]["maxItems"] = most
        # Not the signature's name: DSPy renames signatures with new instructions, and equal calls would be paid twice.
        answer = {"name": "answer", "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": answer}}


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|["{}\[\],]', re.DOTALL)
"""Strings and punctuation of JSON; a lone quote is where a string was cut off."""


def complete_elements(completion: str) -> str:
    """A truncated JSON answer without the unfinished last element of the list it was cut off in.

    An answer that is complete, that was not cut off in a list of its top level, or that has no complete element in it
    is returned as it is. (Pydantic's partial JSON would not do: it reads half an object as a whole one.)

    >>> complete_elements('{"traits": ["easy to use", "sturdy every')
    '{"traits": ["easy to use"]}'
    >>> complete_elements('{"traits": ["easy to use"]} As asked.')
    '{"traits": ["easy to use"]} As asked.'
    """
    if (start := completion.find("{")) == -1:
        return completion
    end = _end_of_complete(completion, start, ["{", "["])
    return completion if end is None else f"{completion[start:end]}]}}"


def complete_section(completion: str, lists: Collection[str]) -> str:
    """The same for a truncated answer in sections (`[[ ## traits ## ]]`), of which the last is one of `lists`.

    >>> complete_section('[[ ## traits ## ]]' + chr(10) + '["easy to use", "sturdy every', ["traits"])
    '[[ ## traits ## ]]\\n["easy to use"]'
    """
    for last in [*_SECTION.finditer(completion)][-1:]:
        if last[1] in lists and last[2]:
            end = _end_of_complete(completion, last.end() - 1, ["["])
            return completion if end is None else f"{completion[:end]}]"
    return completion


_SECTION = re.compile(r"\[\[ ## (\w+) ## \]\]\s*(\[?)")
"""The name of a section, and the bracket of a list."""


def _end_of_complete(completion: str, start: int, inside: list[str]) -> int | None:
    """Where the last complete element of a list ends that was cut off; None if there is none.

    Args:
        start: Where the outermost bracket is.
        inside: The brackets that are open in the list.
    """
    brackets: list[str] = []
    end: int | None = None
    for token in _TOKEN.finditer(completion, start):
        match token[0]:
            case '"':
                break
            case "{" | "[":
                brackets.append(token[0])
            case "}" | "]":
                brackets.pop()
                if not brackets:
                    return None
        if brackets == inside:
            end = {"[": None, ",": token.start()}.get(token[0], token.end())
    return end if brackets[: len(inside)] == inside else None


class StrictAdapter(CachedParseAdapter, dspy.JSONAdapter):
    """DSPy's JSON adapter; the output schema, too, is made once."""

    def _prepare_response_format(self, lm: Any, lm_kwargs: dict[str, Any], signature: type[dspy.Signature]) -> None:
        prepare = super()._prepare_response_format
        lm_kwargs |= cached_per_signature(signature, ("strict", lm.model), lambda: _prepared(prepare, lm, signature))


def _prepared(prepare: Callable[..., None], lm: Any, signature: type[dspy.Signature]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    prepare(lm, settings, signature)
    return settings


class PlainAdapter(CachedPromptAdapter, dspy.ChatAdapter):
    """DSPy's chat adapter without its fallback to JSON: one question is one paid call."""

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        try:
            text = complete_section(answer_text(completion), _lists(signature))
            fields: dict[str, Any] = super().parse(signature, text)
        except (RecursionError, OverflowError) as error:  # Nested too deep for DSPy's parser.
            raise AdapterParseError(
                adapter_name=type(self).__name__,
                signature=signature,
                lm_response=completion[:LENIENT_CHARACTERS],
                message=str(error),
            ) from error
        return fields


def _lists(signature: type[dspy.Signature]) -> list[str]:
    return [name for name, field in signature.output_fields.items() if get_origin(field.annotation) is list]


_SCALE = r"(?:/|(?:out )?of|on a scale (?:of|from)(?:\s1\s?(?:to|-))?+)"
_END_OF_LABEL = rf"(?![\w%-]|[.,]\d|[\s(]*+(?:(?:star|point)s?\s)?{_SCALE}\s*(?!5\b)\d)"
"""Not the start of another number, of a range ("4-5") or of a share on another scale ("4/10", "4 stars out of 10")."""


class RatingAdapter(CachedPromptAdapter, dspy.ChatAdapter):
    """A bare label as the whole answer, so that a rating costs one token and its probabilities can be read.

    For signatures with one `Literal` output only. The prompt holds the instructions alone as system message;
    everything that differs between two candidates of one user comes last.
    """

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        fields = "\n".join(
            f"{name}: {field.json_schema_extra['desc']}" for name, field in signature.input_fields.items()
        )
        return f"{signature.instructions}\n\nYou read:\n{fields}"

    def user_message_output_requirements(self, signature: type[dspy.Signature]) -> str:
        (name,) = signature.output_fields
        return f"{name.capitalize()}:"

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        # Demos end with the same cue as the request: a bare label follows in both.
        return super().format_user_message_content(signature, inputs, prefix, suffix, main_request=True)

    def format_assistant_message_content(
        self, signature: type[dspy.Signature], outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        (name,) = signature.output_fields
        return str(outputs.get(name, missing_field_message))

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        (name,) = signature.output_fields
        labels = signature.output_fields[name].annotation.__args__
        # Possessive: a row of a million asterisks would take time that grows with the square of its length.
        pattern = rf"[{MARKUP}]*+(?:{name}[{MARKUP}]*+[:=]?[{MARKUP}]*+)?({'|'.join(labels)}){_END_OF_LABEL}"
        found = re.match(pattern, answer_text(completion), re.I)
        if found is None:
            raise AdapterParseError(
                adapter_name="RatingAdapter",
                signature=signature,
                lm_response=completion[:LENIENT_CHARACTERS],
                message=f"expected one of {', '.join(labels)}",
            )
        return {name: found[1]}


class ChoiceAdapter(RatingAdapter):
    """A bare letter as the whole answer; an answer without one is empty, because its log-probabilities may say more.

    The words "A" and "I" are no letters: "I would choose C" is an answer without one.
    """

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        (name,) = signature.output_fields
        pattern = rf"[{MARKUP}]*+(?:(?i:{name})[{MARKUP}]*+[:=]?[{MARKUP}]*+)?([A-Za-z])(?!\w)"
        text = answer_text(completion)
        found = re.match(pattern, text)
        return {name: "" if found is None or begins_with_word(text[found.start(1) :]) else found[1]}


_ADAPTERS: dict[AdapterName, dspy.Adapter] = {
    "json": StrictAdapter(),
    "compact": CompactAdapter(),
    "chat": PlainAdapter(),
}


def build_adapter(name: AdapterName) -> dspy.Adapter:
    """The adapter of that name; adapters hold no state."""
    return _ADAPTERS[name]
