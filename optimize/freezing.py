"""Freezing: the checked winner of a compile becomes an artifact, with its trials and its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optimize.artifact import SEARCH_FOLDER, ArtifactManifest, CompileData, render_prompts, save_artifact
from optimize.compile_report import CompileRecord, compile_report
from optimize.holdout import HoldoutVerdict
from optimize.objective import UserScore
from optimize.prompts import prompts_of
from optimize.search_result import SearchResult
from optimize.settings import CompileSettings
from programs.lm.roles import Roles
from programs.program import MLLM3Rec
from programs.runtime.atomic import write_atomically
from programs.tuned.reader import AdapterRecord
from signatures.rows import Usage

TRIALS, REPORT = "trials.json", "report.html"


@dataclass(frozen=True)
class CheckedWinner:
    """The winner of a search after its held-out check.

    Attributes:
        result: The search; its `best` is the winner.
        verdict: Of the held-out check.
        original: The uncompiled program.
        program: The winner.
        held_out: The winner's scores of the held-out users.
        tuned, adapter: Of a fine-tuned winner.
    """

    result: SearchResult
    verdict: HoldoutVerdict
    original: MLLM3Rec
    program: MLLM3Rec
    held_out: Sequence[UserScore]
    tuned: AdapterRecord | None = None
    adapter: bytes = b""


def freeze(
    directory: Path,
    settings: CompileSettings,
    winner: CheckedWinner,
    roles: Roles,
    data: CompileData,
    spent: Mapping[str, Usage],
    unit: str,
) -> ArtifactManifest:
    """Write artifact, trials and report.

    Args:
        directory: Of the compile.
        roles: Models of the winner.
        data: What it was compiled on.
        spent: Usage by phase.
        unit: Of the cost of a trial: `usd` or `tokens`.
    """
    result, folder = winner.result, directory / SEARCH_FOLDER
    manifest = _manifest(settings, winner, roles, data, spent)
    trials = [attempt.to_json(unit) for attempt in result.attempts]
    write_atomically(folder / TRIALS, json.dumps(trials, indent=1).encode() + b"\n")
    record = CompileRecord(
        manifest,
        result.attempts,
        unit,
        prompts_of(winner.original),
        prompts_of(winner.program),
        render_prompts(winner.program),
        result.importances,
        winner.held_out,
        winner.original.fusion.gate,
    )
    write_atomically(folder / REPORT, compile_report(record).encode())
    return save_artifact(directory, winner.program, manifest, winner.adapter)


def _manifest(
    settings: CompileSettings, winner: CheckedWinner, roles: Roles, data: CompileData, spent: Mapping[str, Usage]
) -> ArtifactManifest:
    result = winner.result
    configuration = result.best.configuration
    first = next((attempt for attempt in result.attempts if attempt.number == 0), result.best)
    searched = result.searched(first)
    manifest = ArtifactManifest(
        family=configuration.family,
        # Evaluations of the winner need not be as slow as its compile.
        roles=roles.deterministic(False),
        models=settings.models,
        encoder=settings.encoder,
        prior=settings.prior,
        weight=configuration.weight,
        head=settings.head,
        gate=configuration.gate,
        motivations=settings.motivations,
        optimizer=settings.optimizer,
        chosen=configuration,
        trial=result.best.number,
        trials=len(result.attempts) if result.tried is None else result.tried,
        weights=settings.weights,
        similarity=settings.similarity,
        interactions=settings.interactions,
        data=data,
        searched=searched.means,
        finals=result.finals,
        verdict=winner.verdict,
        spent=dict(spent),
        versions=settings.versions,
        adapter=winner.tuned,
        start=settings.start,
    )
    # Written only where it says more: the same compile of an older version freezes the same artifact again.
    more = {} if manifest.choosing_users == searched.users else {"searched_users": searched.users}
    return manifest.model_copy(update=more)
