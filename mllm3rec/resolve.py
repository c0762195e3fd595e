"""What `--ranker` names: a baseline, a program, or a frozen artifact, which brings its own roles, schema and fusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from evaluate.ranker_factory import RankerFactory, askable, require_known
from mllm3rec.cli.settings import ModelOptions, read_schema
from optimize.artifact import ArtifactManifest, is_artifact, load_artifact, read_manifest
from programs.lm.roles import ROLE_NAMES, Roles
from programs.program import Fusion
from programs.ranker import Ranker
from programs.runtime.errors import InputError
from signatures.schema import MotivationSchema


@dataclass(frozen=True)
class Chosen:
    """A ranker before it is built.

    Attributes:
        name: What results call it.
        artifact: Where it is frozen, or None for what is built from this installation.
        manifest: Of the artifact.
    """

    name: str
    roles: Roles
    fusion: Fusion
    schema: MotivationSchema
    artifact: Path | None = None
    manifest: ArtifactManifest | None = None

    def build(self, shop: RankerFactory, seed: int = 0) -> Ranker:
        """The ranker.

        Args:
            seed: Training seed, where the ranker is trained.

        Raises:
            InputError: if the artifact is damaged or does not fit, or a role cannot be asked.
        """
        if self.artifact is None:
            return shop.ranker(self.name, seed)
        return askable(load_artifact(self.artifact, shop.parts())[0])


def choose(ranker: str, options: ModelOptions, fusion: Fusion, schema: Path | None) -> Chosen:
    """Find out what `ranker` is.

    Args:
        options: Models by name replace those an artifact was compiled with; a preset does not. A server that is not
            on this machine is asked only if it is named here: histories would go to whoever made the artifact.
        fusion: For what is no artifact.
        schema: Motivational schema; an artifact refuses any but its own.

    Raises:
        InputError: if it is no artifact and no ranker has the name, or it names a server that has to be confirmed.
    """
    path = Path(ranker)
    if not is_artifact(path):
        require_known(ranker)
        return Chosen(ranker, options.roles(), fusion, read_schema(schema))
    manifest = read_manifest(path)
    roles = options.over(manifest.roles)
    _refuse_strange_servers(path, roles, options)
    return Chosen(
        name=f"compiled {manifest.family} ({manifest.sha256[:8]})",
        roles=roles,
        fusion=Fusion(weight=manifest.weight, head=manifest.head),
        schema=manifest.motivations if schema is None else read_schema(schema),
        artifact=path,
        manifest=manifest,
    )


def _refuse_strange_servers(path: Path, roles: Roles, options: ModelOptions) -> None:
    named = {options.model, options.mope, options.mote, options.mar, options.judge}
    for role in ROLE_NAMES:
        model = roles.of(role).model
        here = urlsplit(model).hostname in ("127.0.0.1", "localhost", "::1")
        if model.startswith(("http://", "https://")) and not here and model not in named:
            raise InputError(
                f"{path}: {role} would ask the server {model}; if you trust it with these histories, name it: --{role} "
                f"{model}"
            )
