"""`mllm3rec evaluate`: rank frozen cases with any ranker, and print metrics with intervals."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllm3rec.cli.console import (
    ConsoleEvents,
    emit,
    err,
    format_estimate,
    further_table,
    metrics_table,
    out,
    recovery_line,
    usage_table,
)
from mllm3rec.cli.options import (
    BudgetUsd,
    CasesFile,
    DatasetOption,
    EncoderOption,
    Fresh,
    Head,
    Json,
    JudgeOption,
    LogTo,
    MarOption,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    ModelOption,
    MopeOption,
    MoteOption,
    Preset,
    PricesFile,
    PriorOption,
    RetryUnparsable,
    SchemaFile,
    Timeout,
    ViaOption,
    Weight,
    Workers,
    option_group,
)

if TYPE_CHECKING:
    from evaluate.runs.evaluation import Evaluation
    from evaluate.runs.run_metrics import RunMetrics

_explain = option_group("Explanations")
_fusion = option_group("Fusion")


def evaluate(
    cases: CasesFile,
    ranker: Annotated[
        str, typer.Option(help="Name of a baseline or program, folder of an artifact, or run:FILE (TREC).")
    ],
    directory: Annotated[Path, typer.Option("--out", help="Run directory; the same command resumes the run.")],
    dataset: DatasetOption = None,
    preset: Preset = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mope: MopeOption = None,
    mote: MoteOption = None,
    mar: MarOption = None,
    judge: JudgeOption = None,
    weight: Weight = None,
    head: Head = None,
    gate: Annotated[Path | None, _fusion(help="Gate file of `mllm3rec gate`, in place of the fusion weight.")] = None,
    ask: Annotated[
        float | None,
        _fusion(min=0, max=1, help="Ask about this share of users only, where the prior is least sure; needs a gate."),
    ] = None,
    prior: PriorOption = None,
    explain: Annotated[int, _explain(min=0, help="Number of first items that get a reason.")] = 0,
    check: Annotated[bool, _explain(help="Whether the judge re-checks reasons.")] = True,
    schema: SchemaFile = None,
    seed: Annotated[int, typer.Option(min=0, help="Training seed of a trained baseline.")] = 0,
    against: Annotated[Path | None, typer.Option(help="Finished run on the same cases, to compare with.")] = None,
    k: Annotated[
        str | None,
        typer.Option(
            "--k", help="Cutoffs of a second table, such as 1,3,20: HR, NDCG, MRR, coverage, novelty, diversity, ..."
        ),
    ] = None,
    workers: Workers = 1,
    via: ViaOption = "calls",
    retry_unparsable: RetryUnparsable = False,
    budget_usd: BudgetUsd = None,
    prices: PricesFile = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    fresh: Fresh = False,
    log: LogTo = None,
    as_json: Json = False,
) -> None:
    """Rank every case and report HR@K and NDCG@K with intervals.

    Exit code 1 if a user is unresolved, or if no answer could be read for more than half of the users.
    """
    import mllm3rec as m3
    from mllm3rec.trackers.live_tracking import tracked
    from programs.lm.fresh_answers import fresh_answers

    with (
        fresh_answers(fresh, directory),
        ConsoleEvents() as console,
        tracked(log, directory, console) as events,
    ):
        result = m3.evaluate(
            m3.load_cases(cases, dataset),
            ranker,
            against=against,
            ks=_cutoffs(k),
            out=directory,
            weight=weight,
            head=head,
            gate=gate,
            ask=ask,
            prior=prior,
            schema=schema,
            explain=explain,
            check=check,
            seed=seed,
            workers=workers,
            via=via,
            retry_unparsable=retry_unparsable,
            budget_usd=budget_usd,
            max_calls=max_calls,
            max_minutes=max_minutes,
            on_event=events,
            preset=preset,
            model=model,
            mope=mope,
            mote=mote,
            mar=mar,
            judge=judge,
            timeout=timeout,
            max_tokens=max_tokens,
        )
    if as_json:
        emit(_facts(result))
    else:
        _show(result, against)
    raise typer.Exit(0 if result.complete and result.figures.readable else 1)


def _cutoffs(written: str | None) -> list[int]:
    from programs.runtime.errors import InputError

    try:
        return [int(k) for k in written.split(",")] if written else []
    except ValueError:
        raise InputError(f"--k {written!r:.200}: give whole numbers, such as 1,3,5,10,20") from None


def _facts(result: Evaluation) -> dict[str, object]:
    return {
        **result.figures.model_dump(mode="json"),
        "recovery": None if result.recovered is None else asdict(result.recovered),
        "complete": result.complete,
        "run": str(result.directory),
        "against": {name: found.model_dump() for name, found in result.against.items()},
    }


def _show(result: Evaluation, against: Path | None) -> None:
    protocol, figures = result.cases.protocol, result.figures
    title = (
        f"{protocol.dataset}, {protocol.setting}, {protocol.part} users, target {protocol.target}, "
        f"{protocol.negatives} {protocol.sampling} negatives"
    )
    _show_metrics(figures, title)
    if figures.not_asked:
        out.print(f"asked about {figures.asked} of {figures.users} users; the prior alone ranks the others")
    _show_scores(figures)
    if figures.refused_items:
        out.print(
            f"{figures.refused_items} items without traits, because the provider refused their text", style="yellow"
        )
    if result.recovered is not None:
        out.print(recovery_line(result.recovered))
    if figures.unresolved:
        limits = "; ".join(f"{name} between {b.low:.3f} and {b.high:.3f}" for name, b in figures.bounds.items())
        out.print(f"{figures.unresolved} users unresolved: {limits}", style="yellow")
    if figures.audit is not None and figures.audit.impossible:
        err.print(f"audit: {'; '.join(map(str, figures.audit.violations))}", style="red")
    for metric, difference in result.against.items():
        out.print(f"{metric}: {format_estimate(difference)} against {against} (paired, n={difference.n})")
    if result.usage_by_role:
        out.print(usage_table(result.usage_by_role))
    out.print(f"written: {result.directory}")


def _show_metrics(figures: RunMetrics, title: str) -> None:
    if figures.warning is not None:
        out.print(figures.warning, style="red")
    out.print(metrics_table(figures, title))
    if figures.further:
        out.print(further_table(figures))
    for metric, difference in figures.against_prior.items():
        out.print(f"{metric}: {format_estimate(difference)} against the prior alone (paired, n={difference.n})")


def _show_scores(figures: RunMetrics) -> None:
    """How MAR's scores came about."""
    if figures.score_sources or figures.unparsable_users:
        sources = ", ".join(f"{source} for {count} users" for source, count in figures.score_sources.items())
        out.print(
            f"MAR scores from {sources or 'no answer'}; {figures.unparsable_answers:.2%} of answers unparsable; "
            f"per user {figures.appended:.1f} candidates left out and {figures.dropped:.1f} labels dropped; "
            f"{figures.refused_traits:.1%} of trait phrases refused"
        )
    if figures.position_bias:
        curve = " ".join(f"{mean:+.2f}" for mean in figures.position_bias)
        out.print(f"MAR's preference by position in the prompt, in nats before calibration: {curve}")
