"""The whole path with the embedded language model. Needs `mllm3rec models fetch smollm2-135m`; run with -m llm."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.cases import draw_lists
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import split_dataset
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger, read_calls
from programs.lm.llama_cpp import ENGINE
from programs.lm.roles import local_roles
from programs.mope import MOPE
from programs.mote import MOTE
from programs.prior.scorers import Popularity, histories_of
from programs.program import Fusion, Parts, first_token, listwise, pointwise
from programs.runtime.weights import locate
from programs.seller_text import prompt_line
from programs.trait_store import TraitStore
from signatures.rows import Case, Status
from signatures.schema import CONSUMER, MotivationSchema
from tests.support.encoders import LetterEncoder

pytestmark = pytest.mark.llm


@pytest.fixture(scope="module")
def weights() -> Path:
    found = locate("smollm2-135m")
    if found is None:
        pytest.fail("run `mllm3rec models fetch smollm2-135m` first")
    return next(iter(found.values()))


@pytest.fixture
def backends(weights: Path, tmp_path: Path) -> Backends:
    return Backends(local_roles(), Ledger(tmp_path / "ledger.jsonl"))


def demo_protocol() -> EvaluationProtocol:
    sha256 = demo_dataset().sha256
    return EvaluationProtocol(dataset="demo", source="demo", dataset_sha256=sha256, part="test", users=1, negatives=7)


def first_case() -> Case:
    return draw_lists(demo_dataset(), demo_protocol())[0].blinded()


def parts(backends: Backends, fusion: Fusion | None = None, explain: int = 0) -> Parts:
    dataset = demo_dataset()
    return Parts(
        backends=backends,
        catalogue=dataset.items,
        prior=Popularity.fit(histories_of(split_dataset(dataset, demo_protocol()).training)),
        encoder=LetterEncoder(),
        traits=TraitStore(),
        fusion=fusion or Fusion(),
        explain=explain,
    )


def test_the_engine_answers_this_process_only(weights: Path) -> None:
    url, key = ENGINE.serve(weights)
    address = urlsplit(url)
    assert address.hostname == "127.0.0.1"
    assert ENGINE.serve(weights) == (url, key), "a second role gets the same server"
    with socket.create_connection(("127.0.0.1", address.port or 0), timeout=5):
        pass
    page = Request(f"{url}/models", headers={"Origin": "http://evil.example"})  # noqa: S310 - loopback
    with pytest.raises(HTTPError, match="401"):
        urlopen(page)  # noqa: S310
    page.add_header("Authorization", f"Bearer {key}")
    with urlopen(page) as answer:  # noqa: S310
        assert answer.headers.get("Access-Control-Allow-Origin") not in ("*", "http://evil.example")


def test_a_deterministic_engine_answers_alike_whatever_was_asked_before(weights: Path) -> None:
    """Ten prompts that share prefixes of other lengths, twice in different orders: equal bytes."""
    titles = [item.title for item in demo_dataset().items.values()]
    prompts = ["Bought: " + ", ".join(titles[: 3 * n + 1]) + ". Name what this person wants." for n in range(10)]
    system = "You are a careful assistant of a store. Describe what a product is good for in short phrases. " * 10
    url, key = ENGINE.serve(weights, deterministic=True)
    assert ENGINE.serve(weights)[0] != url, "another server than the fast one"

    def ask(prompt: str) -> tuple[str, str]:
        body = {
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}],
            "max_tokens": 40,
            "temperature": 0,
            "logprobs": True,
        }
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with urlopen(Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)) as answer:  # noqa: S310
            choice = json.load(answer)["choices"][0]
        return choice["message"]["content"], json.dumps(choice["logprobs"]["content"])

    first = {prompt: ask(prompt) for prompt in prompts}
    second = {prompt: ask(prompt) for prompt in random.Random(5).sample(prompts, 10)}
    assert first == second


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_a_control_token_in_seller_text_is_plain_text(weights: Path, token: str) -> None:
    url, key = ENGINE.serve(weights)

    def tokens(text: str) -> int:
        body = json.dumps({"content": text, "parse_special": True}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with urlopen(Request(f"{url.removesuffix('/v1')}/tokenize", body, headers)) as answer:  # noqa: S310
            return len(json.load(answer)["tokens"])

    assert tokens(token) == 1
    assert tokens(prompt_line(token, 100)) > 3


def test_a_profile_cannot_leave_its_schema(backends: Backends) -> None:
    """Two dimensions the model would never choose by itself: the grammar leaves it nothing else."""
    schema = MotivationSchema.model_validate(
        {
            "name": "odd",
            "dimensions": [
                {"name": "xylophone", "definition": "wants the first thing", "kind": "emotional"},
                {"name": "zeppelin", "definition": "wants the second thing", "kind": "ethical"},
            ],
        }
    )
    answer = MOPE(backends, schema, reflect=False).infer(shopper="nothing known", history="1. Camping mug")
    assert {draft.dimension for draft in answer.motivations} <= {"xylophone", "zeppelin"}
    assert 2 <= len(answer.motivations) <= 4


def test_traits_are_short_and_stored(backends: Backends) -> None:
    item = demo_dataset().items[first_case().candidates[0]]
    mote = MOTE(backends, TraitStore())
    first = mote(item=item)
    calls = backends.ledger.total().calls
    assert all(len(phrase.split()) <= 7 for phrase in first.traits.phrases)
    assert first.text
    assert mote(item=item).traits == first.traits
    assert backends.ledger.total().calls == calls


def test_pointwise_reads_probabilities_and_reuses_the_prompt(backends: Backends, tmp_path: Path) -> None:
    case = first_case()
    ranking = pointwise(parts(backends)).rank(case)
    assert ranking.status is Status.OK
    assert ranking.score_source == "logprobs"
    assert sorted(ranking.order) == sorted(case.candidates)
    assert len(set(ranking.scores["mar"])) > 1, "expected ratings do not tie"
    assert all(1 <= score <= 5 for score in ranking.scores["mar"])
    backends.ledger.close()
    mar = [call for call in read_calls(tmp_path / "ledger.jsonl") if call.role == "mar"]
    assert len(mar) == len(case.candidates)
    # Products this model cannot tell apart are one question, asked once; the first one fills the server's cache.
    later = [call for call in mar if not call.hit][1:]
    assert later
    assert sum(call.tokens_cached for call in later) > 0.7 * sum(call.tokens_in for call in later)


def test_every_label_has_a_log_probability(backends: Backends) -> None:
    ranking = first_token(parts(backends, Fusion(weight=1.0))).rank(first_case())
    assert ranking.status is Status.OK
    assert ranking.score_source == "logprobs"
    assert ranking.appended == 0
    assert len(ranking.by_position) == 8
    assert len(set(ranking.scores["mar"])) > 1


def test_listwise_with_reasons_ends_in_a_permutation(backends: Backends) -> None:
    case = first_case()
    ranking = listwise(parts(backends, Fusion(weight=1.0), explain=1)).rank(case)
    assert sorted(ranking.order) == sorted(case.candidates)
    assert ranking.rationales
    assert all(m.dimension in CONSUMER.names for m in (ranking.profile.motivations if ranking.profile else ()))
