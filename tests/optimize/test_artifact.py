"""Frozen programs: whole and unchanged they load, anything else is refused with a reason."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from pydantic import BaseModel

from optimize.artifact import (
    ADAPTER,
    MANIFEST,
    PROGRAM,
    PROMPTS,
    ArtifactManifest,
    check_contracts,
    contract,
    read_adapter,
    read_manifest,
    render_prompts,
    restore_program,
)
from optimize.compiler import Compiler
from optimize.prompts import prompts_of
from optimize.resolve import ArtifactChoice, resolve_ranker
from programs.lm.model_options import ModelOptions
from programs.program import Fusion
from programs.runtime.errors import InputError
from programs.runtime.untrusted import MAX_BYTES
from signatures.mote import DistillTraits
from signatures.schema import Dimension, MotivationSchema
from tests.optimize.conftest import Finished

OTHER = MotivationSchema(
    name="films",
    dimensions=(
        Dimension(name="thrill", definition="wants suspense", kind="emotional"),
        Dimension(name="comfort", definition="wants warmth", kind="emotional"),
    ),
)


@pytest.fixture
def made(finished: Finished) -> Compiler:
    """The compile that made the artifact."""
    return finished.made


@pytest.fixture
def artifact(finished: Finished, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return finished.copy(tmp_path)


def reseal(artifact: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest as somebody would who also fixes its hash."""
    found = json.loads((artifact / MANIFEST).read_text())
    change(found)
    with contextlib.suppress(ValueError):
        found = ArtifactManifest.model_validate(found).sealed().model_dump(mode="json")
    (artifact / MANIFEST).write_text(json.dumps(found))


def test_loads_as_what_was_frozen_and_cannot_be_compiled_again(made: Compiler, artifact: Path) -> None:
    program, manifest = restore_program(artifact, made.parts)
    assert program._compiled
    assert manifest == read_manifest(artifact)
    stored = json.loads((artifact / PROGRAM).read_text())
    assert {name: prompt.instructions for name, prompt in prompts_of(program).items()} == {
        name: state["signature"]["instructions"] for name, state in stored.items()
    }
    assert program.fusion.weight == manifest.weight
    assert all(state["lm"] is None for state in stored.values())
    with pytest.raises(AssertionError, match="uncompiled"):
        dspy.BootstrapFewShot(metric=lambda *_: True, max_labeled_demos=0).compile(program, trainset=[])


def test_prompts_are_written_as_they_are_sent(made: Compiler, artifact: Path) -> None:
    program, _ = restore_program(artifact, made.parts)
    for name, text in render_prompts(program).items():
        assert (artifact / PROMPTS / f"{name}.txt").read_text() == text
    infer = (artifact / PROMPTS / "shopper.infer.predict.txt").read_text()
    assert "{history}" in infer
    assert "--- system ---" in infer


def test_nothing_in_it_is_a_pickle_or_names_a_key(artifact: Path) -> None:
    files = [path for path in artifact.rglob("*") if path.is_file()]
    assert {"manifest.json", "program.json", "study.sqlite"} <= {path.name for path in files}
    for file in files:
        assert not file.read_bytes().startswith(b"\x80"), file
        assert b'"api_key":' not in file.read_bytes(), file


@pytest.mark.parametrize("length", [0, 1, 200, 2000])
def test_a_truncated_manifest_is_refused(artifact: Path, length: int) -> None:
    whole = (artifact / MANIFEST).read_bytes()
    (artifact / MANIFEST).write_bytes(whole[:length])
    with pytest.raises(InputError, match=r"manifest\.json.*damaged"):
        restore_program(artifact)


def test_an_artifact_may_not_say_which_secret_is_sent_where(artifact: Path) -> None:
    def steal(manifest: dict[str, Any]) -> None:
        manifest["roles"]["mar"]["api_key_env"] = "AWS_SECRET_ACCESS_KEY"

    reseal(artifact, steal)
    with pytest.raises(InputError, match=r"roles\.mar\.api_key_env"):
        restore_program(artifact)


def test_a_strange_server_is_asked_only_when_it_is_named(artifact: Path) -> None:
    there = "https://models.example/v1#m"

    def move(manifest: dict[str, Any]) -> None:
        manifest["roles"]["mope"]["model"] = there

    reseal(artifact, move)
    with pytest.raises(InputError, match=f"--mope {there}"):
        resolve_ranker(str(artifact), ModelOptions(), Fusion())
    confirmed = resolve_ranker(str(artifact), ModelOptions(mope=there), Fusion())
    assert confirmed.roles is not None and confirmed.roles.mope.model == there
    other = resolve_ranker(str(artifact), ModelOptions(model="local/smollm2-135m"), Fusion())
    assert isinstance(other, ArtifactChoice) and other.path == artifact


