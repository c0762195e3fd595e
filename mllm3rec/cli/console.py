"""What a person sees, and what a machine reads: tables and progress on stderr or stdout, JSON on stdout."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partialmethod
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from tqdm import tqdm

from evaluate.runs.planted_recovery import Recovery
from evaluate.runs.run_metrics import RunMetrics
from evaluate.stats.intervals import Estimate
from programs.lm.ledger import Ledger
from signatures.rows import Usage

# Without emoji: rich would read `cases.jsonl:100:` as one.
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def quieten_dspy() -> None:
    """Keep DSPy's bars from being drawn over ours, and its warnings of every cut answer and unused field away."""
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    logging.getLogger("dspy").setLevel(logging.ERROR)


def say(message: str) -> None:
    """One line for a person; never on stdout, which belongs to results."""
    err.print(message, markup=False, soft_wrap=True)


def emit(payload: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(payload, ensure_ascii=False, default=str))


def dollars(usd: float | None) -> str:
    """Dollars for a table; an unknown price is unknown, not zero."""
    return "-" if usd is None else f"${usd:.4f}"


def figure(estimate: Estimate) -> str:
    """Mean with its 95% interval."""
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


class Ticker:
    """Advances a progress bar and shows what has been spent."""

    def __init__(self, progress: Progress, task: Any, ledger: Ledger | None) -> None:
        self._progress = progress
        self._task = task
        self._ledger = ledger
        self._started = time.monotonic()
        self._count = 0

    def advance(self, steps: int = 1) -> None:
        """Count steps done."""
        self._count += steps
        rate = self._count / max(time.monotonic() - self._started, 1e-9)
        spent = ""
        if self._ledger is not None:
            total = self._ledger.total()
            if total.calls or total.cache_hits:
                spent = f" {total.calls} calls, {total.cache_hits} stored, {dollars(total.usd)}"
        self._progress.update(self._task, advance=steps, spent=f"{rate:.2f}/s{spent}")

    def to(self, done: int, total: int) -> None:
        """Set steps done out of a total."""
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def progress(what: str, total: int, ledger: Ledger | None = None) -> Iterator[Ticker]:
    """A progress bar on stderr: what, how many, rate, calls and dollars so far, time left."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[spent]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=total, spent="")
        yield Ticker(bar, task, ledger)


def results_table(results: RunMetrics, title: str) -> Table:
    """Metrics of a run, one line per component, the ranker's own order first."""
    names = list(results.metrics)
    table = Table(title=title, title_justify="left")
    table.add_column("scores")
    for name in names:
        table.add_column(f"{name} [95% CI]", justify="right")
    table.add_column("n", justify="right")
    rows = {results.ranker: results.metrics} | {
        f"  {component} alone" if component in ("prior", "mar") else f"  {component}": metrics
        for component, metrics in results.components.items()
        if component != results.ranker
    }
    for label, metrics in rows.items():
        table.add_row(label, *(figure(metrics[name]) for name in names), str(results.users))
    return table


def usage_table(by_role: Mapping[str, Usage]) -> Table:
    """Calls, tokens, dollars and seconds per role."""
    table = Table(title="Language models", title_justify="left")
    for column in ("role", "calls", "stored", "tokens in", "of which cached", "tokens out", "dollars", "seconds"):
        table.add_column(column, justify="left" if column == "role" else "right")
    for role, usage in by_role.items():
        share = f"{usage.tokens_cached / usage.tokens_in:.0%}" if usage.tokens_in else "-"
        table.add_row(
            role,
            str(usage.calls),
            str(usage.cache_hits),
            str(usage.tokens_in),
            share,
            str(usage.tokens_out),
            dollars(usage.usd),
            f"{usage.seconds:.0f}",
        )
    return table


def recovery_line(recovered: Recovery) -> str:
    """How well profiles recover planted motivations, next to a profile drawn at random."""
    return (
        f"planted motivations, n={recovered.n}: "
        f"primary found {recovered.primary_found:.2f} (chance {recovered.chance_primary_found:.2f}), "
        f"precision {recovered.precision:.2f} (chance {recovered.chance_precision:.2f}), "
        f"recall {recovered.recall:.2f} (chance {recovered.chance_recall:.2f})"
    )
