"""Engines inside a cluster get the question that a server gets, and their answers are read alike; without a GPU."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

import mllm3rec as m3
from mllm3rec.stages import columns
from mllm3rec.stages.gpu import GpuQuestions, processor_config
from programs.runtime.errors import InputError
from tests.support.fake_server import FakeOpenAI, sensible


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    return [columns.item_row(item) for item in list(m3.load_dataset("demo").items.values())[:5]]


def test_same_question_and_same_row_as_with_a_server(server: FakeOpenAI, items: list[dict[str, Any]]) -> None:
    settings = m3.StageSettings(task="distill", model=server.model("Qwen/Qwen3-8B"))
    with m3.Stage(settings) as stage:
        expected = [row for batch in stage(columns.batches(items, columns.ITEMS, 5)) for row in batch.to_pylist()]
    questions = pickle.loads(pickle.dumps(GpuQuestions(settings)))  # noqa: S301
    bodies = {body["messages"][-1]["content"]: body for body in server.bodies}
    for item, row in zip(items, expected, strict=True):
        asked = questions.question(item)
        body = bodies[asked["messages"][-1]["content"]]
        sampling = asked["sampling_params"]
        assert asked["messages"] == body["messages"]
        assert (sampling["max_tokens"], sampling["temperature"]) == (body["max_tokens"], body["temperature"])
        assert json.loads(sampling["structured_outputs"]["json"]) == body["response_format"]["json_schema"]["schema"]
        tokens = {"num_input_tokens": 7, "num_generated_tokens": 3}
        made = questions.row({**asked, **tokens, "generated_text": sensible(body).content, "__inference_error__": ""})
        same = ("item_id", "traits", "occasions", "users", "dropped", "status", "calls")
        assert {name: made[name] for name in same} == {name: row[name] for name in same}
        assert (made.keys(), made["tokens_in"], made["tokens_out"]) == (row.keys(), 7, 3)


def test_failures_are_rows(server: FakeOpenAI, items: list[dict[str, Any]]) -> None:
    questions = GpuQuestions(m3.StageSettings(task="distill", model=server.model()))
    failed = questions.row({**items[0], "__inference_error__": "prompt too long"})
    unreadable = questions.row({**items[0], "generated_text": "no JSON at all", "__inference_error__": ""})
    assert (failed["status"], failed["error"], unreadable["status"]) == ("failed", "prompt too long", "unparsable")


def test_configuration_comes_from_the_role() -> None:
    pytest.importorskip("ray.data.llm")
    settings = m3.StageSettings(task="distill", model="http://vllm/v1#Qwen/Qwen3-8B")
    config = processor_config(settings, workers=4, max_model_len=4096)
    assert (config.model_source, config.concurrency, config.should_continue_on_error) == ("Qwen/Qwen3-8B", (1, 4), True)
    assert config.engine_kwargs["max_model_len"] == 4096
    with pytest.raises(InputError, match="only `distill`"):
        processor_config(settings.model_copy(update={"task": "profile"}))
    with pytest.raises(InputError, match="open weights"):
        processor_config(settings.model_copy(update={"model": "openai/gpt-6-luna"}))
