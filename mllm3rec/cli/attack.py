"""`mllm3rec attack`: how far an item moves up if its texts contain attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from mllm3rec.cli.console import ConsoleEvents, emit, out, usage_table
from mllm3rec.cli.options import (
    BudgetUsd,
    CasesFile,
    DatasetOption,
    EncoderOption,
    Fresh,
    Head,
    Json,
    JudgeOption,
    MarOption,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    ModelOption,
    MopeOption,
    MoteOption,
    Preset,
    PricesFile,
    RetryUnparsable,
    SchemaFile,
    Timeout,
    Weight,
    Workers,
    given_command,
)

if TYPE_CHECKING:
    from evaluate.attacks.results import AttackEffect
    from evaluate.stats.intervals import Estimate
    from mllm3rec.api.attack import AttackOutcome

EXPLANATION = (
    "gain: ranks that the attacked item moved up, with 95% interval; over control: the gain minus that of a harmless "
    "edit of equal length; new in top: share of lists where it is newly among the first 5 (the control in brackets); "
    "NDCG: NDCG@10 that the target lost"
)


def attack(
    context: typer.Context,
    cases: CasesFile,
    ranker: Annotated[
        list[str],
        typer.Option(
            "--ranker",
            "--rankers",
            help="Name of an untrained baseline or program, or the folder of an artifact; repeatable.",
        ),
    ],
    directory: Annotated[Path, typer.Option("--out", help="Run directory; the same command resumes the run.")],
    dataset: DatasetOption = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", "--attacks", help="Name or kind of an attack; repeatable. Default: all attacks."),
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="Number of users, the first of the cases. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the attacked item in each list.")] = 0,
    preset: Preset = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mope: MopeOption = None,
    mote: MoteOption = None,
    mar: MarOption = None,
    judge: JudgeOption = None,
    weight: Weight = None,
    head: Head = None,
    schema: SchemaFile = None,
    workers: Workers = 1,
    budget_usd: BudgetUsd = None,
    prices: PricesFile = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    retry_unparsable: RetryUnparsable = False,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Attack one item in each list, and report how far it moves up.

    Exit code 1 if rankings are missing, or if no answer could be read for more than half of the attacked lists.
    """
    import mllm3rec as m3
    from programs.lm.fresh_answers import fresh_answers

    with fresh_answers(fresh, directory), ConsoleEvents() as events:
        found = m3.attack(
            m3.load_cases(cases, dataset),
            ranker,
            out=directory,
            attacks=attacks or (),
            users=users,
            seed=seed,
            weight=weight,
            head=head,
            schema=schema,
            workers=workers,
            budget_usd=budget_usd,
            max_calls=max_calls,
            max_minutes=max_minutes,
            timeout=timeout,
            max_tokens=max_tokens,
            retry_unparsable=retry_unparsable,
            on_event=events,
            command=given_command(context),
            preset=preset,
            model=model,
            mope=mope,
            mote=mote,
            mar=mar,
            judge=judge,
        )
    if as_json:
        emit(
            found.results.model_dump(mode="json")
            | {
                "goal": found.results.goal,
                "complete": found.complete,
                "written": [str(path) for path in found.written],
            }
        )
    else:
        _show(found)
    if found.stopped is not None:
        raise m3.BudgetExceededError(found.stopped)
    raise typer.Exit(0 if found.complete and all(effect.readable for effect in found.results.overall) else 1)


def _show(found: AttackOutcome) -> None:
    results = found.results
    for effect in results.overall:
        if effect.unparsable:
            out.print(
                f"{effect.ranker}: {effect.unparsable} of {effect.lists} attacked lists: no answer of the model could "
                "be read; the prior alone ranks these lists",
                style="red",
            )
    out.print(effects_table("all attacks", "ranker", results.overall))
    for row, effects in (("kind", results.by_kind), ("attack", results.by_attack)):
        for ranker in (effect.ranker for effect in results.overall):
            own = [effect for effect in effects if effect.ranker == ranker]
            out.print(effects_table(f"{ranker} by {row}", row, own))
    if found.usage_by_role:
        out.print(usage_table(found.usage_by_role))
    out.print(EXPLANATION)
    out.print(results.goal)
    out.print(f"written: {found.written[0]}", soft_wrap=True)


def effects_table(title: str, first: str, effects: Sequence[AttackEffect]) -> Table:
    """One row per effect, for a terminal of 80 columns; report and JSON have all intervals."""
    named = [Column(name, justify="right") for name in ("gain", "over control", "new in top", "NDCG", "n")]
    table = Table(
        Column(first, no_wrap=True),
        *named,
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for effect in effects:
        table.add_row(
            effect.ranker if first == "ranker" else effect.attack,
            _ranks(effect.gain),
            _ranks(effect.gain_over_control),
            f"{effect.newcomers.mean:.2f} ({effect.control_newcomers.mean:.2f})",
            f"{effect.ndcg_lost.mean:+.3f}",
            str(effect.users),
        )
    return table


def _ranks(found: Estimate) -> str:
    return f"{found.mean:+.2f} [{found.low:.1f}, {found.high:.1f}]"