def test_a_missing_manifest_says_that_the_compile_may_not_be_finished(artifact: Path) -> None:
    (artifact / MANIFEST).unlink()
    with pytest.raises(InputError, match="finished"):
        restore_program(artifact)


def test_an_edited_manifest_is_refused(artifact: Path) -> None:
    found = json.loads((artifact / MANIFEST).read_text())
    found["weight"] = 0.99
    (artifact / MANIFEST).write_text(json.dumps(found))
    with pytest.raises(InputError, match="was changed"):
        restore_program(artifact)


def test_a_format_from_elsewhere_is_refused(artifact: Path) -> None:
    reseal(artifact, lambda found: found.update(format="mllm3rec-artifact/9"))
    with pytest.raises(InputError, match="mllm3rec-artifact/9"):
        restore_program(artifact)


@pytest.mark.parametrize("name", ["model.pkl", "prompts/evil.pickle", "search/state.bin", "code.py", "search/x.pkl"])
def test_an_added_file_is_refused_by_name(artifact: Path, name: str) -> None:
    (artifact / name).write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=name.rsplit("/", maxsplit=1)[-1]):
        restore_program(artifact)


def test_a_lost_file_and_a_changed_one_are_refused(artifact: Path) -> None:
    text = (artifact / PROGRAM).read_text()
    (artifact / PROGRAM).write_text(text.replace("motivation", "motive"))
    with pytest.raises(InputError, match=r"program\.json.*changed"):
        restore_program(artifact)
    (artifact / PROGRAM).unlink()
    with pytest.raises(InputError, match=r"program\.json.*missing"):
        restore_program(artifact)


def test_another_motivational_schema_is_refused_by_name(made: Compiler, artifact: Path) -> None:
    with pytest.raises(InputError, match=r"'consumer'.*'films'"):
        restore_program(artifact, replace(made.parts, schema=OTHER))


def test_a_schema_that_does_not_fit_the_program_is_refused_naming_the_field(artifact: Path) -> None:
    reseal(artifact, lambda found: found.update(motivations=OTHER.model_dump(mode="json")))
    with pytest.raises(InputError, match=r"field 'motivations' of shopper\.infer\.predict has another type"):
        restore_program(artifact)


def test_an_unknown_family_is_refused(artifact: Path) -> None:
    reseal(artifact, lambda found: found.update(family="crystal-ball"))
    with pytest.raises(InputError, match="crystal-ball"):
        restore_program(artifact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields["traits"].update(description="long sentences"), "'traits' .* has another description"),
        (lambda fields: fields["traits"].update(type={"type": "string"}), "'traits' .* has another type"),
        (lambda fields: fields["traits"].pop("bounds"), "'traits' .* has another bounds"),
        (lambda fields: fields.pop("product"), "'product' .* was added"),
        (lambda fields: fields.update(colour={"kind": "input"}), "'colour' .* was removed"),
    ],
)
def test_a_drifted_signature_is_refused_naming_the_field(
    artifact: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    reseal(artifact, lambda found: change(found["contracts"]["product.distill.predict"]))
    with pytest.raises(InputError, match=f"{message}.*compile"):
        restore_program(artifact)


def test_a_signature_whose_nested_type_changed_has_another_contract() -> None:
    class Before(BaseModel):
        name: str

    class After(BaseModel):
        name: str
        strength: int

    contracts = [
        {
            "p": contract(
                dspy.Signature({"q": (str, dspy.InputField(desc="")), "a": (list[t], dspy.OutputField(desc=""))})
            )
        }
        for t in (Before, After)
    ]
    check_contracts("here", contracts[0], contracts[0])
    with pytest.raises(InputError, match="field 'a' of p has another type"):
        check_contracts("here", contracts[0], contracts[1])
    assert contract(DistillTraits)["traits"]["bounds"], "list bounds are part of the contract"


def test_an_adapter_that_renders_otherwise_is_refused(artifact: Path) -> None:
    reseal(artifact, lambda found: found["roles"]["mote"].update(adapter="chat"))
    with pytest.raises(InputError, match=r"product\.distill\.predict.*renders"):
        restore_program(artifact)


def test_adapters_may_be_larger_than_other_files(tmp_path: Path) -> None:
    """Those of a base of half a billion parameters are."""
    (tmp_path / ADAPTER).write_bytes(bytes(MAX_BYTES + 1))
    assert len(read_adapter(tmp_path)) == MAX_BYTES + 1
