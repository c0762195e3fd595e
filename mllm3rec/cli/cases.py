"""`mllm3rec cases`: draw candidate lists once, and freeze them in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from mllm3rec.cli.console import ConsoleEvents, emit, out, say
from mllm3rec.cli.options import DatasetName, Json

COLD = "Cold-start"


def cases(
    dataset: DatasetName,
    path: Annotated[Path, typer.Option("--out", help="File to write.")],
    part: Annotated[Literal["dev", "test", "all"], typer.Option(help="Which users.")] = "dev",
    users: Annotated[str, typer.Option(help="How many users, or `all`.")] = "all",
    negatives: Annotated[int, typer.Option(min=1, help="Sampled negatives per user.")] = 29,
    target: Annotated[
        Literal["last-liked", "highest", "last"], typer.Option(help="Which interaction is held out.")
    ] = "last-liked",
    setting: Annotated[
        Literal["warm", "item-cold", "user-cold"], typer.Option(help="Warm, or one of the paper's cold-start settings.")
    ] = "warm",
    sampling: Annotated[
        Literal["uniform", "popularity", "matched"], typer.Option(help="How negatives are drawn.")
    ] = "uniform",
    draw: Annotated[int, typer.Option(min=0, help="Another draw of negatives for the same users.")] = 0,
    last: Annotated[int | None, typer.Option(min=1, help="Cut histories to the last N interactions.")] = None,
    cold_positive: Annotated[
        Literal["target", "any"], typer.Option(help="Item-cold: whose target is a cold item.", rich_help_panel=COLD)
    ] = "target",
    cold_history: Annotated[
        Literal["window", "recent"], typer.Option(help="User-cold: what is known of a user.", rich_help_panel=COLD)
    ] = "window",
    seed: Annotated[int, typer.Option(help="Decides candidates and the sample of users.")] = 0,
    as_json: Json = False,
) -> None:
    """Hold out one interaction per user, draw its negatives, and write both to a file that every ranker shares."""
    import mllm3rec as m3
    from evaluate.protocol.cases import users_short_of_items

    if users != "all" and not re.fullmatch("0*[1-9][0-9]{0,17}", users):
        raise m3.InputError(f"--users {users!r}: give a positive number or `all`")
    with ConsoleEvents() as events:
        data = m3.load_dataset(dataset)
        for note in data.notes:
            events(m3.Note(f"note: {note}"))
    if data.interactions["rating"].isna().all() and target != "last":
        say(f"note: no ratings in {data.name!r}: every interaction counts as liked")
    wanted = None if users == "all" else int(users)
    drawn = m3.draw_cases(
        data,
        part=part,
        users=wanted,
        negatives=negatives,
        target=target,
        setting=setting,
        sampling=sampling,
        draw=draw,
        last=last,
        cold_positive=cold_positive,
        cold_history=cold_history,
        seed=seed,
    )
    short = users_short_of_items(data, drawn.protocol)
    if short:
        say(f"note: {len(short)} users ({short[0]!r}, ...) have too few items left for {negatives} negatives: left out")
    if wanted is not None and len(drawn) < wanted:
        say(f"note: only {len(drawn)} users of part {part!r} have a {target} target")
    drawn.save(path)
    if as_json:
        protocol = drawn.protocol.model_dump(mode="json")
        emit({"cases": str(path), "users": len(drawn), "sha256": drawn.sha256, **protocol})
        return
    for about, choice in drawn.protocol.choices().items():
        say(f"{about}: {choice}")
    out.print(f"{len(drawn)} users, 1 + {negatives} candidates each: {path} (sha256 {drawn.sha256[:12]})")
