"""`mllm3rec cache`: what the cache folder holds, by model and role, and how to remove it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from mllm3rec.cli.console import emit, figure_table, out
from mllm3rec.cli.options import Json

app = typer.Typer(help="Show and remove stored answers, traits and embeddings.", invoke_without_command=True)

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.callback()
def cache(context: typer.Context, as_json: Json = False) -> None:
    """Show how much the cache folder holds, and stored answers by model and role."""
    if context.invoked_subcommand is not None:
        return
    from programs.lm.cache_contents import answer_counts, cache_sizes
    from programs.runtime.environment import cache_dir

    folder = cache_dir()
    sizes, answers = cache_sizes(folder), answer_counts(folder)
    if as_json:
        emit({"folder": str(folder), "sizes": [asdict(one) for one in sizes], "answers": [asdict(a) for a in answers]})
        return
    table = figure_table(f"{folder}", "kind", "entries", "MB")
    for one in sizes:
        table.add_row(one.kind, f"{one.entries:,}", f"{one.bytes / 1e6:.1f}")
    out.print(table)
    table = figure_table("Stored answers", "model", "role", "answers", "MB")
    for answer in answers:
        table.add_row(answer.model or "-", answer.role or "-", f"{answer.answers:,}", f"{answer.bytes / 1e6:.1f}")
    out.print(table)


@app.command()
def forget(
    model: Annotated[str, typer.Argument(help="Model as `mllm3rec cache` shows it.")], as_json: Json = False
) -> None:
    """Remove the stored answers of one model: they are paid again when they are asked for. Traits stay."""
    from programs.lm.cache_contents import forget_answers
    from programs.runtime.environment import cache_dir

    removed = forget_answers(cache_dir(), model)
    if as_json:
        emit({"removed": removed})
    else:
        out.print(f"removed: {removed:,} answers of {model}")


@app.command()
def clear(
    kind: Annotated[str, typer.Argument(help="answers, traits, embeddings, neighbours or fits.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove everything of one kind. Answers and traits are paid again when they are needed."""
    from programs.lm.cache_contents import clear_cache
    from programs.runtime.environment import cache_dir

    if not yes:
        typer.confirm(f"Remove all {kind} from {cache_dir()}?", abort=True, err=True)
    clear_cache(cache_dir(), kind)
    if as_json:
        emit({"cleared": kind})
    else:
        out.print(f"cleared: {kind}")
