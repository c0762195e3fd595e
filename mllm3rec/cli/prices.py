"""`mllm3rec prices`: prices of models, with source and date."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mllm3rec.cli.console import emit, out
from mllm3rec.cli.options import Json, PricesFile

if TYPE_CHECKING:
    from programs.lm.prices import Price

app = typer.Typer(no_args_is_help=True, help="Prices of models, with source and date.")


@app.command("show")
def show(prices: PricesFile = None, as_json: Json = False) -> None:
    """Show all prices. Your own prices replace those of the package."""
    from programs.lm.prices import price_table

    found = price_table(prices)
    if as_json:
        models = {model: price.model_dump(mode="json") for model, price in found.models.items()}
        emit({"dated": found.dated, "models": models})
        return
    sources = {source: number for number, source in enumerate({p.source: None for p in found.models.values()}, start=1)}
    table = Table(title="Dollars per million tokens, or per hour of a machine", title_justify="left")
    for column in ("model", "in", "cached", "out", "per hour", "retired", "read", "source"):
        table.add_column(column, justify="left" if column in ("model", "retired", "read") else "right")
    for model, price in found.models.items():
        by_tokens = price.usd_per_hour is None
        table.add_row(
            model,
            _figure(price.input if by_tokens else None),
            _figure(price.cached),
            _figure(price.output if by_tokens else None),
            _figure(price.usd_per_hour),
            str(price.retired or "-"),
            str(price.dated or "-"),
            str(sources[price.source]),
        )
    out.print(table)
    for source, number in sources.items():
        out.print(f"source {number}: {source}", soft_wrap=True)


@app.command("check")
def check(
    models: Annotated[list[str], typer.Argument(help="Model strings, such as openai/gpt-4.1.")],
    prices: PricesFile = None,
    as_json: Json = False,
) -> None:
    """Show the price of each model. Exit code 1 if a model has no known price."""
    from programs.lm.prices import price_table

    table = price_table(prices)
    today = datetime.date.today()
    checked = {model: _checked(table.models.get(model), today) for model in models}
    if as_json:
        emit({"models": checked})
    else:
        for model, facts in checked.items():
            out.print(f"{model}: {_sentence(table.models.get(model), facts)}", soft_wrap=True)
    raise typer.Exit(0 if all(facts["known"] for facts in checked.values()) else 1)


def _checked(price: Price | None, today: datetime.date) -> dict[str, Any]:
    if price is None:
        return {"known": False}
    return {
        "known": True,
        "retired": price.retired is not None and price.retired <= today,
        "age_days": None if price.dated is None else (today - price.dated).days,
        "price": price.model_dump(mode="json", exclude_none=True),
    }


def _sentence(price: Price | None, facts: dict[str, Any]) -> str:
    if price is None:
        return "no known price; add it to a file for --prices"
    if price.usd_per_hour is not None:
        what = f"${price.usd_per_hour:g} an hour"
    else:
        cached = "" if price.cached is None else f", ${price.cached:g} cached"
        what = f"${price.input:g} in, ${price.output:g} out{cached} per million tokens"
    gone = "" if price.retired is None else f"; {'retired since' if facts['retired'] else 'retires on'} {price.retired}"
    return f"{what}; read {price.dated}, {facts['age_days']} days ago ({price.source}){gone}"


def _figure(usd: float | None) -> str:
    return "-" if usd is None else f"{usd:g}"
