"""Artifacts of strangers, hashes and seals in order: refused with a reason, or exactly the prompts they show."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mllm3rec.cli.main import app
from optimize.artifact import MANIFEST, PROGRAM, ArtifactManifest, render_prompts, restore_program
from programs.runtime.environment import variable
from programs.runtime.errors import InputError
from tests.support.fake_server import FakeOpenAI
from tests.support.paths import OLD_FILES
from tests.support.served import freeze

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A sound artifact, to be damaged."""
    return Path(shutil.copytree(OLD_FILES / "artifact", tmp_path / "artifact"))


def reseal(artifact: Path, change: Callable[[dict[str, Any]], object] | None = None) -> None:
    """Bring hashes and seal in order, as an attacker does, after a change of the manifest."""
    found = json.loads((artifact / MANIFEST).read_text("utf-8"))
    found["files"][PROGRAM] = hashlib.sha256((artifact / PROGRAM).read_bytes()).hexdigest()
    if change is not None:
        change(found)
    body = {key: value for key, value in found.items() if key != "sha256"}
    try:
        found = ArtifactManifest.model_validate(found).sealed().model_dump(mode="json")
    except ValueError:
        found["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (artifact / MANIFEST).write_text(json.dumps(found), "utf-8")


def with_state(artifact: Path, change: Change) -> None:
    """Change the state of every predictor, then reseal."""
    state = json.loads((artifact / PROGRAM).read_text("utf-8"))
    for predictor in state.values():
        change(predictor)
    (artifact / PROGRAM).write_text(json.dumps(state), "utf-8")
    reseal(artifact)


HOSTILE_STATES: dict[str, Change] = {
    "config with an address": lambda s: s.update(config={"api_base": "http://127.0.0.2:9/v1"}),
    "config with a key": lambda s: s.update(config={"api_key": "x"}),
    "a language model": lambda s: s.update(lm={"model": "openai/gpt-4o", "api_base": "http://127.0.0.2:9/v1"}),
    "callbacks": lambda s: s.update(callbacks=["x"]),
    "forward": lambda s: s.update(forward="x"),
    "a dunder": lambda s: s.update(__class__="x"),
    "decision fields": lambda s: s.update(fields={"x": 1}),
    "a legacy signature": lambda s: s.update(extended_signature={}),
    "a key inside the signature": lambda s: s["signature"].update(lm="x"),
    "a key inside a field": lambda s: s["signature"]["fields"][0].update(json_schema_extra={"x": 1}),
    "one field too many": lambda s: s["signature"]["fields"].append({"prefix": "x", "description": "y"}),
    "no fields": lambda s: s["signature"].update(fields=[]),
    "an instruction that is a list": lambda s: s["signature"].update(instructions=["x"]),
    "half an emoji": lambda s: s["signature"].update(instructions="\ud800"),
    "demos that are a text": lambda s: s.update(demos="x"),
    "a demo that is a list": lambda s: s.update(demos=[["x"]]),
    "a demo with a foreign field": lambda s: s.update(demos=[{"api_base": "http://127.0.0.2:9"}]),
    "traces": lambda s: s.update(traces=[{"x": 1}]),
    "no signature": lambda s: s.pop("signature"),
    "no demos": lambda s: s.pop("demos"),
}


def test_a_sound_artifact_is_accepted_when_it_is_sealed_again(artifact: Path) -> None:
    with_state(artifact, lambda state: state)
    program, _ = restore_program(artifact)
    assert render_prompts(program) == render_prompts(restore_program(OLD_FILES / "artifact")[0])


@pytest.mark.parametrize("name", HOSTILE_STATES)
def test_a_state_with_anything_but_a_prompt_is_refused(artifact: Path, name: str) -> None:
    with_state(artifact, HOSTILE_STATES[name])
    with pytest.raises(InputError, match=r"damaged|instructions, demos and field descriptions only"):
        restore_program(artifact)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"null", b"7", b"[" * 100_000, b'{"a": ' * 5_000, b"1" * 5_000, b"\xff\xfe", b"", b'{"x.y": {}}'],
    ids=["list", "null", "number", "brackets", "braces", "digits", "no UTF-8", "empty", "unknown predictor"],
)
def test_a_program_that_is_no_program_is_refused(artifact: Path, content: bytes) -> None:
    (artifact / PROGRAM).write_bytes(content)
    reseal(artifact)
    with pytest.raises(InputError):
        restore_program(artifact)


def test_a_huge_program_is_refused_unread(artifact: Path) -> None:
    with (artifact / PROGRAM).open("ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match="larger than"):
        restore_program(artifact)


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../secret.txt", "prompts/../../secret.txt", "search/../../secret.txt"]
)
def test_a_manifest_cannot_name_files_elsewhere(artifact: Path, name: str) -> None:
    secret = artifact.parent / "secret.txt"
    secret.write_text("secret")
    known = hashlib.sha256(b"secret").hexdigest()
    reseal(artifact, lambda found: found["files"].update({name: known}))
    with pytest.raises(InputError, match="is outside the artifact's folder"):
        restore_program(artifact)


