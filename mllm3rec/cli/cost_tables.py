"""Tables of `mllm3rec prices table`: costs of current models, and those of the paper's Table 7."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mllm3rec.cli.console import figure_table, out

if TYPE_CHECKING:
    from evaluate.paper.current_costs import CurrentCost, PaperCost

_WAYS = ("direct", "direct_cached", "batch", "batch_cached")


def show_costs(costs: Sequence[CurrentCost], paper: Sequence[PaperCost]) -> None:
    """Print both tables, and the source and date of every price."""
    sources = {text: number for number, text in enumerate(dict.fromkeys(_source(cost) for cost in costs), start=1)}
    for title, unit in (("1,000 users", "per_thousand_users"), ("a million items", "per_million_items")):
        columns = (*(way.replace("_", ", ") for way in _WAYS), "price")
        table = figure_table(f"Dollars for {title}, {datetime.date.today()}", "model", *columns)
        for cost in costs:
            figures = [getattr(getattr(cost, unit), way) for way in _WAYS]
            table.add_row(cost.model, *map(_usd, figures), str(sources[_source(cost)]))
        out.print(table)
    for text, number in sources.items():
        out.print(f"price {number}: {text}", soft_wrap=True)
    out.print("cached: all that the prompts share is read from the provider's cache, if it keeps prompts this short.")
    title = "Dollars for one user, whose 30 candidates are distilled for that user alone"
    table = figure_table(title, "model", "here", f"the paper's Table 7: {', '.join(paper[0].published)}")
    for cost in costs:
        table.add_row(cost.model, f"{cost.per_list:.4f}", "")
    for row in paper:
        table.add_row(f"{row.deployment} (paper)", f"{row.per_list:.4f}", " ".join(map(str, row.published.values())))
    out.print(table)


def _source(cost: CurrentCost) -> str:
    price = cost.price
    read = f", read {price.dated}" if price.dated is not None else ""
    gone = f"; retires on {price.retired}" if price.retired is not None else ""
    return f"{price.source}{read}{gone}"


def _usd(usd: float | None) -> str:
    """Dollars to three figures.

    >>> _usd(0.4678), _usd(57.54), _usd(2300.4), _usd(None)
    ('.468', '57.5', '2,300', '-')
    """
    if usd is None:
        return "-"
    if usd >= 100:
        return f"{usd:,.0f}"
    return f"{usd:.1f}" if usd >= 10 else f"{usd:.2f}" if usd >= 1 else f"{usd:.3f}".lstrip("0")
