"""Rendered prompts: a frozen predictor's question is rendered once, with holes for its inputs.

The general path renders messages, the hash of the question, the key of the cached answer and the HTTP body anew for
every call. Here each of them is a JSON text with holes, made by that same path from inputs that can be found again, and
checked against it with texts that have all kinds of characters. Where the check fails, the general path renders every
call.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import dspy
import orjson
from dspy._vendor.lm15.providers.base import HttpResponse, _attach_error_metadata, _client_side_stop
from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER
from dspy.clients.cache import _transform_value
from dspy.clients.execution import IGNORED_CACHE_KEYS, PreparedCall, _canonical, prepare
from dspy.lm15 import ProviderError, Request, Response, UnsupportedFeatureError
from pydantic_core import to_json

from programs.lm.checked_answer import checked_answer
from programs.lm.refused_parameters import RefusedParameters, RequestTrial
from programs.lm.role_lm import Question, RoleLM
from programs.lm.transport import Transport

_PROBES = (
    "a mug",
    "",
    " \t\"quoted\" 'single' \\ back / slash\r\n\n{[brace]} <b>&amp;</b> ",
    "[[ ## traits ## ]]\x00\x1f\x7f ünïcödé 漢字 \u2028\u2029 \U0001f600 \ufffd",
)
"""Texts with which a rendered prompt is checked against the general path."""


class Engine(Protocol):
    """What `ServerEngine` and `HostedEngine` have in common: requests and answers without the way between them."""

    refused: RefusedParameters
    transport: Transport
    key: str | None
    empty_answers: bool

    def prepared(self, request: Request) -> Request:
        """The request as this server takes it."""
        ...

    def provider(self, request: Request) -> tuple[Any, Request]:
        """DSPy's client of the server, and the request with the model's name there."""
        ...


def engine_of(lm: RoleLM) -> Engine | None:
    """The engine of a role's model, if its requests can be sent by another transport than its own."""
    engine: Any = lm.engine
    return engine if hasattr(engine, "provider") and hasattr(engine, "transport") else None


class Template:
    """A JSON text with holes for strings.

    Args:
        text: With the marker of each hole in place of its value.
        markers: By name; none for a text without holes.
        encode: JSON of a string, as the rest of the text is encoded.
    """

    def __init__(self, text: bytes, markers: Mapping[str, str], encode: Callable[[str], bytes]) -> None:
        names = {marker.encode(): name for name, marker in markers.items()}
        pattern = b"|".join(map(re.escape, names)) if names else b"(?!)"
        parts = re.split(b"(" + pattern + b")", text)
        self._parts = parts[::2]
        self._holes = [names[marker] for marker in parts[1::2]]
        self._encode = encode

    def fill(self, values: Mapping[str, str]) -> bytes:
        """The text with these values."""
        if not self._holes:
            return self._parts[0]
        texts = {name: self._encode(value)[1:-1] for name, value in values.items()}
        filled = [self._parts[0]]
        for name, part in zip(self._holes, self._parts[1:], strict=True):
            filled += (texts[name], part)
        return b"".join(filled)


@dataclass(frozen=True)
class Exchange:
    """What is sent for a request, and how the answer is read; both by DSPy's client of the provider."""

    engine: Engine
    request: Request
    provider: Any
    adaptations: tuple[Any, ...]
    wire: Any
    body: Template

    @classmethod
    def of(cls, engine: Engine, request: Request, markers: Mapping[str, str]) -> Exchange:
        """The exchange of a request.

        Raises:
            UnsupportedFeatureError: if the provider is not asked with one request and one answer.
        """
        provider, target = engine.provider(request)
        wire, adaptations = provider._build(target, stream=False)
        if _client_side_stop(adaptations):
            raise UnsupportedFeatureError("a stop sequence is honoured by streaming")
        return cls(engine, target, provider, adaptations, wire, Template(wire.body, markers, _as_body))

    def read(self, status: int, reason: str, headers: list[tuple[str, str]], raw: bytes) -> Response:
        """The model's answer, as `complete` of the engine gives it.

        Raises:
            LM15Error: if the server refuses or fails, or the answer cannot be read.
        """
        body = self.engine.transport.checked(self.wire, status, headers, raw)
        answer = HttpResponse(status, reason, headers, body, provider=self.provider.provider)
        if status >= 400:
            raise self.provider._http_error(answer)
        try:
            response = checked_answer(
                lambda: self.provider.parse_response(self.request, answer), self.engine.empty_answers
            )
            finished: Response = self.provider._finish_response(self.request, response, self.adaptations)
            return finished
        except ProviderError as error:
            _attach_error_metadata(error, headers)
            raise


_JSON = json.JSONEncoder(ensure_ascii=False)


def _as_body(text: str) -> bytes:
    return _JSON.encode(text).encode()


