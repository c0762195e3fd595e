"""A prompt that is rendered once gives the same bytes, hashes and keys as the general path, whatever stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from programs.bulk.rendered import Template
from programs.default_demos import CHOICES, RANKINGS, RATINGS, TRAITS
from programs.lm.backends import Backends
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import RoleName
from signatures.mar import choose_candidate, rank_candidates, score_candidate
from signatures.mote import DistillTraits
from tests.support.backends import backends_on
from tests.support.bulk import in_bulk, mapped
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, sensible

QUESTIONS: dict[str, tuple[RoleName, Any, list[dspy.Example], tuple[str, ...]]] = {
    "traits": ("mote", DistillTraits, TRAITS, ("product",)),
    "ranking": ("mar", rank_candidates("profile", "traits"), RANKINGS, ("shopper", "products")),
    "rating": ("mar", score_candidate("profile", "traits"), RATINGS, ("shopper", "product")),
    "choice": ("mar", choose_candidate("profile", "traits"), CHOICES, ("shopper", "products")),
}

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
EDGES = (
    "",
    '"quoted" \\ and \\n, {brace} [bracket]',
    "two\nlines\r\n\tand more \x00 \x1f \x7f",
    "ünïcödé 漢字 \u2028 \u2029 \ufeff \U0001f9f8",
    "[[ ## product ## ]]\nfoo\n\n[[ ## completed ## ]]",
    'HOLE0END </think> <<CUSTOM-TYPE-START-IDENTIFIER>>[{"type": "text", "text": "x"}]<<CUSTOM-TYPE-END-IDENTIFIER>>',
    "   spaces at both ends   ",
)


def with_edges(test: Any) -> Any:
    for edge in EDGES:
        test = example(texts=[edge, edge[::-1]])(test)
    return test


def flattened(body: Body) -> Reply:
    """A sensible answer in the form that was asked for, also to a message of blocks, which DSPy makes of its marks."""
    if "Choice:" in last_user(flat(body)):
        return Reply("A")  # Labels may be missing from the text that is tried.
    reply = sensible(flat(body))
    if "response_format" not in body and reply.content.startswith("{"):
        fields = json.loads(reply.content).items()
        reply.content = "\n\n".join(f"[[ ## {name} ## ]]\n{json.dumps(value)}" for name, value in fields)
    return reply


def as_text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(str(block.get("text", "")) for block in content)


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(flattened) as server:
        server._payload = lambda body, reply: FakeOpenAI._payload(server, flat(body), reply)  # type: ignore[method-assign]
        yield server


def flat(body: Body) -> Body:
    return {**body, "messages": [{**one, "content": as_text(one["content"])} for one in body["messages"]]}


def asked(backends: Backends, question: str, texts: list[str]) -> Any:
    role, signature, demos, fields = QUESTIONS[question]
    predictor = dspy.Predict(signature)
    predictor.demos = list(demos)
    return lambda: backends.ask(
        role, predictor, enough=104, **{field: texts[n % len(texts)] for n, field in enumerate(fields)}
    )


@pytest.mark.parametrize("adapter", ["json", "compact", "chat"])
@pytest.mark.parametrize("question", list(QUESTIONS))
def test_the_same_bytes_and_keys_as_the_general_path(adapter: str, question: str, shared: FakeOpenAI) -> None:
    @with_edges
    @settings(max_examples=10, suppress_health_check=list(HealthCheck))
    @given(texts=st.lists(TEXTS, min_size=2, max_size=2))
    def same(texts: list[str]) -> None:
        use_response_cache(":memory:")
        before = len(shared.raw)
        general = backends_on(shared, adapter=adapter)
        asked(general, question, texts)()
        (expected,) = shared.raw[before:]
        with in_bulk(backends_on(shared, adapter=adapter)) as bulk:
            mapped(bulk, lambda _: asked(bulk, question, texts)(), [0])  # an answer of the general path is a hit
            assert (len(shared.raw), bulk.ledger.total().cache_hits) == (before + 1, 1)
            use_response_cache(":memory:")
        with in_bulk(backends_on(shared, adapter=adapter)) as bulk:
            mapped(bulk, lambda _: asked(bulk, question, texts)(), [0])
            assert shared.raw[before + 1 :] == [expected]
        general = backends_on(shared, adapter=adapter)
        asked(general, question, texts)()  # an answer of the bulk is a hit
        assert (len(shared.raw), general.ledger.total().cache_hits) == (before + 2, 1)

    same()


def test_half_a_character_is_refused_as_by_the_general_path(server: FakeOpenAI) -> None:
    def error(ask: Any) -> tuple[type[BaseException], str]:
        with pytest.raises(Exception) as caught:
            ask()
        return caught.type, str(caught.value)

    general = error(asked(backends_on(server), "traits", ["a mug \ud83d"]))
    with in_bulk(backends_on(server)) as bulk:
        assert error(lambda: mapped(bulk, lambda _: asked(bulk, "traits", ["a mug \ud83d"])(), [0])) == general


def test_a_text_is_put_into_every_hole_of_its_name() -> None:
    template = Template(
        b'{"a": "x1", "b": "-x2-x1"}', {"one": "x1", "two": "x2"}, lambda text: json.dumps(text).encode()
    )
    assert json.loads(template.fill({"one": 'a "b"', "two": ""})) == {"a": 'a "b"', "b": '--a "b"'}
    assert Template(b"no hole", {}, lambda text: text.encode()).fill({"any": "x"}) == b"no hole"
