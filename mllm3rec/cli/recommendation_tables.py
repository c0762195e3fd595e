"""Recommendations for one user, as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from mllm3rec.cli.console import out

if TYPE_CHECKING:
    from mllm3rec.api.recommendation import Recommendation, Recommendations


def show_recommendations(found: Recommendations) -> None:
    """Print history, profile, items with reasons, and warnings."""
    out.print(Text(f"{found.user} bought, oldest first"))
    for number, title in enumerate(found.history, start=1):
        out.print(Text(f"  {number}. {title}"))
    if found.profile is not None:
        _show_profile(found)
    _show_items(found)
    for warning in found.warnings:
        out.print(Text(f"! {warning}", style="yellow"))
    if found.warnings:
        out.print("Larger models copy less: use --model gguf:FILE or --preset hosted (docs/models.md).", markup=False)
    if found.filtered:
        out.print(f"{len(found.filtered)} items moved down because their reason failed the check")
    out.print(f"{found.usage.calls} calls, {found.usage.cache_hits} cache hits, {found.usage.seconds:.0f} s")


def recommendation_facts(found: Recommendations) -> dict[str, Any]:
    """History, profile, items with reasons, and warnings, as one JSON object."""
    motivations = found.profile.motivations if found.profile else ()
    return {
        "user": found.user,
        "history": list(found.history),
        "profile": [
            motivation.model_dump() | {"purchases": list(titles)}
            for motivation, titles in zip(motivations, found.evidence, strict=True)
        ],
        "needs": [need.model_dump() for need in found.profile.needs] if found.profile else [],
        "recommendations": [asdict(item) for item in found],
        "filtered": [reason.model_dump() for reason in found.filtered],
        "warnings": list(found.warnings),
        "status": found.status,
        "usage": found.usage.model_dump(),
    }


def _show_profile(found: Recommendations) -> None:
    assert found.profile is not None  # noqa: S101 - asked by the caller
    table = _table(f"Profile of {found.user}", "motivation", "description", "strength", "based on purchase")
    for motivation in found.profile.motivations:
        purchases = ", ".join(map(str, motivation.evidence))
        table.add_row(motivation.dimension, Text(motivation.description), motivation.strength, purchases)
    for need in found.profile.needs:
        table.add_row("may want next", Text(need.phrase), "", ", ".join(map(str, need.evidence)))
    out.print(table)


def _show_items(found: Recommendations) -> None:
    from programs.copies import one_reason

    alike = one_reason([item.reason for item in found if item.reason])
    columns = ["", "item", "rank by prior, MAR", "traits"]
    table = _table(f"Top {len(found)}", *columns, *([] if alike else ["reason", "checked"]))
    table.show_lines = True
    for place, item in enumerate(found, start=1):
        ranks = f"{_place(item.prior_rank)}, {_place(item.mar_rank)}"
        cells: list[Any] = [str(place), Text(f"{item.title} ({item.item_id})"), ranks, Text("; ".join(item.traits))]
        table.add_row(*cells, *([] if alike else [_reason(item), "yes" if item.reason_checked else "no"]))
    out.print(table)
    if alike:
        reasons = [item for item in found if item.reason]
        passed = sum(item.reason_checked for item in reasons)
        out.print(Text(f"All items have the same reason. It passed the check for {passed} of {len(reasons)} items:"))
        out.print(Text(f"  {reasons[0].reason}"))


def _reason(item: Recommendation) -> Text:
    reason = Text(item.reason or "-")
    if item.warning:
        reason.append(f"\n({item.warning})", style="yellow")
    return reason


def _place(rank: int | None) -> str:
    return "-" if rank is None else str(rank)


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left")
