"""Options of a compile, and their conversion into validated settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from pydantic import ValidationError

from evaluate.protocol.cases import Cases
from evaluate.runs.session import model_names, versions
from mllm3rec.api.options import Schema, read_schema
from optimize.candidates import CandidateSettings
from optimize.consistency import SIMILARITIES
from optimize.finetuning import FAMILIES
from optimize.objective import ObjectiveWeights
from optimize.prototype_search import TUNED_PROGRAM
from optimize.settings import NEWEST_DEFAULTS, CompileSettings, GepaSettings
from optimize.space import MODULES, Space
from programs.lm.model_options import ModelOptions
from programs.lm.roles import ROLE_NAMES, RoleConfig, RoleName, Roles
from programs.prior.choice import NEWEST, PriorName, recorded
from programs.prior.default_encoder import encoder_name
from programs.program import DEFAULT_WEIGHT, PROGRAMS, WITHOUT_MODEL
from programs.runtime.errors import InputError, input_error, nearest_name
from programs.tuned.reader import DEFAULT_BASE
from programs.tuned.settings import NEWEST_TUNING, TuningSettings
from signatures.schema import CONSUMER

if TYPE_CHECKING:
    import dspy

    from programs.lm.model_options import Model

PROPOSAL_TOKENS = 700
"""Least `max_tokens` of an answer with a proposed instruction."""

OPTIMIZERS: tuple[str, ...] = get_args(CompileSettings.model_fields["optimizer"].annotation)


_READ_BY: dict[str, tuple[str, ...]] = {
    "modules": ("study", "mipro", "gepa", "random-search", "labeled"),
    "demo_sets": ("study", "mipro"),
    "max_demos": ("study", "mipro", "random-search", "labeled"),
    "wordings": ("study",),
    "reflections": ("study",),
    "proposer": ("study", "mipro", "gepa"),
    "gepa": ("gepa",),
    "pareto": ("study",),
    "backends": ("study",),
    "temperatures": ("study",),
    "base": ("finetune",),
    "lists": ("finetune",),
    "beside_prior": ("finetune",),
}
"""The optimizers that read an option, for options that some ignore."""
_SEVERAL = {"program": ("study",), "weights": ("study", "prototypes")}
"""Likewise for options of which only these optimizers read more than one."""
_FEWEST_OF_RANDOM_SEARCH = 4
"""Programs that DSPy's random search scores at least."""


class CompileOptions(TypedDict, total=False):
    """Options of a compile; defaults are in brackets. A new compile refuses those that its optimizer does not read.

    Attributes:
        optimizer: [`study`] (our resumable Optuna search), or of DSPy `mipro`, `gepa`, `random-search`, `labeled`;
            `prototypes`, of the program `encoder`; or `finetune`: LoRA on a local model, for the programs `tuned` and
            `tuned-profiles`.
        modules: Modules to tune: `mope`, `mote`, `mar` [all].
        demo_sets: Number of demo sets to bootstrap for each module [2].
        max_demos: Most demos in a set [3].
        wordings: Number of instructions to propose for each predictor [2].
        ndcg, mar_ndcg, hit, coherence: Weights of the parts of the objective: NDCG of the fused order [.4], NDCG of MAR
            alone [.3], HR@5 [.1], and profile coherence (eq. 5) [.2].
        similarity: How profiles are compared, Sim of eq. 5: [`schema`], `keywords`, `semantic` or `mixed`.
        interactions: Number of last interactions that each get a profile for the coherence [3].
        held_out: Share of the dev users that the winner is checked on, .05 to .9 [.3].
        reflections: Number of instructions to write for each predictor from what came of it for 15 users [1].
        finalists: Number of best programs that are scored again before the winner is chosen [3].
        draws: Number of draws of labels and order that each finalist is scored with [3].
        final_share: Share of the users of the search that only the finalists are scored on [.25].
        fit_weight: Whether the winner's fusion weight is fitted, without further calls [True; False for `chat-rec`].
        deterministic: Whether models on this machine answer deterministically, at about a third of the speed [True].
        gepa: Options of the optimizer `gepa`: `reflected_users` [15], `parents` [1], `proposals` [2], `frontier`
            [`instance`], `acceptance` [`strict_improvement`], `merge` [True].
        pareto: Whether to search for quality and low cost together [False].
        weights: Fusion weights to try, 0 to 1 [.3, 1 for `chat-rec`, or the `Program`'s weight].
        backends: Further models to try, by role [none].
        temperatures: Further temperatures to try, 0 to 2, by role [none].
        proposer: Model that writes instructions [MAR's].
        seed: Random seed of the search [0].
        base: Model that `finetune` trains: `local/NAME`, a GGUF file or a Hugging Face folder [`local/smollm2-135m`].
        lists: Number of training lists that `finetune` reads [4000].
        beside_prior: Number of further lists that it reads beside the prior, with the loss of the fused scores [0].
        preset, model, mope, mote, mar, timeout, max_tokens: As in `program`; refused with a `Program`, which has its
            own.
        head: MAR ranks only the prior's first `head` candidates [all, 20 for `chat-rec`, or the `Program`'s head].
        prior: Formula of the prior, see `evaluate` [3, or the `Program`'s].
        schema: Motivational schema or its file [the consumer schema, or the `Program`'s schema].
    """

    optimizer: str
    modules: Sequence[str]
    demo_sets: int
    max_demos: int
    wordings: int
    ndcg: float
    mar_ndcg: float
    hit: float
    coherence: float
    similarity: str
    interactions: int
    held_out: float
    reflections: int
    finalists: int
    draws: int
    final_share: float
    fit_weight: bool
    deterministic: bool
    gepa: Mapping[str, Any]
    pareto: bool
    weights: Sequence[float]
    backends: Mapping[RoleName, Sequence[str]]
    temperatures: Mapping[RoleName, Sequence[float]]
    proposer: str | None
    seed: int
    base: str | None
    lists: int | None
    beside_prior: int | None
    preset: str | None
    timeout: float | None
    max_tokens: int | None
    model: Model | None
    mope: Model | None
    mote: Model | None
    mar: Model | None
    head: int | None
    prior: str | None
    schema: Schema | None


