"""`mllm3rec artifact`: show, compare and check artifacts (compiled programs)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.syntax import Syntax

from mllm3rec.cli.compile_tables import show_manifest
from mllm3rec.cli.console import emit, out
from mllm3rec.cli.options import Json

if TYPE_CHECKING:
    from optimize.artifact import ArtifactManifest

Artifact = Annotated[Path, typer.Argument(help="Folder of an artifact, written by `mllm3rec compile`.")]

app = typer.Typer(help="Show, compare and check artifacts (compiled programs).", no_args_is_help=True)


@app.command()
def show(artifact: Artifact, as_json: Json = False) -> None:
    """Show the settings, the held-out check and the prompts of an artifact."""
    from optimize.artifact import restore_program
    from optimize.prompts import prompts_of

    program, manifest = restore_program(artifact)
    if as_json:
        prompts = {name: prompt.model_dump(mode="json") for name, prompt in prompts_of(program).items()}
        emit({**manifest.model_dump(mode="json"), "prompts": prompts})
        return
    for name, value in _facts(manifest).items():
        out.print(f"{name}: {value}")
    show_manifest(manifest)
    for name, prompt in prompts_of(program).items():
        out.rule(name, align="left")
        out.print(prompt.instructions)
        out.print(f"{len(prompt.demos)} demos; the whole prompt: {artifact}/prompts/{name}.txt")


@app.command()
def diff(first: Artifact, second: Artifact, as_json: Json = False) -> None:
    """Compare the settings and prompts of two artifacts line by line. Exit code 0 if they are the same."""
    import difflib

    from optimize.artifact import restore_program

    texts: list[list[str]] = []
    for directory in (first, second):
        _, manifest = restore_program(directory)
        lines = [f"{name}: {value}" for name, value in _facts(manifest).items()]
        for path in sorted(path for path in manifest.files if path.startswith("prompts/")):
            lines += [f"=== {path} ===", *(directory / path).read_bytes().decode("utf-8", "replace").splitlines()]
        texts.append(lines)
    changes = list(difflib.unified_diff(texts[0], texts[1], fromfile=str(first), tofile=str(second), lineterm="", n=2))
    if as_json:
        emit({"same": not changes, "diff": changes})
    elif changes:
        out.print(Syntax("\n".join(changes), "diff", word_wrap=True))
    else:
        out.print("the same configuration and prompts")
    raise typer.Exit(1 if changes else 0)


@app.command()
def verify(artifact: Artifact, as_json: Json = False) -> None:
    """Check that an artifact was not changed: hashes, signatures and prompts. Exit code 0 if it was not."""
    from optimize.artifact import restore_program

    _, manifest = restore_program(artifact)
    if as_json:
        emit({"sound": True, "sha256": manifest.sha256, "files": len(manifest.files)})
    else:
        out.print(f"sound: {artifact}, {len(manifest.files)} files, sha256 {manifest.sha256[:12]}")


def _facts(manifest: ArtifactManifest) -> dict[str, Any]:
    chosen, prior = manifest.chosen, manifest.verdict.against_prior
    models = {role: getattr(manifest.roles, role).model for role in ("mope", "mote", "mar")}
    return {
        "family": manifest.family,
        **{f"{role} model": model for role, model in models.items()},
        "fusion weight": manifest.weight if manifest.gate is None else "by the gate",
        **({} if manifest.gate is None else {"gate": manifest.gate.text}),
        "head": manifest.head,
        "motivational schema": manifest.motivations.name,
        "optimizer": manifest.optimizer,
        "chosen": None if chosen is None else chosen.model_dump(exclude_defaults=True, exclude={"prototypes"}),
        **({} if chosen is None or chosen.prototypes is None else {"prototypes": chosen.prototypes.described()}),
        "objective": manifest.weights.model_dump(),
        "similarity": manifest.similarity,
        "data": f"{manifest.data.dataset}, cases {manifest.data.cases_sha256[:12]}",
        "verdict": manifest.verdict.judgement,
        **({} if prior is None else {"against the prior alone": prior.judgement}),
    }
