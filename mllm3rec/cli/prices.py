"""`mllm3rec prices`: prices of models, with source and date."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mllm3rec.cli.console import emit, out
from mllm3rec.cli.cost_tables import show_costs
from mllm3rec.cli.options import Json, PricesFile

if TYPE_CHECKING:
    from programs.lm.prices import Price, PriceTable

app = typer.Typer(no_args_is_help=True, help="Prices of models, with source and date.")


@app.command("show")
def show(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Parts of model strings, such as gpt-6. Default: your own, the paper's and the presets'."),
    ] = None,
    prices: PricesFile = None,
    as_json: Json = False,
) -> None:
    """Show prices. Your own prices replace those of the package. Exit code 1 if no model has such a name."""
    from programs.lm.prices import price_table

    table = price_table()
    found = _found(table, names or [])
    if as_json:
        models = {model: price.model_dump(mode="json", exclude_none=True) for model, price in found.items()}
        emit({"dated": table.dated, "models": models})
    elif found:
        _show(found)
    else:
        out.print(f"No listed model has {' or '.join(names or [])!r} in its name.")
    raise typer.Exit(0 if found else 1)


def _found(table: PriceTable, parts: list[str]) -> dict[str, Price]:
    from programs.lm.roles import PRESETS, ROLE_NAMES

    if parts:
        names = [name for name in table.names() if any(part.lower() in name.lower() for part in parts)]
    else:
        used = dict.fromkeys(roles.of(role).model for roles in PRESETS.values() for role in ROLE_NAMES)
        names = [*table.models, *(model for model in used if model not in table.models)]
    prices = {name: table.of(name) for name in names}
    return {name: price for name, price in prices.items() if price is not None}


def _show(found: dict[str, Price]) -> None:
    sources = {source: number for number, source in enumerate({p.source: None for p in found.values()}, start=1)}
    table = Table(title="Dollars per million tokens, or per hour of a machine", title_justify="left")
    columns = ("model", "in", "cached", "cache write", "out", "batch in", "batch out", "per hour", "retires", "read")
    for column in (*columns, "source"):
        table.add_column(column, justify="left" if column in ("model", "retires", "read") else "right")
    for model, price in found.items():
        by_tokens = price.usd_per_hour is None
        table.add_row(
            model,
            _figure(price.input if by_tokens else None),
            _figure(price.cached),
            _figure(price.cache_write),
            _figure(price.output if by_tokens else None),
            _figure(None if price.batch is None else price.batch.input),
            _figure(None if price.batch is None else price.batch.output),
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
    models: Annotated[list[str], typer.Argument(help="Model strings, such as openai/gpt-6-luna.")],
    prices: PricesFile = None,
    as_json: Json = False,
) -> None:
    """Show the price of each model, and warn 60 days before it is retired. Exit code 1 if one is not known."""
    from programs.lm.prices import price_table

    table = price_table()
    today = datetime.date.today()
    checked = {model: _checked(table.of(model), today) for model in models}
    if as_json:
        emit({"models": checked})
    else:
        for model, facts in checked.items():
            out.print(f"{model}: {_sentence(table.of(model), facts)}", soft_wrap=True)
    raise typer.Exit(0 if all(facts["known"] for facts in checked.values()) else 1)


def _checked(price: Price | None, today: datetime.date) -> dict[str, Any]:
    from programs.lm.prices import WARN_DAYS

    if price is None:
        return {"known": False}
    return {
        "known": True,
        "retired": price.retires_within(0, today),
        "retires_soon": price.retires_within(WARN_DAYS, today),
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
        batch = "" if price.batch is None else f"; in a batch ${price.batch.input:g} in, ${price.batch.output:g} out"
        what = f"${price.input:g} in, ${price.output:g} out{cached} per million tokens{batch}"
    read = "" if price.dated is None else f"; read {price.dated}, {facts['age_days']} days ago"
    gone = ""
    if price.retired is not None:
        gone = f"; {'retired since' if facts['retired'] else 'retires on'} {price.retired}"
    warning = "" if facts["retired"] or not facts["retires_soon"] else ": choose another model"
    return f"{what}{read} ({price.source}){gone}{warning}"


@app.command("table")
def table(
    models: Annotated[list[str] | None, typer.Argument(help="Model strings. Default: current models.")] = None,
    prices: PricesFile = None,
    as_json: Json = False,
) -> None:
    """What MOPE, MOTE and MAR cost with each model, by measured tokens, next to the paper's Table 7.

    Exit code 1 if a model has no price for each token.
    """
    from evaluate.paper.current_costs import CURRENT, current_costs, paper_costs
    from programs.lm.prices import price_table

    asked = models or CURRENT
    known = price_table()
    costs, paper = current_costs(known, asked), paper_costs(known)
    missing = [model for model in asked if model not in {cost.model for cost in costs}]
    if as_json:
        emit(
            {
                "made": str(datetime.date.today()),
                "models": [cost.model_dump(mode="json", exclude_none=True) for cost in costs],
                "paper": [cost.model_dump(mode="json") for cost in paper],
                "without_price": missing,
            }
        )
    else:
        show_costs(costs, paper)
        for model in missing:
            out.print(f"{model}: no known price for each token; add it to a file for --prices", soft_wrap=True)
    raise typer.Exit(1 if missing else 0)


def _figure(usd: float | None) -> str:
    return "-" if usd is None else f"{usd:g}"
