"""`mllm3rec demo`: recommend, compile and evaluate on the demo store, with a model on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mllm3rec.cli.console import ConsoleEvents, emit, format_estimate, out
from mllm3rec.cli.options import EncoderOption, Json, ModelOption
from mllm3rec.cli.recommendation_tables import recommendation_facts, show_recommendations
from programs.runtime.events import Note

if TYPE_CHECKING:
    from mllm3rec.api.demonstration import Demonstration
    from mllm3rec.api.recommendation import Recommendations
    from optimize.prompt_changes import PromptChange

_DIFF_LINES = 6
"""Most removed and most added lines of a diff to show."""


def demo(
    directory: Annotated[Path, typer.Option("--out", help="Folder of cases and runs; the same command resumes.")],
    users: Annotated[int, typer.Option(min=1, help="Number of test users.")] = 20,
    dev_users: Annotated[int, typer.Option(min=4, help="Number of dev users to compile on.")] = 8,
    trials: Annotated[int, typer.Option(min=1, help="Number of programs to try.")] = 3,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Recommend to a user of the demo store, compile on dev users, and compare before and after on test users.

    This takes about five minutes on two cores with the default model.
    """
    with ConsoleEvents() as events:
        events(Note("loading the demo store: invented items, and users with known motivations"))
        from mllm3rec.api.demonstration import demonstrate

        def show_user(found: Recommendations) -> None:
            if not as_json:
                show_recommendations(found)

        found = demonstrate(directory, users, dev_users, trials, model, events, show_user)
    if as_json:
        figures = {name: result.figures.model_dump(mode="json") for name, result in found.results.items()}
        emit(
            {
                **figures,
                "after minus before": {name: difference.model_dump() for name, difference in found.gain.items()},
                "manifest": found.manifest.model_dump(mode="json"),
                "user": recommendation_facts(found.user),
                "prompts": [asdict(change) for change in found.changes],
                "conclusion": found.conclusion,
                "run": str(directory),
            }
        )
    else:
        _show(found, directory)
    raise typer.Exit(0 if found.complete else 1)


def _show(found: Demonstration, directory: Path) -> None:
    _show_changes(found)
    out.print(_table(found))
    prior = found.results["prior"].metrics["HR@10"].mean
    out.print(
        f"MAR ranks only the prior's first {found.manifest.head}; in random order they have an HR@5 of {prior / 2:.3f}."
    )
    _show_model(found)
    out.print(Text(found.conclusion, style="bold"))
    if not found.gained:
        out.print(found.needed, markup=False)
    report = directory / "artifact" / "search" / "report.html"
    out.print(f"Report of the search, with all prompts: {report}", markup=False, soft_wrap=True)
    out.print("Next: mllm3rec recommend demo --user S0002", markup=False)


def _show_changes(found: Demonstration) -> None:
    manifest = found.manifest
    columns = ("program", "MOPE's demos", "MOPE's instruction", "fusion weight", "score")
    title = f"{len(found.tried)} programs tried on {max(len(one.scores) for one in found.tried)} dev users"
    table = Table(*columns, title=title, title_justify="left")
    for one in found.tried:
        chosen = one.configuration
        number = f"{one.number}, the best" if one.number == manifest.trial else str(one.number)
        demos, wording = chosen.demos.get("mope", "original"), chosen.wordings.get("mope", "original")
        table.add_row(number, demos, wording, f"{chosen.weight:g}", "-" if one.score is None else f"{one.score:.3f}")
    out.print(table)
    if manifest.trial:
        verdict = manifest.verdict
        over = "" if verdict.against_prior is None else f", and {verdict.against_prior.judgement} than the prior alone"
        users = f"{len(manifest.data.held_out)} held-out dev users"
        out.print(f"On {users} it is {verdict.judgement} than program 0, the uncompiled one{over}.")
        out.print(f"Prompts that compiling changed (program {found.compared}):")
    elif found.compared:
        out.print(f"Compiling changed no prompt. Prompts that program {found.compared} changes:")
    for change in found.changes:
        words = "changed" if change.instructions_changed else "unchanged"
        demos = f"{change.demos_before} before, {change.demos_after} after"
        out.print(Text(f"  {change.predictor}: instruction {words}; demos: {demos}"))
        _show_diff(change)


def _show_diff(change: PromptChange) -> None:
    for sign, style in (("-", "red"), ("+", "green")):
        lines = [line for line in change.diff if line.startswith(sign)]
        for line in lines[:_DIFF_LINES]:
            out.print(Text(f"    {line}", style=style), no_wrap=True, overflow="ellipsis")
        if len(lines) > _DIFF_LINES:
            out.print(Text(f"    {sign} ... {len(lines) - _DIFF_LINES} more lines", style=style))


def _show_model(found: Demonstration) -> None:
    for name in ("before", "after"):
        out.print(
            f"Copied from the demos in the prompts, {name} compiling: {found.motivations[name]} motivations, "
            f"{found.traits[name]} traits"
        )
        recovered = found.results[name].recovered
        if recovered is not None:
            out.print(
                f"  profiles that contain the user's main planted motivation: {recovered.primary_found:.0%}; random "
                f"profiles: {recovered.chance_primary_found:.0%}"
            )


def _table(found: Demonstration) -> Table:
    from evaluate.data.demo.planted_truth import PLANTED_TRUTH

    before, after = found.results["before"].figures, found.results["after"].figures
    rows = {
        "random": found.results["random"].figures.metrics,
        "popularity": found.results["popularity"].figures.metrics,
        "prior alone": found.results["prior"].figures.metrics,
        "MAR alone, before": before.components["mar"],
        "MAR alone, after": after.components["mar"],
        "prior and MAR, before": before.metrics,
        "prior and MAR, after": after.metrics,
        "prior and planted profiles": found.results[PLANTED_TRUTH].figures.metrics,
    }
    names = [name for name in before.metrics if name.startswith(("HR@5/", "NDCG@10/"))]
    title = f"{before.users} test users"
    table = Table("ranker", *(f"{name} [95% CI]" for name in names), title=title, title_justify="left")
    for label, metrics in rows.items():
        table.add_row(label, *(format_estimate(metrics[name]) for name in names))
    return table
