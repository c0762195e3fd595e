"""The expected label, from the probabilities of tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from programs.lm.logprobs import expected_label, label_logprobs

LABELS = ("1", "2", "3", "4", "5")


class TestExpectedLabel:
    @staticmethod
    def at(token: str, *top: tuple[str, float]) -> dict[str, Any]:
        return {"token": token, "top_logprobs": [{"token": t, "logprob": p} for t, p in top]}

    def test_by_hand(self) -> None:
        # (2 * 0.1 + 4 * 0.5 + 5 * 0.2) / 0.8 = 4.0; "ok" is no label and is left out.
        top = [("4", math.log(0.5)), ("5", math.log(0.2)), ("2", math.log(0.1)), ("ok", math.log(0.15))]
        assert expected_label({"content": [self.at("4", *top)]}, LABELS) == pytest.approx(4.0)

    def test_spellings_of_one_label_add_up(self) -> None:
        # (4 * (0.3 + 0.3) + 1 * 0.2) / 0.8 = 3.25
        top = [("4", math.log(0.3)), (" 4", math.log(0.3)), ("1", math.log(0.2))]
        assert expected_label({"content": [self.at(" 4", *top)]}, LABELS) == pytest.approx(3.25)

    def test_white_space_before_the_label_is_skipped(self) -> None:
        content = [self.at("\n", ("\n", 0.0)), self.at(" ", ("1", 0.0)), self.at("3", ("3", 0.0))]
        assert expected_label({"content": content}, LABELS) == 3.0

    @pytest.mark.parametrize("before", [["Rating", ":"], ["R", "ating:"], ["**", "rating", ":**"], ["**"], ['"']])
    def test_markup_and_the_field_s_name_before_the_label_are_skipped(self, before: list[str]) -> None:
        content = [self.at(text, ("1", 0.0)) for text in before] + [self.at(" 4", (" 4", math.log(0.5)))]
        assert expected_label({"content": content}, LABELS) == 4.0

    @pytest.mark.parametrize(
        "logprob", [math.nan, -math.inf, math.inf, pytest.param(-(10**400), id="400 digits"), None]
    )
    def test_a_probability_that_is_none_is_left_out(self, logprob: Any) -> None:
        top = [("5", logprob), ("2", math.log(0.25))]
        assert expected_label({"content": [self.at("2", *top)]}, LABELS) == pytest.approx(2.0)

    @pytest.mark.parametrize(
        "logprobs",
        [
            None,
            {},
            {"content": None},
            {"content": []},
            {"content": [{"token": "4"}]},
            {"content": [{"token": "4", "top_logprobs": None}]},
            {"content": [{"token": "4", "top_logprobs": [{"token": "ok", "logprob": -0.1}]}]},
            {"content": [{"token": "4", "top_logprobs": [{"token": "4", "logprob": -math.inf}]}]},
            {"content": [{"token": "The", "top_logprobs": [{"token": "4", "logprob": -0.1}]}]},
            {"content": [{"token": " ", "top_logprobs": []}]},
        ],
    )
    def test_without_label_probabilities_there_is_no_expectation(self, logprobs: dict[str, Any] | None) -> None:
        assert expected_label(logprobs, LABELS) is None

    @given(st.lists(st.tuples(st.sampled_from([*LABELS, " 1", "x"]), st.floats(-40, 0)), max_size=8))
    def test_it_stays_within_the_labels(self, top: list[tuple[str, float]]) -> None:
        found = expected_label({"content": [self.at("3", *top)]}, LABELS)
        assert (found is None) == all(token == "x" for token, _ in top)
        assert found is None or 1 - 1e-9 <= found <= 5 + 1e-9


class TestLabelLogprobs:
    at = staticmethod(TestExpectedLabel.at)
    letters = "ABCDEFGHIJ"

    def test_where_the_answer_names_one(self) -> None:
        content = [self.at("Choice", ("A", -9.0)), self.at(":", ("A", -9.0)), self.at(" I", (" I", -0.5), ("C", -2.0))]
        for after in ([], [self.at(".")], [self.at("\n"), self.at("It")], [self.at(":"), self.at(" soft")]):
            assert label_logprobs({"content": content + after}, self.letters) == ({"I": -0.5, "C": -2.0}, -2.0)

    @pytest.mark.parametrize("after", [[" would", " choose"], ["'d", " choose"], [" ", "would"]])
    def test_a_word_is_no_label_and_the_others_are_read_in_its_place(self, after: list[str]) -> None:
        first = self.at("I", ("I", -0.25), ("The", -3.0), ("C", -6.0))
        content = [first, *map(self.at, after)]
        assert label_logprobs({"content": content}, self.letters) == ({"C": -6.0}, -6.0)
        assert label_logprobs({"content": content}, "I") is None
