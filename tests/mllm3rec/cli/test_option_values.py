"""Values of options that are no numbers, or no finite ones, or far too large: refused in a line, nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from programs.runtime.errors import InputError
from tests.support.cases import cases_file
from tests.support.command_line import CommandLine, commands_in, run
from tests.support.fake_server import FakeOpenAI
from tests.support.served import freeze

HUGE = "9" * 5000
WORDS = ["nan", "inf", "-inf", "1e400", "-1", "²", "many", ""]

FLOATS = [
    ("evaluate", "--weight"),
    ("evaluate", "--budget-usd"),
    ("compile", "--ndcg"),
    ("compile", "--mar-ndcg"),
    ("compile", "--hit"),
    ("compile", "--coherence"),
    ("compile", "--weight"),
    ("compile", "--held-out"),
    ("compile", "--budget-usd"),
    ("compile", "--temperature"),
    ("distill", "--budget-usd"),
    ("compare", "--budget-usd"),
    ("study", "--budget-usd"),
    ("recommend", "--budget-usd"),
    *(
        (command, "--timeout")
        for command in ("evaluate", "compile", "distill", "compare", "study", "recommend", "attack")
    ),
    *((command, "--max-minutes") for command in ("evaluate", "compile", "distill", "compare", "study", "recommend")),
    ("attack", "--budget-usd"),
    ("recommend", "--weight"),
]
INTEGERS = [
    ("evaluate", "--head"),
    ("evaluate", "--workers"),
    ("evaluate", "--max-calls"),
    ("evaluate", "--explain"),
    ("evaluate", "--seed"),
    ("compile", "--trials"),
    ("compile", "--interactions"),
    ("compile", "--demo-sets"),
    ("compile", "--max-demos"),
    ("compile", "--wordings"),
    ("compile", "--seed"),
    ("cases", "--negatives"),
    ("cases", "--last"),
    ("cases", "--draw"),
    ("cases", "--users"),
    ("evaluate", "--max-tokens"),
    ("compile", "--max-tokens"),
    ("attack", "--max-tokens"),
    ("attack", "--workers"),
    ("recommend", "--k"),
    ("recommend", "--candidates"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, list[str]], FakeOpenAI]]:
    """The commands, and the server that must not be asked."""
    folder = tmp_path_factory.mktemp("options")
    dev, test = folder / "dev.jsonl", folder / "test.jsonl"
    cases_file(dev, 6)
    cases_file(test, 2, part="all")
    with FakeOpenAI() as server, commands_in(folder):
        model = server.model()
        grid, study = folder / "grid.toml", folder / "study.toml"
        grid.write_text(f'mope = ["a"]\nmote = ["a"]\nmar = ["a"]\n[backends.a]\nmodel = "{model}"\n')
        study.write_text(
            'name = "s"\n[[datasets]]\nname = "demo"\nsource = "demo"\n[[protocols]]\nname = "w"\nusers = 2\n'
            f'[[rankers]]\nranker = "prior"\n[[rankers]]\nranker = "listwise"\nmodel = "{model}"\n'
        )
        out = ["--out", str(folder / "out")]
        commands = {
            "evaluate": ["evaluate", str(test), "--ranker", "listwise", "--model", model, *out],
            "compile": ["compile", str(dev), "--model", model, *out],
            "distill": ["distill", str(test), "--mote", model],
            "compare": ["compare", str(test), "--grid", str(grid), *out],
            "study": ["study", "run", str(study), *out],
            "recommend": ["recommend", "demo", "--user", "S0001", "--model", model],
            "attack": ["attack", str(test), "--ranker", "listwise", "--model", model, *out],
            "cases": ["cases", "demo", *out],
        }
        yield commands, server


def refused(here: tuple[dict[str, list[str]], FakeOpenAI], command: str, option: str, value: str) -> str:
    """What is said when a command refuses a value; nothing is sent for it."""
    commands, server = here
    value = f"mar={value}" if option == "--temperature" else value
    ended = run(*commands[command], f"{option}={value}")
    assert isinstance(ended.exception, InputError | SystemExit), ended.exception
    if isinstance(ended.exception, SystemExit):
        assert ended.exit_code == 2
    assert not server.bodies
    return str(ended.exception) + ended.output


@pytest.mark.parametrize("value", WORDS)
@pytest.mark.parametrize(("command", "option"), FLOATS)
def test_a_share_or_a_budget_is_a_finite_number(
    here: tuple[dict[str, list[str]], FakeOpenAI], command: str, option: str, value: str
) -> None:
    refused(here, command, option, value)


@pytest.mark.parametrize("value", ["nan", "-1", "²", "1.5", "many", "", HUGE])
@pytest.mark.parametrize(("command", "option"), INTEGERS)
def test_a_count_is_a_whole_number(
    here: tuple[dict[str, list[str]], FakeOpenAI], command: str, option: str, value: str
) -> None:
    refused(here, command, option, value)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--interactions", "9" * 400, "interactions"),
        ("--trials", "9" * 400, "trials"),
        ("--max-demos", "9" * 400, "max_demos"),
        ("--seed", "9" * 400, "seed"),
        ("--ndcg", "nan", "ndcg"),
        ("--weight", "nan", "--weight"),
    ],
)
def test_the_option_is_named(here: tuple[dict[str, list[str]], FakeOpenAI], option: str, value: str, said: str) -> None:
    assert said in refused(here, "compile", option, value)


def test_an_objective_without_any_part_is_refused_in_words(
    here: tuple[dict[str, list[str]], FakeOpenAI], cli: CommandLine
) -> None:
    commands, server = here
    ended = cli(*commands["compile"], "--ndcg", "0", "--mar-ndcg", "0", "--hit", "0", "--coherence", "0")
    assert ended.code == 2
    assert "one of ndcg, mar, hit and coherence needs a weight above 0" in ended.err
    assert "Traceback" not in ended.err
    assert not server.bodies


def test_a_seed_that_no_library_takes_is_refused(tmp_path: Path, cli: CommandLine) -> None:
    cases_file(tmp_path / "test.jsonl", 2, part="all")
    with commands_in(tmp_path):
        ended = cli(
            "evaluate", tmp_path / "test.jsonl", "--ranker", "learned", "--seed", 2**31, "--out", tmp_path / "o"
        )
    assert ended.code == 2
    assert "seed 2147483648: give one from 0 to 2,147,483,647" in ended.err


def test_options_that_a_ranker_would_ignore_are_refused(tmp_path: Path, cli: CommandLine) -> None:
    cases, artifact = tmp_path / "cases.jsonl", tmp_path / "artifact"
    cases_file(cases, 2, part="test")
    freeze(artifact, "local/smollm2-135m")
    evaluate, others = ("evaluate", cases, "--out", tmp_path / "run", "--ranker"), ("--weight", "0.9")
    for command, what in (
        ((*evaluate, "popularity", "--model", "local/smollm2-135m"), "model (it asks no language model)"),
        ((*evaluate, "popularity", "--no-check"), "check (it asks no language model)"),
        ((*evaluate, artifact, *others), "weight (its own fusion weight is 0.3)"),
        ((*evaluate, artifact, "--preset", "hosted"), "preset (it has models of its own"),
        (("recommend", "demo", "--user", "S0001", "--ranker", artifact, *others), "weight (its own"),
        (("recommend", "demo", "--users", "2", "--ranker", artifact, *others), "weight (its own"),
        (("profile", "demo", "--ranker", artifact, "--preset", "hosted"), "preset (it has models of its own"),
        (("attack", cases, "--out", tmp_path / "run", "--ranker", artifact, *others), "weight (its own"),
        (("compile", cases, "--out", tmp_path / "c", "--program", artifact, "--preset", "hosted"), "preset (it has"),
        (("serve", artifact, "demo", *others), "weight (its own"),
    ):
        ended = cli(*command)
        assert ended.code == 2 and f"does not read {what}" in " ".join(ended.err.split()), command
    assert not (tmp_path / "run").exists()


def test_a_message_neither_floods_nor_controls_the_terminal(tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "\x1b[2Jcases.jsonl"
    path.write_text('{"format": "' + "\\u001b[31mred" * 1000 + '"}')
    ended = cli("evaluate", path, "--ranker", "prior", "--out", tmp_path / "o")
    assert ended.code == 2
    assert "\x1b[2J" not in ended.err and "\\x1b[2Jcases.jsonl:1: format " in ended.err
    assert len(ended.err) < len(str(path)) + 600


def test_a_file_name_that_is_no_text_is_shown_by_its_bytes(tmp_path: Path, cli: CommandLine) -> None:
    ended = cli("audit", f"{tmp_path}/caf\udce9.csv")
    assert ended.code == 2
    assert "caf\\udce9.csv: cannot be read: No such file" in ended.err
