"""`mllm3rec cases`: draw candidates once and freeze them in a file."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from mllm3rec.cli.console import ConsoleEvents, emit, out, say
from mllm3rec.cli.options import ColumnNames, DatasetName, Json, option_group, read_columns

_cold = option_group("Cold-start")


def cases(
    dataset: DatasetName,
    path: Annotated[Path, typer.Option("--out", help="Cases file to write.")],
    part: Annotated[
        Literal["dev", "test", "all"], typer.Option(help="Dev users (for tuning), test users (for figures), or all.")
    ] = "dev",
    users: Annotated[str, typer.Option(help="Number of users, or `all`.")] = "all",
    skip: Annotated[
        int, typer.Option(min=0, help="Users to leave out first, to confirm a figure on others of the same order.")
    ] = 0,
    negatives: Annotated[int, typer.Option(min=1, help="Negatives to sample for each user.")] = 29,
    target: Annotated[
        Literal["last-liked", "highest", "last"], typer.Option(help="Interaction to hold out, see docs/protocol.md.")
    ] = "last-liked",
    setting: Annotated[
        Literal["warm", "item-cold", "user-cold", "time"],
        typer.Option(help="Warm, a cold-start setting of the paper, or one date for all users."),
    ] = "warm",
    since: Annotated[
        str | None,
        typer.Option(help="With --setting time: date from which on all is test. Default: the latest 10% of records."),
    ] = None,
    sampling: Annotated[
        Literal["uniform", "popularity", "matched"] | None,
        typer.Option(help="How negatives are drawn. Default: matched for item-cold, else uniform."),
    ] = None,
    draw: Annotated[int, typer.Option(min=0, help="Draw number; others give other negatives.")] = 0,
    last: Annotated[int | None, typer.Option(min=1, help="Length to cut histories to. Default: uncut.")] = None,
    cold_positive: Annotated[
        Literal["target", "any"], _cold(help="Users with a cold target, or with any cold item.")
    ] = "target",
    cold_history: Annotated[
        Literal["window", "recent"], _cold(help="History in the test window, or the last two items.")
    ] = "window",
    seed: Annotated[int, typer.Option(help="Random seed for users, negatives and their order.")] = 0,
    columns: ColumnNames = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that holds other cases.")] = False,
    as_json: Json = False,
) -> None:
    """Hold out one interaction of each user, draw negatives, and write the candidates to a file for all rankers."""
    import mllm3rec as m3
    from evaluate.protocol.cases import users_short_of_items

    if users != "all" and not re.fullmatch("0*[1-9][0-9]{0,17}", users):
        raise m3.InputError(f"--users {users!r}: give a positive number or `all`")
    with ConsoleEvents() as events:
        data = m3.load_dataset(dataset, read_columns(columns))
        for note in data.notes:
            events(m3.Note(f"note: {note}"))
    if data.interactions["rating"].isna().all() and target != "last":
        say(f"note: no ratings in {data.name!r}: every interaction counts as liked")
    wanted = None if users == "all" else int(users)
    drawn = m3.draw_cases(
        data,
        part=part,
        users=wanted,
        skip=skip,
        negatives=negatives,
        target=target,
        setting=setting,
        since=since,
        sampling=sampling,
        draw=draw,
        last=last,
        cold_positive=cold_positive,
        cold_history=cold_history,
        seed=seed,
    )
    short = users_short_of_items(data, drawn.protocol)
    if short:
        say(
            f"note: left out {len(short)} users ({short[0]!r}, ...): fewer than {negatives} negatives are left for them"
        )
    if wanted is not None and len(drawn) < wanted:
        after = f" after the first {skip}" if skip else ""
        say(f"note: only {len(drawn)} users of part {part!r} have a target of type {target}{after}")
    if not replace:
        drawn.refuse_other_file(path)
    drawn.save(path)
    warnings = drawn.warnings()
    for warning in warnings:
        say(f"warning: {warning}")
    if as_json:
        protocol = drawn.protocol.model_dump(mode="json")
        facts = protocol | {"cases": str(path), "users": len(drawn), "sha256": drawn.sha256}
        emit(facts | {"warnings": [asdict(warning) for warning in warnings]})
        return
    for about, choice in drawn.protocol.choices().items():
        say(f"{about}: {choice}")
    out.print(f"{len(drawn)} users, 1 + {negatives} candidates each: {path} (sha256 {drawn.sha256[:12]})")
