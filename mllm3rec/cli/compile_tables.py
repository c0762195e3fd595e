"""Tables about a compile: the verdict of its held-out check, what it spent, and forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from mllm3rec.cli.console import emit, format_estimate, format_usd, out

if TYPE_CHECKING:
    from optimize.artifact import ArtifactManifest
    from optimize.forecast import Phase


def show_manifest(manifest: ArtifactManifest) -> None:
    """Verdict, search and spending of an artifact."""
    from programs.lm.ledger import interrupted_note

    verdict = manifest.verdict
    table = Table(title=f"{manifest.optimizer}: held-out dev users", title_justify="left")
    for column in ("part", "before [95% CI]", "after [95% CI]", "difference, paired", "n"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, difference in verdict.difference.items():
        before, after = format_estimate(verdict.before[part]), format_estimate(verdict.after[part])
        table.add_row(part, before, after, format_estimate(difference), str(difference.n))
    out.print(table)
    out.print(
        f"over the {len(manifest.data.searched)} users of the search: "
        f"{manifest.searched['before']:.4f} before, {manifest.searched['after']:.4f} after "
        f"(trial {manifest.trial} of {manifest.trials})"
    )
    style = {"better": "green", "not clearly better": "yellow", "not better": "red"}[verdict.judgement]
    judgement = Text(verdict.judgement, style)
    out.print(Text.assemble("on users it had not seen, the compiled program is ", judgement, " than the original"))
    interrupted = sum(usage.interrupted for usage in manifest.spent.values())
    note = interrupted_note(interrupted) if interrupted else None
    spending = Table(title="Spent", title_justify="left", caption=note, caption_justify="left")
    for column in ("phase", "calls", "cache hits", "tokens in", "tokens out", "dollars", "seconds"):
        spending.add_column(column, justify="left" if column == "phase" else "right")
    for phase, usage in manifest.spent.items():
        spending.add_row(
            phase or "-",
            str(usage.calls),
            str(usage.cache_hits),
            str(usage.tokens_in),
            str(usage.tokens_out),
            format_usd(usage.usd),
            f"{usage.seconds:.0f}",
        )
    out.print(spending)


def show_forecast(phases: Sequence[Phase], total: Phase, as_json: bool) -> None:
    """Upper bounds by phase."""
    if as_json:
        emit({"phases": [phase.model_dump() for phase in phases], "in_all": total.model_dump()})
        return
    table = Table(title="Forecast, at most", title_justify="left")
    for column in ("phase", "calls", "tokens", "dollars", "minutes, one at a time"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase in (*phases, total):
        minutes = "-" if phase.seconds is None else f"{phase.seconds / 60:.1f}"
        table.add_row(phase.name, str(phase.calls), str(phase.tokens), format_usd(phase.usd), minutes)
    out.print(table)
    out.print("Cache hits, pruned trials and prompts that trials share make it less.")
