"""Choice of a ranker by name and options, before data and language models are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from evaluate.baselines import TRAINED, Baseline
from evaluate.baselines.language import LanguageModel
from evaluate.baselines.learned import Learned
from evaluate.baselines.versions import default_of_run
from evaluate.data.demo.planted_truth import PLANTED_TRUTH
from evaluate.protocol.cases import Cases
from evaluate.ranker_factory import BASELINES, RankerFactory, require_known
from evaluate.runs.directory import MANIFEST
from evaluate.runs.journal import stored_manifest
from evaluate.runs.session import gate_configuration, prior_of_runs, program_configuration
from evaluate.runs.trec import RUN_PREFIX
from programs.chat_rec import fusion_of
from programs.gate import Gate
from programs.lm.ambient import AmbientBackends
from programs.lm.model_options import Model, ModelOptions
from programs.lm.roles import Roles
from programs.prior.choice import NEWEST, UNRECORDED, PriorName, recorded
from programs.program import WITHOUT_MODEL, Fusion
from programs.ranker import Ranker
from programs.runtime.errors import InputError
from signatures.schema import MotivationSchema

if TYPE_CHECKING:
    import dspy


@dataclass(frozen=True)
class RankerChoice:
    """A baseline or a program of this installation.

    Attributes:
        name: Its name in results.
        roles: Models of a program; None uses the model of `dspy.configure`.
        fusion: How a program combines MAR's scores with the prior's.
        schema: Motivational schema of a program.
        given: `dspy.LM` objects by model string.
        prior: Formula of the prior; None: that of the run to resume, or the newest.
        trained: Settings of a trained baseline; None: those of the version of the run to resume, or the default.
    """

    name: str
    roles: Roles | None
    fusion: Fusion
    schema: MotivationSchema
    given: Mapping[str, dspy.LM] = field(default_factory=dict)
    prior: PriorName | None = None
    trained: Baseline | None = None

    def for_runs(self, root: Path) -> Self:
        """The same choice with the versions of the runs in a folder, see `prior_of_runs` and `settings_for_runs`.

        Raises:
            InputError: if the manifest in it cannot be read.
        """
        trained = self.trained
        if trained is None and self.name in TRAINED:
            trained = settings_for_runs(self.name, root)
        return replace(self, prior=self.prior or prior_of_runs(root), trained=trained)

    def with_prior(self, prior: PriorName) -> Self:
        """The same choice with a formula of the prior.

        Raises:
            InputError: if it was compiled with another one.
        """
        if self.prior not in (None, prior):
            raise InputError(f"{self.name}: was compiled with the prior {self.prior}, so it cannot have {prior}")
        return replace(self, prior=prior)

    def with_gate(self, gate: Gate | None, ask: float | None = None, explain: int = 0) -> Self:
        """The same choice with a gate in place of the fusion weight.

        Args:
            gate: None for the one that it has, if it has one.
            ask: Share of dev users whose margin decides who is asked about, see `Gate.asking`; None: as the gate says.
            explain: Number of first items per user that get a reason.

        Raises:
            InputError: if the ranker does not fuse scores, has no gate to ask a share of the users, or would have to
                explain the items of users whom it does not ask about.
        """
        found = gate or self.fusion.gate
        if gate is None and ask is None:
            return self
        if ask is not None and explain:
            raise InputError("reasons need every user's profile: ask only a share in a run without reasons (explain 0)")
        if self.name in TRAINED or self.name in BASELINES:
            raise InputError(f"{self.name}: a gate weighs MAR's scores against the prior's; choose a program")
        if found is None:
            raise InputError(
                "to ask about a share of the users, give a gate: it holds the margins of dev users, by which users are "
                "chosen; fit one with `mllm3rec gate`"
            )
        return replace(self, fusion=replace(self.fusion, gate=found if ask is None else found.asking(ask)))

    @property
    def asks_models(self) -> bool:
        """Whether it calls language models."""
        return not is_free(self.name)

    def configuration(self, explain: int, check: bool, seed: int = 0) -> dict[str, Any]:
        """Everything that decides its rankings besides the cases, for the run's manifest.

        Args:
            explain, check: Of a program; see `RankerFactory`.
            seed: Training seed of a trained baseline.
        """
        if self.name in TRAINED:
            return self._settings.configuration(seed, self.schema)
        prior = self.prior or NEWEST
        if self.without_model:
            fused = {"weight": self.fusion.weight, "head": self.fusion.head, "prior": recorded(prior)}
            fused |= gate_configuration(self.fusion)
            return fused | {"schema": self.schema.model_dump(mode="json")}
        if not self.asks_models:
            return {"prior": recorded(prior)} if self.name == "prior" and prior != UNRECORDED else {}
        roles = AmbientBackends().roles if self.roles is None else self.roles
        return program_configuration(roles, self.fusion, self.schema, explain, check, prior)

    def refuse(self, cases: Cases) -> None:
        """Refuse cases of users that the ranker was compiled on; does nothing for other rankers.

        Raises:
            InputError: naming one of these users.
        """

    def build(self, factory: RankerFactory, seed: int = 0) -> Ranker:
        """Build the ranker.

        Args:
            seed: Training seed of a trained baseline.

        Raises:
            InputError: if the model of a role cannot be used.
        """
        return factory.ranker(self.name, seed, self.trained)

    @property
    def without_model(self) -> bool:
        """Whether it fuses scores that need no language model."""
        return is_free_program(self.name)

    @property
    def _settings(self) -> Baseline:
        return self.trained or TRAINED[self.name]()


def settings_for_runs(ranker: str, root: Path) -> Baseline:
    """Default settings of a trained baseline, of the version that the runs in a folder or below it were begun with.

    Raises:
        InputError: if a manifest cannot be read.
    """
    for path in sorted(root.rglob(MANIFEST)):
        manifest = stored_manifest(path.parent)
        for key in ("settings", Learned.name):
            recorded_settings = manifest.configuration.get(key) if manifest is not None else None
            if isinstance(recorded_settings, dict):
                found = default_of_run(ranker, recorded_settings)
                if found != TRAINED[ranker]():
                    return found
    return TRAINED[ranker]()


Resolve = Callable[[str, ModelOptions, Fusion, MotivationSchema | None], RankerChoice]
"""Finds a ranker by name; packages above this one know more names, such as folders of artifacts."""


def is_free(name: str) -> bool:
    """Whether a ranker needs no language model."""
    return name in TRAINED or name in BASELINES or is_free_program(name) or name.startswith(RUN_PREFIX)


def is_free_program(name: str) -> bool:
    """Whether a ranker is fused with the prior, by a weight and a head, but needs no language model."""
    return name in WITHOUT_MODEL or name == PLANTED_TRUTH


def choose_by_name(name: str, options: ModelOptions, fusion: Fusion, schema: MotivationSchema | None) -> RankerChoice:
    """The ranker of this installation with that name.

    Args:
        schema: None for the default one.

    Raises:
        InputError: if there is no such ranker or preset.
    """
    from signatures.schema import CONSUMER

    require_known(name)
    trained = None if options.model is None else on_base(name, options.model)
    return RankerChoice(
        name, options.roles(), fusion_of(name, fusion), schema or CONSUMER, options.given, trained=trained
    )


def on_base(name: str, model: Model) -> Baseline | None:
    """Default settings of a language-model system on a base model; None for other rankers.

    Raises:
        InputError: if the model is not a name of a local one.
    """
    settings = TRAINED.get(name)
    if settings is None or not issubclass(settings, LanguageModel):
        return None
    if not isinstance(model, str):
        raise InputError(f"{name} trains a local model: give --model as a folder, a GGUF file or local/NAME")
    return settings(base=model)
