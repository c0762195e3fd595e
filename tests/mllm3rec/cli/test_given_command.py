"""The command in a report is the one that was given: quoted, with its options and negated flags, without defaults."""

from __future__ import annotations

import shlex

import pytest
import typer
from typer.testing import CliRunner

from mllm3rec.cli.options import given_command


@pytest.mark.parametrize(
    "words",
    [
        ["shop.jsonl"],
        ["my shop.jsonl", "--name", "a b", "--name", "c", "--count", "3"],
        ["shop.jsonl", "--no-check", "--loud"],
        ["shop.jsonl", "--check"],
    ],
)
def test_the_command_is_the_one_that_was_given(words: list[str]) -> None:
    app = typer.Typer()

    @app.command("rank")
    def rank(
        context: typer.Context,
        cases: str,
        name: list[str] = typer.Option([]),  # noqa: B008 - as typer takes it
        count: int = 1,
        check: bool = True,
        loud: bool = typer.Option(False, "--loud"),
    ) -> None:
        print(given_command(context))

    found = CliRunner().invoke(app, words, prog_name="rank", catch_exceptions=False)
    assert sorted(shlex.split(found.stdout)) == sorted(["mllm3rec", "rank", *words])
