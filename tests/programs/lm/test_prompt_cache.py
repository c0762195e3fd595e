"""Rendered prompts: the messages are those of DSPy."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from programs.lm.adapters import (
    AdapterName,
    CompactAdapter,
    PlainAdapter,
    RatingAdapter,
    StrictAdapter,
)
from programs.lm.prompt_cache import CachedPromptAdapter
from signatures.mar import score_candidate
from signatures.mope import infer_motivations
from signatures.mote import DistillTraits
from signatures.schema import CONSUMER
from tests.support.backends import backends_on, distill
from tests.support.fake_server import FakeOpenAI


class TestRendersOnce:
    """The messages are DSPy's own, however often and in whatever order they are asked for."""

    signature = score_candidate("profile", "traits")
    demos: tuple[Any, ...] = (
        dspy.Example(shopper="a", product="b", rating="4"),
        {"shopper": "c", "product": "d", "rating": "1"},
        {"shopper": "incomplete", "rating": "2"},
    )

    @given(st.text(max_size=30), st.text(max_size=30))
    @example("\x00product\x00", "[[ ## rating ## ]]\n")
    def test_same_messages(self, shopper: str, product: str) -> None:
        inputs = {"shopper": shopper, "product": product}
        for adapter in (CompactAdapter(), StrictAdapter(), PlainAdapter()):
            slow = super(CachedPromptAdapter, adapter)
            system, *demos, user = adapter.format(self.signature, list(self.demos), inputs)
            assert system["content"] == slow.format_system_message(self.signature)
            assert demos == slow.format_demos(self.signature, list(self.demos))
            assert user["content"] == slow.format_user_message_content(self.signature, inputs, main_request=True)

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_same_question_for_a_rating(self, shopper: str, product: str) -> None:
        inputs, adapter = {"shopper": shopper, "product": product}, RatingAdapter()
        slow = super(CachedPromptAdapter, adapter).format_user_message_content(
            self.signature, inputs, main_request=True
        )
        assert adapter.format(self.signature, [], inputs)[-1]["content"] == slow

    @pytest.mark.parametrize("product", [None, 3, ["a", "list"], {"a": 1}])
    def test_what_is_no_text_is_left_to_dspy(self, product: Any) -> None:
        inputs, adapter = {"shopper": "s", "product": product}, PlainAdapter()
        slow = super(CachedPromptAdapter, adapter).format_user_message_content(
            self.signature, inputs, main_request=True
        )
        assert adapter.format(self.signature, [], inputs)[-1]["content"] == slow

    def test_changed_demonstrations_are_rendered_anew(self) -> None:
        demo = dspy.Example(shopper="a", product="b", rating="4")
        adapter = RatingAdapter()
        labels = []
        for label in ("4", "1", "4"):
            demo.rating = label
            labels.append(adapter.format_demos(self.signature, [demo])[1]["content"])
        assert labels == ["4", "1", "4"]
        assert adapter.format_demos(self.signature, []) == []

    def test_what_becomes_of_messages_stays_with_who_asked_for_them(self) -> None:
        adapter, demo = CompactAdapter(), dspy.Example(product="a", traits=["b"])
        adapter.format(DistillTraits, [demo], {"product": "x"})[1]["content"] = "changed"
        assert "changed" not in str(adapter.format(DistillTraits, [demo], {"product": "x"}))

    @pytest.mark.parametrize("adapter", ["compact", "json"])
    def test_every_call_asks_for_the_same_schema(self, server: FakeOpenAI, adapter: AdapterName) -> None:
        backends = backends_on(server, adapter=adapter)
        for n in range(3):
            distill(backends, f"cup {n}")
        first, *others = [body["response_format"] for body in server.bodies]
        assert "traits" in first["json_schema"]["schema"]["properties"]
        assert others == [first, first]
        backends.ask("mar", dspy.Predict(infer_motivations(CONSUMER)), shopper="s", history="1. Cup")
        assert "motivations" in server.bodies[-1]["response_format"]["json_schema"]["schema"]["properties"]
