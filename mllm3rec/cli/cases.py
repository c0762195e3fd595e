"""`mllm3rec cases`: draw candidate lists once, and freeze them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evaluate.protocol.cases import draw_cases, write_cases
from evaluate.protocol.protocol import ColdHistory, ColdPositive, EvaluationProtocol, Sampling, Setting, Target
from mllm3rec.cli.console import emit, out, say
from mllm3rec.cli.settings import Json, open_dataset
from programs.runtime.errors import InputError


def cases(
    dataset: Annotated[str, typer.Argument(help="A dataset directory, or `demo`.")],
    path: Annotated[Path, typer.Option("--out", help="File to write.")],
    part: Annotated[Literal["dev", "test", "all"], typer.Option(help="Which users.")] = "dev",
    users: Annotated[str, typer.Option(help="How many users, or `all`.")] = "all",
    negatives: Annotated[int, typer.Option(min=1, help="Sampled negatives per user.")] = 29,
    target: Annotated[Target, typer.Option(help="Which interaction is held out.")] = "last-liked",
    setting: Annotated[Setting, typer.Option(help="Warm, or one of the paper's cold-start settings.")] = "warm",
    sampling: Annotated[Sampling, typer.Option(help="How negatives are drawn.")] = "uniform",
    draw: Annotated[int, typer.Option(min=0, help="Another draw of negatives for the same users.")] = 0,
    last: Annotated[int | None, typer.Option(min=1, help="Cut histories to the last N interactions.")] = None,
    cold_positive: Annotated[ColdPositive, typer.Option(help="Item-cold: whose target is a cold item.")] = "target",
    cold_history: Annotated[ColdHistory, typer.Option(help="User-cold: what is known of a user.")] = "window",
    seed: Annotated[int, typer.Option(help="Decides candidates and the sample of users.")] = 0,
    as_json: Json = False,
) -> None:
    """Hold out one interaction per user, draw its negatives, and write both to a file every ranker shares."""
    if users != "all" and not (users.isdigit() and int(users) > 0):
        raise InputError(f"--users {users!r}: give a positive number or `all`")
    data = open_dataset(dataset)
    if data.interactions["rating"].isna().all() and target != "last":
        say(f"note: no ratings in {data.name!r}: every interaction counts as liked")
    protocol = EvaluationProtocol(
        dataset=data.name,
        source=dataset if dataset == "demo" else str(Path(dataset).resolve()),
        dataset_sha256=data.sha256,
        setting=setting,
        target=target,
        negatives=negatives,
        sampling=sampling,
        part=part,
        users=None if users == "all" else int(users),
        seed=seed,
        draw=draw,
        last=last,
        cold_positive=cold_positive,
        cold_history=cold_history,
    )
    drawn = draw_cases(data, protocol)
    if protocol.users is not None and len(drawn) < protocol.users:
        say(f"note: only {len(drawn)} users of part {part!r} have a {target} target")
    written = write_cases(path, protocol, drawn)
    if as_json:
        emit({"cases": str(path), "users": len(drawn), "sha256": written.sha256, **protocol.model_dump(mode="json")})
    else:
        for about, choice in protocol.choices().items():
            say(f"{about}: {choice}")
        out.print(f"{len(drawn)} users, 1 + {negatives} candidates each: {path} (sha256 {written.sha256[:12]})")
