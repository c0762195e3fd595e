"""Schemas read from YAML and TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs.runtime.config_file import load_schema
from programs.runtime.errors import InputError
from tests.support.schemas import FILMS

FILMS_YAML = """
name: films
dimensions:
  - name: suspense
    definition: wants to be kept in the dark and on edge
    kind: emotional
  - {name: insight, definition: wants to understand people and times, kind: functional}
"""
FILMS_TOML = """
name = "films"
[[dimensions]]
name = "suspense"
definition = "wants to be kept in the dark and on edge"
kind = "emotional"
[[dimensions]]
name = "insight"
definition = "wants to understand people and times"
kind = "functional"
"""


class TestSchemaFiles:
    @pytest.mark.parametrize(("suffix", "text"), [("yaml", FILMS_YAML), ("yml", FILMS_YAML), ("toml", FILMS_TOML)])
    def test_yaml_and_toml_say_the_same(self, tmp_path: Path, suffix: str, text: str) -> None:
        path = tmp_path / f"films.{suffix}"
        path.write_text(text, "utf-8")
        assert load_schema(path) == FILMS

    @pytest.mark.parametrize(
        ("suffix", "text", "said"),
        [
            ("yaml", FILMS_YAML.replace(", kind: functional", ""), "dimensions.1.kind: Field required"),
            ("yaml", FILMS_YAML.replace("kind: emotional", "kind: odd"), "dimensions.0.kind: Input should be"),
            ("toml", FILMS_TOML.replace('"insight"', '"In sight"'), "dimensions.1: dimension name 'In s"),
            ("toml", FILMS_TOML + 'weight = "2"\n', "dimensions.1.weight: Extra inputs"),
            ("yaml", FILMS_YAML.replace("name: films\n", ""), "name: Field required"),
            ("yaml", "name: films\n", "dimensions: Field required"),
            ("yaml", FILMS_YAML.replace("insight", "suspense"), "schema 'films': dimension def"),
            ("yaml", "- just\n- a list\n", "Input should be"),
            ("yaml", "", "Input should be"),
            ("yaml", "name: [unclosed", "not a readable schema"),
            ("toml", "name = ", "not a readable schema"),
        ],
    )
    def test_an_error_names_file_and_field(self, tmp_path: Path, suffix: str, text: str, said: str) -> None:
        path = tmp_path / f"films.{suffix}"
        path.write_text(text, "utf-8")
        with pytest.raises(InputError) as error:
            load_schema(path)
        assert str(error.value).startswith(f"{path}: {said}")

    def test_a_file_that_is_no_text_is_an_input_error(self, tmp_path: Path) -> None:
        path = tmp_path / "films.yaml"
        path.write_bytes(b"name: caf\xe9")
        with pytest.raises(InputError, match="not a readable schema"):
            load_schema(path)

    def test_a_missing_file_is_an_input_error_that_names_a_near_one(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"absent\.toml: No such file or directory$"):
            load_schema(tmp_path / "none" / "absent.toml")
        (tmp_path / "quick.toml").touch()
        with pytest.raises(InputError, match=r"quik\.toml: No such file or directory: did you mean 'quick\.toml'\?$"):
            load_schema(tmp_path / "quik.toml")