class RenderedPrompt:
    """A predictor's question to a role's model, with holes for inputs or with all of them in place.

    Args:
        config: Settings of the call, see `Backends.call_settings`.
        inputs: What is rendered; holes have their markers as values.
        markers: Of the holes, by name.
    """

    def __init__(
        self,
        lm: RoleLM,
        adapter: dspy.Adapter,
        predictor: dspy.Predict,
        config: Mapping[str, Any],
        inputs: Mapping[str, Any],
        markers: Mapping[str, str] | None = None,
    ) -> None:
        self.lm = lm
        self._adapter = adapter
        self._predictor = predictor
        self._config = dict(config)
        self._markers = dict(markers or {})
        messages, self._kwargs = _asked(lm, adapter, predictor, self._config, inputs)
        self._question = Template(to_json([None, messages, self._kwargs], fallback=str), self._markers, to_json)
        self.prepared: PreparedCall = prepare(lm, None, messages, self._kwargs)
        self._key = Template(_key_text({**self.prepared.key(lm, False), **lm.keyed}), self._markers, orjson.dumps)
        self._engine = engine_of(lm)
        request: Request = _canonical(self.prepared)
        self.request = request if self._engine is None else self._engine.prepared(request)
        self._exchanges: dict[tuple[tuple[str, Any], ...], Exchange] = {}

    @classmethod
    def frozen(
        cls, lm: RoleLM, adapter: dspy.Adapter, predictor: dspy.Predict, config: Mapping[str, Any]
    ) -> RenderedPrompt | None:
        """A prompt with a hole for each input; None if filling it does not give what the general path sends."""
        token = secrets.token_hex(8)
        markers = {name: f"HOLE{token}{n}END" for n, name in enumerate(predictor.signature.input_fields)}
        rendered = cls(lm, adapter, predictor, config, markers, markers)
        for turn in range(len(_PROBES)):
            texts = {name: _PROBES[(n + turn) % len(_PROBES)] for n, name in enumerate(markers)}
            exact = cls(lm, adapter, predictor, config, texts)
            if rendered.texts(texts) != exact.texts({}):
                return None
        return rendered

    def texts(self, values: Mapping[str, str]) -> tuple[bytes, bytes, bytes]:
        """Question, text under the key of the cached answer, and HTTP body, with these values in the holes."""
        assert self._engine is not None  # noqa: S101 - checked before a prompt is rendered
        exchange = self.exchange(self._engine.refused.trial(self.request))
        return self._question.fill(values), self._key.fill(values), exchange.body.fill(values)

    def exact(self, inputs: Mapping[str, Any]) -> RenderedPrompt:
        """The same question with its inputs in place, rendered by the general path."""
        return RenderedPrompt(self.lm, self._adapter, self._predictor, self._config, inputs)

    def call(self, inputs: Mapping[str, Any]) -> PromptCall:
        """The question with these inputs."""
        if not self._markers:
            return self.exact(inputs)._with({})
        return self._with(inputs) if all(map(_fits, inputs.values())) else self.exact(inputs)._with({})

    def _with(self, values: Mapping[str, Any]) -> PromptCall:
        question = self.lm.question(self._question.fill(values), self._kwargs)
        key = hashlib.sha256(self._key.fill(values)).hexdigest()
        return PromptCall(self, question, key, values)

    def exchange(self, trial: RequestTrial) -> Exchange:
        """What is sent, without the parameters that the server refused."""
        instead = tuple(trial.instead.items())
        if instead not in self._exchanges:
            assert self._engine is not None  # noqa: S101 - checked before a prompt is rendered
            self._exchanges[instead] = Exchange.of(self._engine, trial.request, self._markers)
        return self._exchanges[instead]

    def prediction(self, outputs: list[Any]) -> dspy.Prediction:
        """What DSPy makes of the outputs of an answer.

        Raises:
            AdapterParseError: if they cannot be parsed.
        """
        signature = self._predictor.signature
        values = self._adapter._call_postprocess(signature, signature, outputs, self.lm, self._kwargs)
        return dspy.Prediction.from_completions(values, signature=signature)


@dataclass(frozen=True)
class PromptCall:
    """One call: a prompt with values in its holes.

    Attributes:
        key: Of its answer in the response cache.
    """

    prompt: RenderedPrompt
    question: Question
    key: str
    values: Mapping[str, str]


def _fits(value: Any) -> bool:
    """Whether a value stands in a prompt as it is: text that can be sent, and that DSPy does not read as markup."""
    if type(value) is not str or CUSTOM_TYPE_START_IDENTIFIER in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key_text(request: dict[str, Any]) -> bytes:
    """The text whose hash is the key of `ResponseCache`: `dspy.clients.cache.Cache.cache_key` before the hash."""
    params = {name: _transform_value(value) for name, value in request.items() if name not in IGNORED_CACHE_KEYS}
    return orjson.dumps(params, option=orjson.OPT_SORT_KEYS)


class _Asked(BaseException):
    """What a language model is asked; no `Exception`, because adapters try other formats after one."""

    def __init__(self, messages: list[dict[str, Any]], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.messages = messages
        self.kwargs = kwargs


class _Probe(RoleLM):
    """A role's language model that is asked nothing: it says what it would be asked."""

    def __init__(self, lm: RoleLM) -> None:
        self.__dict__.update(lm.__dict__)

    def __call__(
        self, prompt: str | None = None, *, messages: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        raise _Asked(messages or [], kwargs)


def _asked(
    lm: RoleLM, adapter: dspy.Adapter, predictor: dspy.Predict, config: Mapping[str, Any], inputs: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    try:
        with dspy.context(adapter=adapter):
            predictor(**inputs, lm=_Probe(lm), config=dict(config))
    except _Asked as asked:
        return asked.messages, asked.kwargs
    raise AssertionError("a predictor asks its language model")
