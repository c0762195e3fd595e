"""Motivational schemas, and what is refused in one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from signatures.schema import CONSUMER, Dimension, MotivationSchema
from tests.support.schemas import FILMS


class TestSchema:
    def test_the_default_has_motives_of_all_three_kinds(self) -> None:
        assert len(CONSUMER.names) == len(set(CONSUMER.names)) == 11
        assert {d.kind for d in CONSUMER.dimensions} == {"functional", "emotional", "ethical"}

    def test_the_glossary_is_one_line_a_dimension_in_order(self) -> None:
        assert FILMS.glossary() == (
            "- suspense: wants to be kept in the dark and on edge\n- insight: wants to understand people and times"
        )

    @pytest.mark.parametrize("name", ["Suspense", "x", "with space", "digit1", "_lead", "a" * 41, "", 'quo"te', "a\nb"])
    def test_a_malformed_name_is_refused_by_name(self, name: str) -> None:
        with pytest.raises(ValidationError, match="use 2 to 40 lower-case letters"):
            Dimension(name=name, definition="anything", kind="emotional")

    @pytest.mark.parametrize("definition", ["", "x" * 161, "two\nlines"])
    def test_a_definition_is_one_short_line(self, definition: str) -> None:
        with pytest.raises(ValidationError, match="definition"):
            Dimension(name="suspense", definition=definition, kind="emotional")

    def test_a_kind_outside_the_paper_s_three_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="kind"):
            Dimension.model_validate({"name": "suspense", "definition": "thrills", "kind": "spiritual"})

    def test_a_dimension_defined_twice_is_named(self) -> None:
        with pytest.raises(ValidationError, match="schema 'films': dimension defined twice: suspense"):
            MotivationSchema(name="films", dimensions=(*FILMS.dimensions, FILMS.dimensions[0]))

    def test_one_dimension_makes_no_schema(self) -> None:
        with pytest.raises(ValidationError, match="at least 2 items"):
            MotivationSchema(name="films", dimensions=FILMS.dimensions[:1])
