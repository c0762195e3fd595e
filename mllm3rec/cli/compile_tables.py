"""Tables about a compile: the held-out check, the cost, and the forecast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from mllm3rec.cli.console import emit, figure_table, format_estimate, format_usd, out, usage_table
from programs.runtime.errors import counted

if TYPE_CHECKING:
    from optimize.artifact import ArtifactManifest
    from optimize.forecast import Phase


FEW_USERS = 20
"""Fewer than these, to choose or to check a winner, are worth a note."""


def show_manifest(manifest: ArtifactManifest) -> None:
    """Print the held-out check, the search score and the cost of an artifact."""
    from optimize.compile_report import what_is_tuned
    from optimize.finals import finals_lines

    verdict = manifest.verdict
    columns = ("before [95% CI]", "after [95% CI]", "difference, paired", "n")
    table = figure_table(f"{manifest.optimizer}: held-out dev users", "part", *columns)
    for part, difference in verdict.difference.items():
        before, after = format_estimate(verdict.before[part]), format_estimate(verdict.after[part])
        table.add_row(part, before, after, format_estimate(difference), str(difference.n))
    out.print(table)
    if manifest.finals is not None:
        for line in finals_lines(manifest.finals, manifest.gate):
            out.print(line, markup=False)
    if verdict.prompts is not None:
        what = what_is_tuned(manifest.optimizer)
        same = "gate" if manifest.gate is not None else "fusion weight"
        out.print(f"with the winner's {same}, the {what} alone gained {format_estimate(verdict.prompts)}")
    searched = manifest.searched
    if "before" in searched and "after" in searched:
        out.print(
            f"on the {counted(manifest.choosing_users, 'user')} by whom the winner was chosen the score was "
            f"{searched['before']:.4f} before and {searched['after']:.4f} after compiling "
            f"(trial {manifest.trial} of {manifest.trials})"
        )
    held_out = verdict.difference["score"].n
    if min(manifest.choosing_users, held_out) < FEW_USERS:
        out.print(
            f"note: the winner was chosen by {counted(manifest.choosing_users, 'user')} and checked on "
            f"{counted(held_out, 'user')}, and one user's luck decides where there are few: draw more dev users"
        )
    parts: list[str | Text] = [
        "on held-out users the compiled program is ",
        _coloured(verdict.judgement),
        " than the original",
    ]
    if (prior := verdict.against_prior) is not None:
        parts += [", and ", _coloured(prior.judgement), " than the prior alone, which asks no model: "]
        parts += [f"NDCG {format_estimate(prior.ndcg)}, HR@5 {format_estimate(prior.hit)}, paired, n={prior.ndcg.n}"]
    out.print(Text.assemble(*parts))
    if manifest.spent:
        out.print(usage_table(manifest.spent, "Cost", "phase"))


def _coloured(judgement: str) -> Text:
    return Text(judgement, {"better": "green", "not clearly better": "yellow", "not better": "red"}[judgement])


def show_forecast(phases: Sequence[Phase], total: Phase, as_json: bool) -> None:
    """Print upper bounds of the cost by phase."""
    if as_json:
        emit({"phases": [phase.model_dump() for phase in phases], "in_all": total.model_dump()})
        return
    table = figure_table("Forecast, at most", "phase", "calls", "tokens", "dollars", "minutes with one worker")
    for phase in (*phases, total):
        minutes = "-" if phase.seconds is None else f"{phase.seconds / 60:.1f}"
        table.add_row(phase.name, str(phase.calls), str(phase.tokens), format_usd(phase.usd), minutes)
    out.print(table)
    out.print("The real cost is lower if there are cache hits, trials that stop early, or prompts that trials share.")
