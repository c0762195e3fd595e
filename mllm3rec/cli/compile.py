"""`mllm3rec compile`: tune demos and instructions on dev users, and save the checked winner as an artifact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm3rec.cli.compile_tables import show_forecast, show_manifest
from mllm3rec.cli.console import ConsoleEvents, emit, out
from mllm3rec.cli.options import (
    BudgetUsd,
    CasesFile,
    DatasetOption,
    EncoderOption,
    Fresh,
    Head,
    Json,
    LogTo,
    MarOption,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    ModelOption,
    MopeOption,
    MoteOption,
    Preset,
    PricesFile,
    PriorOption,
    RetryUnparsable,
    SchemaFile,
    Timeout,
    ViaOption,
    Workers,
    assignments,
    option_group,
)

_candidates, _objective, _search = map(option_group, ("Candidates", "Objective", "Search"))
ROLE_CHOICES = ("mope", "mote", "mar", "judge")
_ASSIGNMENT = re.compile(rf"({'|'.join(ROLE_CHOICES)})=(.+)")


def compile_program(
    cases: CasesFile,
    directory: Annotated[Path, typer.Option("--out", help="Folder of the artifact; the same command resumes.")],
    dataset: DatasetOption = None,
    optimizer: Annotated[
        str,
        _search(
            help="study; DSPy's mipro, gepa, random-search, labeled; prototypes (of the program encoder); finetune."
        ),
    ] = "study",
    trials: Annotated[int, _search(min=1, help="Number of programs to try, with the uncompiled one.")] = 12,
    family: Annotated[
        list[str] | None,
        typer.Option(
            "--program",
            "--family",
            help="Program to compile (repeat to try several), or artifact to go on from. Default: listwise, or tuned.",
        ),
    ] = None,
    module: Annotated[
        list[str] | None, typer.Option(help="Module to tune (mope, mote, mar); repeat for several. Default: all.")
    ] = None,
    demo_sets: Annotated[int, _candidates(min=0, help="Number of demo sets to make for each module.")] = 2,
    max_demos: Annotated[int, _candidates(min=1, help="Most demos in a set.")] = 3,
    wordings: Annotated[int, _candidates(min=0, help="Number of instructions to propose for each predictor.")] = 2,
    reflections: Annotated[
        int | None, _candidates(min=0, help="Instructions to write for each predictor from results of 15 users.")
    ] = None,
    proposer: Annotated[str | None, _candidates(help="Model that writes instructions. Default: MAR's model.")] = None,
    ndcg: Annotated[float, _objective(min=0, help="Weight of NDCG of the fused order.")] = 0.4,
    mar_ndcg: Annotated[float, _objective(min=0, help="Weight of NDCG of MAR's scores alone.")] = 0.3,
    hit: Annotated[float, _objective(min=0, help="Weight of HR@5.")] = 0.1,
    coherence: Annotated[float, _objective(min=0, help="Weight of profile coherence (eq. 5).")] = 0.2,
    similarity: Annotated[
        str, _objective(help="How to compare profiles: schema, keywords, semantic, mixed.")
    ] = "schema",
    interactions: Annotated[
        int, _objective(min=0, help="Number of last purchases that get a profile, for coherence.")
    ] = 3,
    held_out: Annotated[float, _search(min=0.05, max=0.9, help="Share of dev users for the held-out check.")] = 0.3,
    finalists: Annotated[
        int | None, _search(min=0, help="Number of best programs that are scored again.  [default: 3]")
    ] = None,
    draws: Annotated[
        int | None, _search(min=1, help="Draws of labels that each finalist is scored with.  [default: 3]")
    ] = None,
    final_share: Annotated[
        float | None, _search(min=0, max=0.9, help="Share of the searched users for finalists only.  [default: 0.25]")
    ] = None,
    fit_weight: Annotated[
        bool | None, _search("--fit-weight/--fixed-weight", help="Fit the winner's fusion weight.  [default: fit]")
    ] = None,
    deterministic: Annotated[
        bool | None,
        _search(
            "--deterministic/--fast",
            help="Models on this machine answer always alike, at a third of the speed.  [default: alike]",
        ),
    ] = None,
    gepa: Annotated[
        list[str] | None, _search(help="NAME=VALUE: an option of GEPA (proposals=4, frontier=hybrid); repeatable.")
    ] = None,
    pareto: Annotated[bool, _search("--pareto", help="Search for quality and low cost together.")] = False,
    weight: Annotated[list[float] | None, _search(min=0, max=1, help="Fusion weight; repeat to try several.")] = None,
    backend: Annotated[
        list[str] | None, _search(help="ROLE=MODEL: a further model to try for a role; repeatable.")
    ] = None,
    temperature: Annotated[
        list[str] | None, _search(help="ROLE=NUMBER: a further temperature to try; repeatable.")
    ] = None,
    preset: Preset = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mope: MopeOption = None,
    mote: MoteOption = None,
    mar: MarOption = None,
    head: Head = None,
    prior: PriorOption = None,
    schema: SchemaFile = None,
    seed: Annotated[int, _search(min=0, help="Random seed of the search.")] = 0,
    workers: Workers = 1,
    base: Annotated[
        str | None, _search(help="Model to finetune: local/NAME, a GGUF file or folder.  [default: local/smollm2-135m]")
    ] = None,
    lists: Annotated[int | None, _search(min=1, help="Training lists that finetune reads.  [default: 4000]")] = None,
    beside_prior: Annotated[
        int | None, _search(min=0, help="Further lists that it reads beside the prior.  [default: 0]")
    ] = None,
    budget_usd: BudgetUsd = None,
    prices: PricesFile = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    retry_unparsable: RetryUnparsable = False,
    via: ViaOption = "calls",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only forecast the cost, from a few calls.")] = False,
    fresh: Fresh = False,
    log: LogTo = None,
    as_json: Json = False,
) -> None:
    """Tune prompts on dev users, check the best program on held-out users, and save it as an artifact."""
    import mllm3rec as m3
    from mllm3rec.api.compilation import forecast_compile_cost
    from mllm3rec.trackers.live_tracking import tracked
    from optimize.artifact import SEARCH_FOLDER
    from optimize.forecast import total_phase
    from programs.lm.fresh_answers import fresh_answers

    arguments: dict[str, Any] = {
        "out": directory,
        "trials": trials,
        "workers": workers,
        "budget_usd": budget_usd,
        "max_calls": max_calls,
        "max_minutes": max_minutes,
        "optimizer": optimizer,
        "modules": module,
        "demo_sets": demo_sets,
        "max_demos": max_demos,
        "wordings": wordings,
        "ndcg": ndcg,
        "mar_ndcg": mar_ndcg,
        "hit": hit,
        "coherence": coherence,
        "similarity": similarity,
        "interactions": interactions,
        "held_out": held_out,
        "reflections": reflections,
        "finalists": finalists,
        "draws": draws,
        "final_share": final_share,
        "fit_weight": fit_weight,
        "deterministic": deterministic,
        "gepa": assignments("--gepa", gepa, "NAME=VALUE"),
        "pareto": pareto,
        "weights": weight,
        "backends": _by_role("--backend", backend),
        "temperatures": _temperatures(temperature),
        "proposer": proposer,
        "preset": preset,
        "model": model,
        "mope": mope,
        "mote": mote,
        "mar": mar,
        "timeout": timeout,
        "max_tokens": max_tokens,
        "head": head,
        "prior": prior,
        "schema": schema,
        "seed": seed,
        "base": base,
        "lists": lists,
        "beside_prior": beside_prior,
    }
    family = family or ["tuned" if optimizer == "finetune" else "listwise"]
    with (
        fresh_answers(fresh and not dry_run, directory),
        ConsoleEvents() as console,
        tracked(None if dry_run else log, directory, console, directory / SEARCH_FOLDER) as events,
    ):
        drawn = m3.load_cases(cases, dataset)
        if dry_run:
            phases = forecast_compile_cost(drawn, family, on_event=events, **arguments)
        else:
            arguments |= {"retry_unparsable": retry_unparsable, "via": via}
            program = m3.compile_program(drawn, family, on_event=events, **arguments)
            manifest = program.manifest
    if dry_run:
        show_forecast(phases, total_phase(phases), as_json)
        return
    assert manifest is not None  # noqa: S101 - a compiled program has one
    if as_json:
        emit({**manifest.model_dump(mode="json"), "artifact": str(directory)})
        return
    show_manifest(manifest)
    out.print(f"written: {directory} (report: {directory / 'search' / 'report.html'})")


def _by_role(option: str, values: Sequence[str] | None) -> dict[str, list[str]]:
    from mllm3rec import InputError

    found: dict[str, list[str]] = {}
    for value in values or ():
        match = _ASSIGNMENT.fullmatch(value)
        if match is None:
            raise InputError(f"{option} {value!r}: write ROLE=VALUE, where ROLE is {', '.join(ROLE_CHOICES)}")
        found.setdefault(match[1], []).append(match[2])
    return found


def _temperatures(values: Sequence[str] | None) -> dict[str, list[float]]:
    from mllm3rec import InputError

    try:
        return {role: [float(text) for text in texts] for role, texts in _by_role("--temperature", values).items()}
    except ValueError as error:
        raise InputError(f"--temperature: {error}") from None
