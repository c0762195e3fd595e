"""Rankers by name or artifact folder; an artifact brings its own roles, motivational schema and fusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evaluate.protocol.cases import Cases
from evaluate.ranker_choice import RankerChoice, choose_by_name
from evaluate.ranker_factory import RankerFactory, askable
from optimize.artifact import ArtifactManifest, is_artifact, read_manifest, restore_program
from programs.lm.model_options import ModelOptions
from programs.lm.roles import ROLE_NAMES, Roles
from programs.program import Fusion
from programs.ranker import Ranker
from programs.runtime.errors import InputError
from signatures.schema import MotivationSchema


@dataclass(frozen=True)
class ArtifactChoice(RankerChoice):
    """A compiled program, frozen in a folder."""

    path: Path = Path()
    manifest: ArtifactManifest | None = None

    @property
    def asks_models(self) -> bool:
        """Always: artifacts are programs."""
        return True

    def configuration(self, explain: int, check: bool, seed: int = 0) -> dict[str, Any]:
        """See `RankerChoice.configuration`; with the artifact's hash."""
        assert self.manifest is not None  # noqa: S101 - set where this is built
        return super().configuration(explain, check) | {"artifact": self.manifest.sha256}

    def refuse(self, cases: Cases) -> None:
        """Refuse users it was compiled on; see `RankerChoice.refuse`."""
        assert self.manifest is not None  # noqa: S101 - set where this is built
        data = self.manifest.data
        if data.dataset_sha256 != cases.protocol.dataset_sha256:
            return
        seen = {*data.searched, *data.held_out} & {case.user_id for case in cases}
        if seen:
            raise InputError(
                f"{len(seen)} of these users ({min(seen)!r}, ...) were used to compile the program: its figures on "
                "them say nothing; draw cases with `--part test`"
            )

    def build(self, factory: RankerFactory, seed: int = 0) -> Ranker:
        """The program, loaded and checked; see `RankerChoice.build`."""
        return askable(restore_program(self.path, factory.parts())[0])


def resolve_ranker(
    name: str, options: ModelOptions, fusion: Fusion, schema: MotivationSchema | None = None
) -> RankerChoice:
    """Find out what a name stands for: a ranker of this installation, or the folder of an artifact.

    Args:
        options: Models by name replace those an artifact was compiled with; a preset does not. A server that is not
            on this machine is asked only if it is named here: histories would go to whoever made the artifact.
        fusion: For what is no artifact.
        schema: Motivational schema; an artifact refuses any but its own.

    Raises:
        InputError: if it is no artifact and no ranker has the name, or it names a server that has to be confirmed.
    """
    path = Path(name)
    if not is_artifact(path):
        return choose_by_name(name, options, fusion, schema)
    manifest = read_manifest(path)
    roles = options.over(manifest.roles)
    _refuse_unnamed_servers(path, roles, options)
    return ArtifactChoice(
        name=f"compiled {manifest.family} ({manifest.sha256[:8]})",
        roles=roles,
        fusion=Fusion(weight=manifest.weight, head=manifest.head),
        schema=manifest.motivations if schema is None else schema,
        given=options.given,
        path=path,
        manifest=manifest,
    )


def _refuse_unnamed_servers(path: Path, roles: Roles, options: ModelOptions) -> None:
    for role in ROLE_NAMES:
        model = roles.of(role).model
        here = urlsplit(model).hostname in ("127.0.0.1", "localhost", "::1")
        if model.startswith(("http://", "https://")) and not here and model not in options.names:
            raise InputError(
                f"{path}: {role} would ask the server {model}; if you trust it with these histories, name it: --{role} "
                f"{model}"
            )