def compile_settings(
    cases: Cases,
    families: Sequence[str],
    roles: Roles,
    trials: int,
    options: CompileOptions,
    prior: PriorName = NEWEST,
    defaults: Mapping[str, Any] = NEWEST_DEFAULTS,
    tuning: Mapping[str, Any] = NEWEST_TUNING,
    start: str = "",
) -> CompileSettings:
    """Validate the options of a compile.

    Args:
        families: Names of the programs to search over.
        prior: Formula of the prior.
        defaults: Of options that are not given, see `optimize.settings.defaults_of_compile`.
        tuning: How `finetune` stops, see `optimize.settings.tuning_of_compile`.
        start: Hash of the artifact that the compile goes on from; empty without one.

    Raises:
        InputError: naming the option that is not valid.
    """
    seed = options.get("seed", 0)
    modules = options.get("modules") or MODULES
    _require("optimizer", [options.get("optimizer", OPTIMIZERS[0])], OPTIMIZERS)
    _require("module", modules, MODULES)
    _require("similarity", [options.get("similarity", SIMILARITIES[0])], SIMILARITIES)
    _require("program", families, tuple(PROGRAMS))
    by_prototypes = options.get("optimizer") == "prototypes"
    if by_prototypes and (list(families) != [TUNED_PROGRAM] or options.get("head") is not None):
        raise InputError(
            f"optimizer prototypes: it tunes the program {TUNED_PROGRAM!r} alone, and without a head: only this "
            f"one has prototypes; give it as the program (--program {TUNED_PROGRAM})"
        )
    if start and (by_prototypes or list(families) == [TUNED_PROGRAM]):
        raise InputError(f"{TUNED_PROGRAM!r} has no prompts to go on from; compile it anew")
    backends, temperatures = options.get("backends") or {}, options.get("temperatures") or {}
    _require("role of backends", list(backends), ROLE_NAMES)
    _require("role of temperatures", list(temperatures), ROLE_NAMES)
    outside = [value for values in temperatures.values() for value in values if not 0 <= value <= 2]
    if outside:
        raise InputError(f"temperatures: {outside[0]:g} must lie between 0 and 2")
    later = {name: default if options.get(name) is None else options[name] for name, default in defaults.items()}  # type: ignore[literal-required]
    recipe = {"reflections": later.pop("reflections"), "seed": seed}
    if later["deterministic"]:
        roles = roles.deterministic()
    try:
        later["gepa"] = _gepa(defaults["gepa"], options.get("gepa") or {})
        return CompileSettings.model_validate(
            {
                "optimizer": options.get("optimizer", OPTIMIZERS[0]),
                "modules": tuple(modules),
                "trials": trials,
                "seed": seed,
                "pareto": options.get("pareto", False),
                "recipe": CandidateSettings(**_given(options, "demo_sets", "max_demos", "wordings"), **recipe),
                "space": Space(
                    families=tuple(families),
                    weights=tuple(options.get("weights") or [DEFAULT_WEIGHT]),
                    models={role: (roles.of(role).model, *models) for role, models in backends.items()},
                    temperatures={
                        role: (roles.of(role).temperature or 0.0, *values) for role, values in temperatures.items()
                    },
                ),
                "weights": ObjectiveWeights(
                    ndcg=options.get("ndcg", 0.4),
                    mar=options.get("mar_ndcg", 0.3),
                    hit=options.get("hit", 0.1),
                    coherence=options.get("coherence", 0.2),
                ),
                **_given(options, "similarity", "interactions", "held_out"),
                **later,
                **_tuning(options, families, {**tuning, "seed": seed}),
                "roles": roles,
                "proposer": proposer_config(roles, options.get("proposer")),
                # Programs that ask no model of a role: none of them has to be there.
                "models": {} if set(families) <= WITHOUT_MODEL else model_names(roles),
                "encoder": encoder_name(),
                "prior": recorded(prior),
                "motivations": read_schema(options.get("schema")) or CONSUMER,
                "head": options.get("head"),
                "start": start,
                "cases_sha256": cases.sha256,
                "dataset_sha256": cases.protocol.dataset_sha256,
                "versions": versions(),
            }
        )
    except ValidationError as error:
        raise input_error("compile options", error) from None


