"""Choice of a ranker by name and options, before data and language models are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from evaluate.baselines import TRAINED, Baseline
from evaluate.baselines.language import LanguageModel
from evaluate.baselines.learned import Learned
from evaluate.baselines.networks.sequence_settings import TextSettings
from evaluate.baselines.versions import default_of_run
from evaluate.data.demo.planted_truth import PLANTED_TRUTH
from evaluate.protocol.cases import Cases
from evaluate.ranker_factory import BASELINES, RankerFactory, require_known
from evaluate.runs.directory import MANIFEST
from evaluate.runs.journal import stored_manifest
from evaluate.runs.session import gate_configuration, prior_of_runs, program_configuration
from evaluate.runs.trec import RUN_PREFIX
from programs.chat_rec import RERANKING, fusion_of
from programs.gate import Gate
from programs.lm.ambient import AmbientBackends
from programs.lm.model_options import Model, ModelOptions
from programs.lm.roles import Roles
from programs.prior.choice import NEWEST, UNRECORDED, PriorName, recorded
from programs.program import WITHOUT_MODEL, Fusion
from programs.ranker import Ranker
from programs.runtime.errors import InputError, listed
from signatures.schema import MotivationSchema

if TYPE_CHECKING:
    import dspy


MODEL_OPTIONS = frozenset({"preset", "model", "mope", "mote", "mar", "judge"})
"""Options that name models."""

FIELDS_OF_TRAITS = frozenset({"preset", "model", "mote"})
"""Those of them that name the model whose stored traits a trained baseline reads."""

_OF_FUSION = frozenset({"weight", "head", "gate", "ask", "prior", "schema"})
_OF_ANSWERS = frozenset({"explain", "check", "via"})


def named_models(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some options that name models, as far as they are given, in a fixed order for messages."""
    return {name: options[name] for name in sorted(MODEL_OPTIONS) if options.get(name) is not None}


@dataclass(frozen=True)
class OptionsRead:
    """The options that decide what a ranker does; others would be ignored.

    Attributes:
        ranker: Its name in messages.
        names: Of the options.
        weight: Its own fusion weight, if no other can be given.
    """

    ranker: str
    names: frozenset[str] = frozenset()
    weight: float | None = None

    def reads(self, name: str, value: object) -> bool:
        """Whether an option is read, or its value is the ranker's own."""
        return name in self.names or (name == "weight" and value == self.weight)

    def instead(self, name: str) -> str:
        """Why it does not read an option."""
        if name == "weight" and self.weight is not None:
            return f"its own fusion weight is {self.weight:g}"
        if name == "preset" and self.weight is not None and self.names & MODEL_OPTIONS:
            return "it has models of its own; name others with model, mope, mote, mar or judge"
        if name in MODEL_OPTIONS | _OF_ANSWERS:
            own = sorted(self.names & MODEL_OPTIONS)
            return f"of the options for models it reads {listed(own)}" if own else "it asks no language model"
        if name == "seed":
            return "it is not trained"
        return "it does not fuse MAR's scores with the prior's" if name in _OF_FUSION else "it has no such setting"


def refuse_ignored(rankers: Sequence[OptionsRead], **given: object) -> None:
    """Refuse options that none of the rankers reads.

    Args:
        given: Options by name; None for what was not given.

    Raises:
        InputError: naming them, why they would be ignored, and what to do.
    """
    ignored = [
        name
        for name, value in given.items()
        if value is not None and not any(ranker.reads(name, value) for ranker in rankers)
    ]
    if ignored and rankers:
        whose = listed(ranker.ranker for ranker in rankers)
        by_reason: dict[str, list[str]] = {}
        for name in ignored:
            by_reason.setdefault(rankers[0].instead(name), []).append(name)
        what = "; ".join(f"{listed(names)} ({reason})" for reason, names in by_reason.items())
        raise InputError(f"{whose} does not read {what}; leave out what it does not read")


@dataclass(frozen=True)
class RankerChoice:
    """A baseline or a program of this installation.

    Attributes:
        name: Its name in results.
        roles: Models of a program, None uses the model of `dspy.configure`; or those whose stored traits a trained
            baseline reads, None for none.
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

    @property
    def options_read(self) -> OptionsRead:
        """The options that decide what it does."""
        return options_read_by(self.name)

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
        if self.settings is not None:
            return self.settings.configuration(seed, self.schema)
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
    def settings(self) -> Baseline | None:
        """Settings of a trained baseline; None for other rankers."""
        return self.trained or (TRAINED[self.name]() if self.name in TRAINED else None)


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


def options_read_by(name: str) -> OptionsRead:
    """The options that decide what a ranker of this installation does."""
    if name in TRAINED:
        return OptionsRead(name, TRAINED[name].reads | {"seed"})
    if name in BASELINES or name.startswith(RUN_PREFIX):
        return OptionsRead(name, frozenset({"prior"} if name == "prior" else ()))
    if is_free_program(name):
        return OptionsRead(name, _OF_FUSION)
    if name in RERANKING:
        return OptionsRead(
            name, (_OF_FUSION | MODEL_OPTIONS | _OF_ANSWERS) - {"weight"}, fusion_of(name, Fusion()).weight
        )
    return OptionsRead(name, _OF_FUSION | MODEL_OPTIONS | _OF_ANSWERS)


def options_read_by_artifact(name: str, weight: float, without_model: bool) -> OptionsRead:
    """The options that decide what an artifact does: its models may be replaced by name, its fusion weight not."""
    asked = frozenset() if without_model else (MODEL_OPTIONS - {"preset"}) | _OF_ANSWERS
    return OptionsRead(name, (_OF_FUSION - {"weight"}) | asked, weight)


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
    roles = models_of_traits(options) if name in TRAINED else options.roles()
    if roles is not None and trained is None:
        trained = on_traits(name)
    return RankerChoice(name, roles, fusion_of(name, fusion), schema or CONSUMER, options.given, trained=trained)


def models_of_traits(options: ModelOptions) -> Roles | None:
    """The models whose stored traits a trained baseline reads; None if no model is named.

    A default would make a fit depend on what other rankers have asked before, and the default model's weights would
    have to be there though no model is asked.

    Raises:
        InputError: if there is no such preset.
    """
    named = any(getattr(options, field) is not None for field in FIELDS_OF_TRAITS)
    return options.roles() if named else None


def on_traits(name: str) -> Baseline | None:
    """Settings of a trained baseline whose default reads item texts, with traits in their place; None for others.

    For where a model is named, whose traits would not be read otherwise.
    """
    settings = TRAINED.get(name)
    if settings is None or not issubclass(settings, TextSettings) or settings().reads_traits:
        return None
    return settings(text="traits")


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
