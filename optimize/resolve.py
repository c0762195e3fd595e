"""Rankers by name or artifact folder; an artifact has its own roles, motivational schema and fusion."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evaluate.protocol.cases import Cases
from evaluate.ranker_choice import OptionsRead, RankerChoice, choose_by_name, options_read_by_artifact
from evaluate.ranker_factory import RankerFactory, askable
from optimize.artifact import ArtifactManifest, is_artifact, read_manifest, restore_program
from programs.lm.endpoints import is_server, model_name
from programs.lm.model_options import ModelOptions
from programs.lm.roles import ROLE_NAMES, RoleName, Roles
from programs.prior.choice import prior_name
from programs.program import WITHOUT_MODEL, Fusion
from programs.ranker import Ranker
from programs.runtime.errors import InputError, quoted
from programs.tuned.reader import require_packages
from signatures.schema import MotivationSchema


@dataclass(frozen=True)
class ArtifactChoice(RankerChoice):
    """A compiled program, from the folder of its artifact."""

    path: Path = Path()
    manifest: ArtifactManifest | None = None

    @property
    def asks_models(self) -> bool:
        """Always true: artifacts are programs."""
        return True

    @property
    def without_model(self) -> bool:
        """Whether it has prototypes or weights of its own; runs of other artifacts have models in their manifests."""
        return self.manifest is not None and self.manifest.family in WITHOUT_MODEL

    @property
    def options_read(self) -> OptionsRead:
        """See `RankerChoice.options_read`."""
        return options_read_by_artifact(self.name, self.fusion.weight, self.without_model)

    def configuration(self, explain: int, check: bool, seed: int = 0) -> dict[str, Any]:
        """See `RankerChoice.configuration`; contains the artifact's hash.

        Weights of its own are computed in another number format on other hardware, which is recorded, too: a run is
        not finished with scores of both.
        """
        assert self.manifest is not None  # noqa: S101 - set where this is built
        found = super().configuration(explain, check) | {"artifact": self.manifest.sha256}
        if self.manifest.adapter is None:
            return found
        require_packages("the program 'tuned'")
        from programs.tuned.backbone import hardware_of

        return found | {"hardware": hardware_of(self.manifest.adapter.base)}

    def refuse(self, cases: Cases) -> None:
        """Refuse users that the program was compiled on, and targets it was fitted on; see `RankerChoice.refuse`."""
        assert self.manifest is not None  # noqa: S101 - set where this is built
        data, dataset = self.manifest.data, cases.protocol.dataset_sha256
        data.refuse_seen_targets(cases)
        checked = data.held_out if data.dataset_sha256 == dataset else ()
        compiled_on = {*data.tuned_on(dataset), *checked} & {case.user_id for case in cases}
        if compiled_on:
            raise InputError(
                f"{len(compiled_on)} of these users ({quoted(min(compiled_on))}, ...) were used to compile the "
                "program, so metrics on them are not valid; draw cases with `--part test`"
            )

    def build(self, factory: RankerFactory, seed: int = 0) -> Ranker:
        """The program, loaded and checked; see `RankerChoice.build`."""
        return askable(restore_program(self.path, factory.parts())[0])


def resolve_ranker(
    name: str,
    options: ModelOptions,
    fusion: Fusion,
    schema: MotivationSchema | None = None,
    asked: Collection[RoleName] = ROLE_NAMES,
) -> RankerChoice:
    """Find a ranker by its name or by the folder of an artifact.

    Args:
        options: Models given here replace those of an artifact; a preset does not. A server on another machine is used
            only if it is given here, because it receives histories.
        fusion: For rankers that are not artifacts; its head, if it has one, replaces that of an artifact, too.
        schema: Motivational schema; an artifact accepts only its own.
        asked: Roles whose models will be asked; servers of the others need not be confirmed.

    Raises:
        InputError: if there is no such ranker or artifact, or an artifact names a server that you must confirm.
    """
    path = Path(name)
    if not is_artifact(path):
        return choose_by_name(name, options, fusion, schema)
    manifest = read_manifest(path)
    roles = options.over(manifest.roles)
    _refuse_unnamed_servers(path, roles, options, asked)
    return ArtifactChoice(
        name=f"compiled {manifest.family} ({manifest.sha256[:8]})",
        roles=roles,
        fusion=Fusion(manifest.weight, fusion.head or manifest.head, manifest.gate),
        schema=manifest.motivations if schema is None else schema,
        given=options.given,
        prior=prior_name(manifest.prior),
        path=path,
        manifest=manifest,
    )


def _refuse_unnamed_servers(path: Path, roles: Roles, options: ModelOptions, asked: Collection[RoleName]) -> None:
    for role in asked:
        model = roles.of(role).model
        if is_server(model):
            model_name(roles.of(role))  # refuses a malformed address
        is_local = urlsplit(model).hostname in ("127.0.0.1", "localhost", "::1")
        if is_server(model) and not is_local and model not in options.names:
            raise InputError(
                f"{path}: {role} would send histories to the server {model}; if you trust it, add --{role} {model}"
            )