@pytest.mark.parametrize(
    "name", ["program.json", "manifest.json", "prompts", "search/.lock", "search/deep", "extra.json"]
)
def test_symbolic_links_are_refused_and_what_they_point_at_stays(artifact: Path, name: str) -> None:
    victim = artifact.parent / "victim"
    link = artifact / name
    if link.is_dir() or link.exists():
        shutil.move(link, victim)
    else:
        victim.write_text("precious")
    link.symlink_to(victim)
    with pytest.raises(InputError, match="symbolic link"):
        restore_program(artifact)
    if victim.is_file() and name in ("search/.lock", "extra.json"):
        assert victim.read_text() == "precious"


def test_no_artifact_is_written_through_a_linked_folder(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "shopper.txt").write_text("precious")
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "prompts").symlink_to(mine)
    with pytest.raises(InputError, match="is a symbolic link"):
        freeze(tmp_path / "artifact", "openai/gpt-4o-mini")
    assert [path.read_text() for path in mine.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["config with an address", "a language model", "callbacks"])
def test_no_command_accepts_one_and_nothing_is_sent(
    artifact: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable("encoder"), "hashing")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    with FakeOpenAI() as thief:
        hostile = copy.deepcopy(HOSTILE_STATES[name])

        def change(state: dict[str, Any]) -> None:
            hostile(state)
            if isinstance(state.get("config"), dict):
                state["config"]["api_base"] = thief.url

        with_state(artifact, change)
        shop = ["--dataset", str(OLD_FILES / "shop")]
        for arguments in (
            ["artifact", "verify", str(artifact)],
            ["artifact", "show", str(artifact)],
            ["artifact", "diff", str(artifact), str(OLD_FILES / "artifact")],
            [
                "evaluate",
                str(OLD_FILES / "test.jsonl"),
                *shop,
                "--ranker",
                str(artifact),
                "--out",
                str(tmp_path / "run"),
            ],
            ["recommend", str(OLD_FILES / "shop"), "--user", "U00", "--ranker", str(artifact)],
        ):
            ended = CliRunner().invoke(
                app, [*arguments, *(() if arguments[0] == "artifact" else ("--model", "openai/x"))]
            )
            assert ended.exit_code != 0, arguments
            assert isinstance(ended.exception, InputError), (arguments, ended.exception)
            assert "instructions, demos and field descriptions only" in str(ended.exception)
        assert not thief.bodies


@pytest.mark.parametrize("value", [None, 3, [None], {"a": None}, [["x"]]])
def test_a_demo_value_of_another_type_is_refused_by_name(tmp_path: Path, value: object) -> None:
    artifact = Path(shutil.copytree(OLD_FILES / "artifact", tmp_path / "artifact"))
    states = json.loads((artifact / PROGRAM).read_text("utf-8"))
    states["shopper.infer.predict"]["demos"][0]["shopper"] = value
    (artifact / PROGRAM).write_text(json.dumps(states), "utf-8")
    reseal(artifact)
    with pytest.raises(InputError, match="demo 0: the value of 'shopper' has a wrong type"):
        restore_program(artifact)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value in a JSON tree."""
    found = [path]
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        found += paths(inner, (*path, key))
    return found


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_artifacts_are_refused_or_ask_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    artifact = Path(shutil.copytree(OLD_FILES / "artifact", tmp_path_factory.mktemp("mutated") / "artifact"))
    state = json.loads((artifact / PROGRAM).read_text("utf-8"))
    *way, last = data.draw(st.sampled_from([path for path in paths(state) if path]))
    target = state
    for step in way:
        target = target[step]
    action = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if action == "replace":
        target[last] = data.draw(JSON)
    elif action == "remove":
        del target[last]
    elif isinstance(target, dict):
        target[data.draw(st.sampled_from(["config", "lm", "forward", "callbacks", "x"]) | st.text(max_size=8))] = (
            data.draw(JSON)
        )
    else:
        target.append(data.draw(JSON))
    (artifact / PROGRAM).write_text(json.dumps(state), "utf-8")
    reseal(artifact)
    try:
        program, _ = restore_program(artifact)
    except InputError:
        return
    sound, _ = restore_program(OLD_FILES / "artifact")
    assert render_prompts(program) == render_prompts(sound)
    for predictor, original in zip(program.predictors(), sound.predictors(), strict=True):
        assert isinstance(predictor, dspy.Predict)
        assert vars(predictor).keys() == vars(original).keys()
        assert (predictor.lm, predictor.config) == (original.lm, original.config)
