"""Console output: notes and progress bars on stderr, tables or one JSON object on stdout."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from functools import partialmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from programs.runtime.events import Event, Note, Progress

if TYPE_CHECKING:
    from evaluate.runs.planted_recovery import Recovery
    from evaluate.runs.run_metrics import RunMetrics
    from evaluate.stats.intervals import Estimate
    from signatures.rows import Usage

# Names, paths and ids of users are printed: rich must read neither `[ours]` as markup nor `:100:` as an emoji.
out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def silence_dspy() -> None:
    """Keep DSPy's progress bars and warnings from being drawn over ours."""
    from tqdm import tqdm

    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    logging.getLogger("dspy").setLevel(logging.ERROR)


def say(message: str) -> None:
    """One line for a person; never on stdout, which belongs to results."""
    err.print(message, soft_wrap=True)


def emit(payload: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(payload, ensure_ascii=False, default=str))


def format_usd(usd: float | None) -> str:
    """Dollars for a table; an unknown price is unknown, not zero."""
    return "-" if usd is None else f"${usd:.4f}"


def format_estimate(estimate: Estimate) -> str:
    """Mean with its 95% interval."""
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


class ConsoleEvents:
    """Shows events on stderr: notes as lines, tasks as bars with rate, calls, dollars and time left.

    A context manager; calling it is an `OnEvent`.
    """

    def __init__(self) -> None:
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[spent]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
        )
        self._tasks: dict[str, tuple[TaskID, float, int]] = {}

    def __enter__(self) -> Self:
        silence_dspy()
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Note):
            say(event.text)
        else:
            self._advance(event)

    def _advance(self, event: Progress) -> None:
        if event.task not in self._tasks:
            for task, _, _ in self._tasks.values():
                self._bars.remove_task(task)
            self._tasks.clear()
            task = self._bars.add_task(event.task, total=event.total, completed=event.done, spent="")
            self._tasks[event.task] = task, time.monotonic(), event.done
        task, started, before = self._tasks[event.task]
        rate = (event.done - before) / max(time.monotonic() - started, 1e-9)
        spent = f"{rate:.2f}/s"
        if event.usage is not None and (event.usage.calls or event.usage.cache_hits):
            spent += f" {event.usage.calls} calls, {event.usage.cache_hits} cache hits, {format_usd(event.usage.usd)}"
        self._bars.update(task, completed=event.done, total=event.total, spent=spent)
        if event.done >= event.total:
            self._bars.remove_task(task)
            del self._tasks[event.task]


def metrics_table(results: RunMetrics, title: str) -> Table:
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
        table.add_row(label, *(format_estimate(metrics[name]) for name in names), str(results.users))
    return table


def usage_table(by_role: Mapping[str, Usage]) -> Table:
    """Calls, tokens, dollars and seconds per role."""
    table = Table(title="Language models", title_justify="left")
    for column in ("role", "calls", "cache hits", "tokens in", "of which cached", "tokens out", "dollars", "seconds"):
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
            format_usd(usage.usd),
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
