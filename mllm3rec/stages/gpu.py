"""Traits of items by vLLM engines inside a Ray cluster, without a server: Ray Data's processor with our prompts.

    processor = gpu_processor(StageSettings(task="distill", model="http://vllm/v1#Qwen/Qwen3-8B"), workers=4)
    processor(ray.data.read_parquet("items.parquet")).write_parquet("traits")

The model is the one that a server would serve under that name, so an artifact that was compiled on `vllm serve` runs
here as it is. Only MOTE: a row of it is one question. No dollars, so neither ledger nor budget; a failed row is a row.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, Self

import orjson
from dspy.utils.exceptions import AdapterParseError

from mllm3rec.stages import columns
from mllm3rec.stages.settings import StageSettings
from mllm3rec.stages.stage import Stage
from programs.bulk.rendered import RenderedPrompt
from programs.lm.endpoints import is_server
from programs.mote import MOTE, item_text
from programs.runtime.errors import InputError, require_extra
from signatures.rows import Usage

_ERROR = "__inference_error__"
"""Ray's column of failed rows; empty in the others."""

_BATCH = 64


def gpu_processor(settings: StageSettings, workers: int = 1, **engine: Any) -> Any:
    """A processor of Ray Data that turns rows of `columns.ITEMS` into rows of `columns.TRAIT_ROWS`.

    Args:
        settings: Of a `distill` stage; the model string names a server's model.
        workers: Most engines, one GPU each unless `tensor_parallel_size` says more.
        engine: Arguments of vLLM's engine, such as `max_model_len` and `tensor_parallel_size`.

    Raises:
        InputError: if the settings are those of another stage.
        MissingExtraError: if Ray is not installed. vLLM itself is needed on the machines with GPUs: `ray[llm]`.
    """
    llm: Any = require_extra("ray.data.llm", "ray", "a job on GPUs")
    asked = GpuQuestions(settings)
    return llm.build_processor(
        processor_config(settings, workers, **engine), preprocess=asked.question, postprocess=asked.row
    )


def processor_config(settings: StageSettings, workers: int = 1, **engine: Any) -> Any:
    """Ray's configuration of the engines; see `gpu_processor`."""
    llm: Any = require_extra("ray.data.llm", "ray", "a job on GPUs")
    if settings.task != "distill":
        raise InputError(f"{settings.task}: only `distill` can run on GPUs of a cluster; start `vllm serve` for others")
    model = settings.roles.mote.model
    if not is_server(model):
        raise InputError(
            f"{model}: engines load open weights; name them as a server would, http://vllm/v1#Qwen/Qwen3-8B"
        )
    return llm.vLLMEngineProcessorConfig(
        model_source=model.partition("#")[2],
        engine_kwargs=engine,
        batch_size=_BATCH,
        concurrency=(1, workers) if workers > 1 else 1,
        should_continue_on_error=True,
    )


class GpuQuestions:
    """Questions for an engine, and rows from its answers; pickled, it is its settings.

    Args:
        settings: Of the stage.
    """

    def __init__(self, settings: StageSettings) -> None:
        self._settings = settings

    def __reduce__(self) -> tuple[type[Self], tuple[StageSettings]]:
        return type(self), (self._settings,)

    def question(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of an item with the messages and sampling settings that a server would get."""
        body = json.loads(self._prompt.texts({"product": item_text(columns.item_of(row))})[2])
        sampling = {name: body[name] for name in ("temperature", "top_p") if name in body}
        sampling["max_tokens"] = body.get("max_completion_tokens") or body["max_tokens"]
        if schema := body.get("response_format", {}).get("json_schema", {}).get("schema"):
            # As text: Arrow would give all objects of a schema the keys of each other.
            sampling["structured_outputs"] = {"json": orjson.dumps(schema).decode()}
        return {**row, "messages": body["messages"], "sampling_params": sampling}

    def row(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The output row of an engine's answer."""
        usage = Usage(
            calls=1,
            tokens_in=answer.get("num_input_tokens") or 0,
            tokens_out=answer.get("num_generated_tokens") or 0,
            seconds=answer.get("time_taken_llm") or 0.0,
        )
        known = {"item_id": answer["item_id"], "traits": None, "occasions": None, "users": None, "dropped": None}
        if error := answer.get(_ERROR):
            return {**known, **columns.outcome(usage, columns.FAILED, error)}
        try:
            prediction = self._prompt.prediction([{"text": answer["generated_text"]}])
        except AdapterParseError as problem:
            return {**known, **columns.outcome(usage, columns.UNPARSABLE, str(problem))}
        traits = self._mote.traits_of(columns.item_of(answer), prediction)
        lists = {name: list(getattr(traits, name)) for name in ("occasions", "users", "dropped")}
        return {**known, "traits": list(traits.phrases), **lists, **columns.outcome(usage)}

    @cached_property
    def _mote(self) -> MOTE:
        return Stage(self._settings).mote

    @cached_property
    def _prompt(self) -> RenderedPrompt:
        mote = self._mote
        backends, predictor = mote.backends, mote.distill.predict
        adapter = backends.adapter_for("mote", predictor)
        config = backends.call_settings("mote", adapter, None, mote.distill.enough)
        prompt = RenderedPrompt.frozen(backends.lm("mote"), adapter, predictor, config)
        if prompt is None:
            raise InputError(
                f"{self._settings.program}: its prompt cannot be rendered once; use a server (`vllm serve`)"
            )
        return prompt
