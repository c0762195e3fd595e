"""Adapters: what is read of an answer, whole, cut off or malformed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import example, given
from hypothesis import strategies as st

from programs.lm.adapters import (
    CachedParseAdapter,
    ChoiceAdapter,
    CompactAdapter,
    RatingAdapter,
    StrictAdapter,
    complete_elements,
)
from programs.lm.answer_text import answer_text
from programs.lm.logprobs import MARKUP
from signatures.mar import choose_candidate, rank_candidates, score_candidate
from signatures.mope import infer_motivations
from signatures.mote import DistillTraits
from signatures.schema import CONSUMER
from tests.support.backends import backends_on, rate
from tests.support.fake_server import FakeOpenAI, last_user

LABELS = ("1", "2", "3", "4", "5")


class TestRatingAdapter:
    signature = score_candidate("profile", "traits")

    @pytest.mark.parametrize(
        "text",
        [
            "4",
            " 4",
            "4.",
            "**4**",
            "4\n",
            '"4"',
            "`4`",
            "4 of 5",
            "4 - it lasts",
            "4/5",
            "4 / 5",
            "4, it lasts",
            "4\n\nBecause it saves time.",
            "Rating: 4",
            "**Rating:** 4",
            "rating 4",
            "4 of its traits",
            "4 stars",
            "4 stars out of 5",
            "4 (out of 5)",
            "4 on a scale of 5",
            "4 on a scale from 1 to 5",
        ],
    )
    def test_a_digit_is_read_however_it_is_dressed(self, text: str) -> None:
        assert RatingAdapter().parse(self.signature, text) == {"rating": "4"}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "0",
            "6",
            "45",
            "four",
            "-4",
            "10",
            "4.5",
            "4,5",
            "4-5",
            "4/10",
            "4 out of 10",
            "4 stars out of 10",
            "4 points of 100",
            "4 (of 10)",
            "4 on a scale of 1 to 10",
            "4 on a scale of 10",
            "40%",
            "Rating: 6",
            "Rating:",
            "Rated 4",
            "**",
            "٤",
        ],
    )
    def test_anything_else_is_no_rating(self, text: str) -> None:
        with pytest.raises(AdapterParseError):
            RatingAdapter().parse(self.signature, text)

    @given(st.one_of(st.text(), st.text("12345. *`\"'\n", max_size=6)))
    @example("\x00")
    @example("{}")
    def test_any_text_is_a_rating_or_a_parse_error(self, text: str) -> None:
        try:
            parsed = RatingAdapter().parse(self.signature, text)
        except AdapterParseError:
            return
        assert set(parsed) == {"rating"}
        assert parsed["rating"] in LABELS
        assert parsed["rating"] in text

    @given(st.text(MARKUP, max_size=4), st.sampled_from(LABELS), st.text(max_size=30))
    def test_a_label_and_a_full_stop_are_a_rating_whatever_follows(self, before: str, label: str, after: str) -> None:
        assert RatingAdapter().parse(self.signature, f"{before}{label}. {after}") == {"rating": label}

    def test_a_rating_is_a_bare_label_of_few_tokens_whatever_the_role_s_adapter(self, server: FakeOpenAI) -> None:
        rate(backends_on(server, adapter="json"))
        (body,) = server.bodies
        assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (4, True, 20)
        assert "response_format" not in body
        assert last_user(body).endswith("Rating:")

    def test_no_probabilities_are_asked_for_where_the_role_says_so(self, server: FakeOpenAI) -> None:
        rate(backends_on(server, logprobs=False))
        assert not server.bodies[0].get("logprobs")


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-9, 99), st.text(max_size=6), st.sampled_from(["3", "[1]", "strong"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["dimension", "description", "strength", "evidence"]), inner, max_size=4),
    ),
    max_leaves=6,
)


class TestChoiceAdapter:
    signature = choose_candidate("profile", "traits")

    @pytest.mark.parametrize("letter", ["A", "C", "I", "a", "i", "z"])
    @pytest.mark.parametrize(
        "dress", ["{}", " {}.", "**{}**", "Choice: {}", "{}: it is soft", "{}\nIt is soft", "{} - it is soft"]
    )
    def test_a_letter_is_read_however_it_is_dressed(self, letter: str, dress: str) -> None:
        assert ChoiceAdapter().parse(self.signature, dress.format(letter)) == {"choice": letter}

    def test_another_letter_than_a_word_may_begin_a_sentence(self) -> None:
        assert ChoiceAdapter().parse(self.signature, "B because it is soft") == {"choice": "B"}

    @pytest.mark.parametrize(
        "text",
        [
            "I would choose C",
            "I'd choose C",
            "I\u2019m for C",
            "A good choice is C",
            "A **good** choice is C",
            "A-line dresses",
            "a soft mug",
            "i think C",
            "Choice: I think C",
        ],
    )
    def test_an_article_or_a_pronoun_is_none(self, text: str) -> None:
        assert ChoiceAdapter().parse(self.signature, text) == {"choice": ""}


class TestCachedParsing:
    """An answer means what it means to DSPy, whoever reads it."""

    @given(
        st.dictionaries(st.sampled_from(["traits", "motivations", "ranking", "other"]), JSON, max_size=2),
        st.integers(0, 5),
    )
    @example({"ranking": [12, "34", 5.0]}, 0)
    @example({"ranking": "[12, 34]"}, 0)
    @example({"traits": ["easy to use", 3]}, 0)
    @example({"traits": ["\U00010000"]}, 4)  # cut inside the second half of a character
    def test_same_fields_or_the_same_refusal(self, answer: dict[str, Any], cut: int) -> None:
        text = answer_text(json.dumps(answer)[: -cut or None])
        for signature in (DistillTraits, infer_motivations(CONSUMER), rank_candidates("profile", "traits")):
            for adapter in (CompactAdapter(), StrictAdapter()):
                shown = complete_elements(text)
                assert self.read(adapter.parse, signature, text) == self.read(
                    super(CachedParseAdapter, adapter).parse, signature, shown
                )

    @staticmethod
    def read(parse: Callable[..., dict[str, Any]], signature: type[dspy.Signature], text: str) -> Any:
        try:
            return parse(signature, text)
        except AdapterParseError:
            return "unparsable"

    @pytest.mark.parametrize("adapter", [CompactAdapter(), StrictAdapter()])
    def test_a_valid_answer_is_read(self, adapter: CompactAdapter | StrictAdapter) -> None:
        assert self.read(adapter.parse, DistillTraits, '{"traits": ["easy to use"]}') == {"traits": ["easy to use"]}
        ranking = rank_candidates("profile", "traits")
        assert self.read(adapter.parse, ranking, '{"ranking": [12, "34"]}') == {"ranking": [12, 34]}

    def test_an_answer_in_a_fence_is_read(self) -> None:
        text = '```json\n{"traits": ["easy to use"]}\n```'
        assert StrictAdapter().parse(DistillTraits, text) == {"traits": ["easy to use"]}


class TestTruncatedAnswers:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ('{"traits": ["light", "sturdy", "kind to', '{"traits": ["light", "sturdy"]}'),
            ('{"traits": ["light", "sturdy"', '{"traits": ["light", "sturdy"]}'),
            ('{"traits": ["light", "sturdy", ', '{"traits": ["light", "sturdy"]}'),
            ('{"traits": ["a, [b", "say \\"c', '{"traits": ["a, [b"]}'),
            ('{"ranking": [12, 34, 5', '{"ranking": [12, 34]}'),
            ('{"m": [{"d": "x", "e": [1]}, {"d": "y", "e": [1, 2', '{"m": [{"d": "x", "e": [1]}]}'),
            ('{"m": [{"d": "x", "e": [1]}', '{"m": [{"d": "x", "e": [1]}]}'),
            ('{"a": ["x"], "b": ["y", "z', '{"a": ["x"], "b": ["y"]}'),
            ('Sure!\n```json\n{"traits": ["light", "stur', '{"traits": ["light"]}'),
        ],
    )
    def test_the_unfinished_element_is_left_out_and_no_other(self, text: str, read: str) -> None:
        assert complete_elements(text) == read

    @pytest.mark.parametrize(
        "text",
        [
            '{"traits": ["light", "sturdy"]}',
            '```json\n{"traits": ["light", "sturdy"]}\n```',
            '{"traits": ["light", "sturdy"]} as asked [1, 2',
            '{"traits": ["lig',  # nothing complete in it
            '{"a": ["x", "y"], "b": ["half',
            '{"traits": ["light", "sturdy"], "why": "beca',
            '{"reason": "half a sentence',
            "[1, 2",
            "I cannot do that (see [1] or 2]",
            "",
        ],
    )
    def test_all_else_is_left_as_it_is(self, text: str) -> None:
        assert complete_elements(text) == text

    @given(st.text(alphabet='{}[]",\\a1 :', max_size=30))
    def test_any_text_is_taken(self, text: str) -> None:
        assert complete_elements(text).removesuffix("]}") in text

    @given(st.lists(JSON, min_size=1, max_size=4), st.integers(0, 200))
    def test_wherever_it_was_cut_off_it_keeps_the_elements_before(self, elements: list[Any], cut: int) -> None:
        whole = json.dumps({"list": elements})
        text = whole[: 1 + cut % (len(whole) - 2)]  # before the list is closed
        read = complete_elements(text)
        # What is certainly complete: the elements after which more text follows.
        ends = [len(json.dumps({"list": elements[:n]})) - 2 for n in range(1, len(elements) + 1)]
        complete = sum(end < len(text) for end in ends)
        if not complete:
            assert read == text or json.loads(read)["list"] == elements[:1]
        else:
            assert json.loads(read)["list"] in (elements[:complete], elements[: complete + 1])

    @pytest.mark.parametrize("piece", ["[", '{"a":', '[{"a":', '["x", ', '{"traits": ["x", ', '\\"', "{ "])
    def test_no_answer_is_too_long_or_too_deep(self, piece: str) -> None:
        for text in (piece * 20_000, '{"traits": ["' + piece * 20_000):
            assert complete_elements(text).removesuffix("]}") in text
            with suppress(AdapterParseError):
                assert set(CompactAdapter().parse(DistillTraits, text[:4000])) == {"traits"}