def refuse_unread(options: CompileOptions, families: Sequence[str], trials: int) -> None:
    """Refuse options that the optimizer of a new compile would ignore; those with their default value are none.

    Args:
        families: Names of the programs to compile.

    Raises:
        InputError: naming the option, and the optimizers that read it.
    """
    optimizer = options.get("optimizer", OPTIMIZERS[0])
    _require("optimizer", [optimizer], OPTIMIZERS)
    usual = {**CandidateSettings().model_dump(), "reflections": NEWEST_DEFAULTS["reflections"]}
    several = {"program": families, "weights": options.get("weights") or ()}
    given = {name: value for name, value in options.items() if value and value != usual.get(name)}
    for readers, named in (
        *((readers, name) for name, readers in _READ_BY.items() if name in given),
        *((readers, f"several values of {name}") for name, readers in _SEVERAL.items() if len(several[name]) > 1),
    ):
        if optimizer not in readers:
            raise InputError(
                f"the optimizer {optimizer} does not read {named}, as {' and '.join(readers)} would; "
                "leave it out, or choose another optimizer"
            )
    if optimizer == "random-search" and trials < _FEWEST_OF_RANDOM_SEARCH:
        raise InputError(f"random-search scores at least {_FEWEST_OF_RANDOM_SEARCH} programs; give as many trials")


def _tuning(options: CompileOptions, families: Sequence[str], tuning: Mapping[str, Any]) -> dict[str, Any]:
    """Base and training of the optimizer `finetune`; nothing for others."""
    if options.get("optimizer") != "finetune":
        return {}
    if len(families) != 1 or families[0] not in FAMILIES:
        raise InputError(
            f"the optimizer finetune compiles one of the programs {' and '.join(FAMILIES)}; use --program {FAMILIES[0]}"
        )
    settings = TuningSettings(**{**tuning, **_given(options, "lists", "beside_prior")})
    return {"base": options.get("base") or DEFAULT_BASE, "tuning": settings}


def _gepa(defaults: GepaSettings | Mapping[str, Any], given: Mapping[str, Any]) -> GepaSettings:
    own = defaults if isinstance(defaults, GepaSettings) else GepaSettings.model_validate(defaults)
    return GepaSettings.model_validate(own.model_dump() | dict(given))


def roles_of(options: CompileOptions) -> tuple[Roles, Mapping[str, dspy.LM]]:
    """The models of the options by role, and the `dspy.LM` objects among them.

    Raises:
        InputError: if there is no such preset.
    """
    chosen = models_of(options)
    return chosen.roles(), chosen.given


def models_of(options: CompileOptions) -> ModelOptions:
    """The options that name models."""
    return ModelOptions(**given_models(options))


def given_models(options: CompileOptions) -> dict[str, Any]:
    """The options that name models, as far as they are given."""
    return _given(options, "preset", "model", "mope", "mote", "mar", "timeout", "max_tokens")


def proposer_config(roles: Roles, model: str | None = None) -> RoleConfig:
    """The model that writes instructions: `model`, or MAR's if it is None."""
    config = roles.with_models(mar=model).mar
    return config.model_copy(update={"terse": False, "max_tokens": max(PROPOSAL_TOKENS, config.max_tokens)})


def _given(options: CompileOptions, *names: str) -> dict[str, Any]:
    given: dict[str, Any] = dict(options)
    return {name: given[name] for name in names if given.get(name) is not None}


def _require(option: str, values: Sequence[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise InputError(f"no {option} {value!r}{nearest_name(value, known)} Choose one of {', '.join(known)}")
