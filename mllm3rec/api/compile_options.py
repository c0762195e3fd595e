"""Options of a compile, and the validated settings that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from pydantic import ValidationError

from evaluate.protocol.cases import Cases
from evaluate.runs.session import model_names, versions
from mllm3rec.api.options import Schema, read_schema
from optimize.candidates import CandidateSettings
from optimize.consistency import SIMILARITIES
from optimize.objective import ObjectiveWeights
from optimize.settings import CompileSettings
from optimize.space import MODULES, Space
from programs.lm.model_options import ModelOptions
from programs.lm.roles import ROLE_NAMES, RoleConfig, RoleName, Roles
from programs.prior.default_encoder import encoder_name
from programs.program import DEFAULT_WEIGHT, PROGRAMS
from programs.runtime.errors import InputError, input_error
from signatures.schema import CONSUMER

if TYPE_CHECKING:
    import dspy

    from programs.lm.model_options import Model

PROPOSAL_TOKENS = 700
"""Room for a whole instruction in an answer of the proposer."""

OPTIMIZERS: tuple[str, ...] = get_args(CompileSettings.model_fields["optimizer"].annotation)


class CompileOptions(TypedDict, total=False):
    """What a compile may be told; each has a default.

    Attributes:
        optimizer: `study`, our resumable Optuna search, or one of DSPy's: `mipro`, `gepa`, `random-search`, `labeled`.
        modules: Modules to tune, of `mope`, `mote`, `mar`; all by default.
        demo_sets: Demo sets to bootstrap per module (2).
        max_demos: Demos in a set (3).
        wordings: Instructions to propose per predictor (2).
        ndcg, mar_ndcg, hit, coherence: Weights of the objective: NDCG of the fused order (.4), NDCG of MAR alone (.3),
            HR@5 (.1), profile coherence of eq. 5 (.2).
        similarity: Sim of eq. 5: `schema`, `keywords`, `semantic` or `mixed`.
        interactions: Last interactions of each user that are profiled alone for eq. 5 (3).
        held_out: Share of the dev users the winner is checked on, .05 to .9 (.3).
        pareto: Search quality against cost instead of quality alone.
        weights: Fusion weights to search over, 0 to 1.
        backends: Further models to try, by role.
        temperatures: Further temperatures to try, 0 to 2, by role.
        proposer: Model that writes instructions; MAR's by default.
        seed: Decides every choice of the search.
        preset, model, mope, mote, mar: Models, as in `program`; of a `Program` its own are taken.
        head: MAR sees only the prior's first `head` candidates; of a `Program` its own.
        schema: Motivational schema or its file; of a `Program` its own.
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
    pareto: bool
    weights: Sequence[float]
    backends: Mapping[RoleName, Sequence[str]]
    temperatures: Mapping[RoleName, Sequence[float]]
    proposer: str | None
    seed: int
    preset: str
    model: Model | None
    mope: Model | None
    mote: Model | None
    mar: Model | None
    head: int | None
    schema: Schema | None


def compile_settings(
    cases: Cases, families: Sequence[str], roles: Roles, trials: int, options: CompileOptions
) -> CompileSettings:
    """The settings of a compile.

    Args:
        families: Names of the programs to search over.
        roles: Models of the roles.

    Raises:
        InputError: naming the option that is not valid.
    """
    seed = options.get("seed", 0)
    modules = options.get("modules") or MODULES
    _require("optimizer", [options.get("optimizer", OPTIMIZERS[0])], OPTIMIZERS)
    _require("modules", modules, MODULES)
    _require("similarity", [options.get("similarity", SIMILARITIES[0])], SIMILARITIES)
    _require("program", families, tuple(PROGRAMS))
    backends, temperatures = options.get("backends") or {}, options.get("temperatures") or {}
    _require("backends", list(backends), ROLE_NAMES)
    _require("temperatures", list(temperatures), ROLE_NAMES)
    outside = [value for values in temperatures.values() for value in values if not 0 <= value <= 2]
    if outside:
        raise InputError(f"temperatures: {outside[0]:g} must lie between 0 and 2")
    try:
        return CompileSettings.model_validate(
            {
                "optimizer": options.get("optimizer", OPTIMIZERS[0]),
                "modules": tuple(modules),
                "trials": trials,
                "seed": seed,
                "pareto": options.get("pareto", False),
                "recipe": CandidateSettings(**_given(options, "demo_sets", "max_demos", "wordings"), seed=seed),
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
                "roles": roles,
                "proposer": proposer_config(roles, options.get("proposer")),
                "models": model_names(roles),
                "encoder": encoder_name(),
                "motivations": read_schema(options.get("schema")) or CONSUMER,
                "head": options.get("head"),
                "cases_sha256": cases.sha256,
                "versions": versions(),
            }
        )
    except ValidationError as error:
        raise input_error("compile options", error) from None


def roles_of(options: CompileOptions) -> tuple[Roles, Mapping[str, dspy.LM]]:
    """The roles that options name, and the `dspy.LM` objects among their models.

    Raises:
        InputError: if there is no such preset.
    """
    chosen = ModelOptions(**_given(options, "preset", "model", "mope", "mote", "mar"))
    return chosen.roles(), chosen.given


def proposer_config(roles: Roles, model: str | None = None) -> RoleConfig:
    """The model that writes instructions: MAR's, or another; with room for a whole instruction."""
    config = roles.with_models(mar=model).mar
    return config.model_copy(update={"terse": False, "max_tokens": max(PROPOSAL_TOKENS, config.max_tokens)})


def _given(options: CompileOptions, *names: str) -> dict[str, Any]:
    given: dict[str, Any] = dict(options)
    return {name: given[name] for name in names if given.get(name) is not None}


def _require(option: str, values: Sequence[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise InputError(f"{option}: {value!r} is none of {', '.join(known)}")
