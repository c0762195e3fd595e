"""Console output: notes and progress bars on stderr, tables or one JSON object on stdout."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partialmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from unicodedata import category

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.table import Table

from programs.runtime.errors import abridged
from programs.runtime.events import Event, Note, Progress

if TYPE_CHECKING:
    from evaluate.runs.planted_recovery import Recovery
    from evaluate.runs.run_metrics import RunMetrics
    from evaluate.stats.intervals import Estimate
    from signatures.rows import Usage


def silence_progress_bars() -> None:
    """Switch off DSPy's progress bars, which would cover ours."""
    from tqdm import tqdm

    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)


def silence_dspy_log() -> None:
    """Switch off DSPy's warnings; only works after DSPy was imported, because the import sets the level of its log."""
    logging.getLogger("dspy").setLevel(logging.ERROR)


LONGEST_MESSAGE = 4000
"""Most characters of a message; the error page of a server may have millions."""

_INVISIBLE = {"Cc", "Cf", "Cs"}
"""Unicode categories of characters that control a terminal, are hidden, or cannot be shown."""


def printable(message: str) -> str:
    r"""The message, shortened and with escapes for characters that could control the terminal.

    >>> printable("file\x1b[2J.csv")
    'file\\x1b[2J.csv'
    """
    return _escaped(abridged(message, LONGEST_MESSAGE))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or category(c) not in _INVISIBLE else c.encode("unicode_escape").decode() for c in text
    )


class PlainConsole(Console):
    """A console on which titles, names and answers are shown as they are, and control nothing.

    `[ours]` is no markup, `:100:` is no emoji, and an escape sequence in a seller's text is a text.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything shown, with escapes for invisible characters of its texts."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_escaped(segment.text), segment.style)


out = PlainConsole()
err = PlainConsole(stderr=True)


def say(message: str) -> None:
    """Print one line on stderr; stdout is for results only."""
    err.print(printable(message), soft_wrap=True)


def emit(payload: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout, at once; characters that could control the terminal are escapes of JSON."""
    text = json.dumps(payload, ensure_ascii=False, default=str)
    # JSON escapes ASCII's own control characters only, and such characters stand in strings only.
    # At once, because a server goes on for hours after it has said where it is.
    print("".join(json.dumps(c)[1:-1] if category(c) in _INVISIBLE else c for c in text), flush=True)


def format_usd(usd: float | None) -> str:
    """Dollars for a table; `-` for an unknown price.

    >>> format_usd(None), format_usd(-0.25), format_usd(-0.00001)
    ('-', '-$0.2500', '$0.0000')
    """
    if usd is None:
        return "-"
    return f"{'-' if round(usd, 4) < 0 else ''}${abs(usd):.4f}"


def format_hours(seconds: float | None) -> str:
    """Hours for a table; `-` where unknown.

    >>> format_hours(None), format_hours(5400.0)
    ('-', '1.50')
    """
    return "-" if seconds is None else f"{seconds / 3600:.2f}"


def format_estimate(estimate: Estimate) -> str:
    """Mean with its 95% interval."""
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


LINE_EVERY = 5.0
"""Seconds between two progress lines when stderr is not a terminal."""


@dataclass
class _Task:
    """A task whose progress is shown.

    Attributes:
        started: `time.monotonic()` at its first event.
        before: Steps done before that event.
        said: `time.monotonic()` of its last line; not used with bars.
        bar: Its progress bar; None if lines are printed instead.
    """

    name: str
    started: float
    before: int
    said: float = -LINE_EVERY
    bar: TaskID | None = None

    def pace(self, event: Progress) -> str:
        """Steps done, speed, and the time left if it can be estimated."""
        seconds, done = time.monotonic() - self.started, event.done - self.before
        if event.done >= event.total:
            taken = f" in {seconds:.0f} s" if done and seconds >= 1 else ""
            return f"{event.total} of {event.total}{taken}"
        if not done:
            return f"{event.done} of {event.total}"
        each = seconds / done
        rate = f"{each:.1f} s each" if each > 1 else f"{1 / max(each, 1e-9):.1f} a second"
        return f"{event.done} of {event.total}, {rate}, {each * (event.total - event.done):.0f} s left"


class ConsoleEvents:
    """Context manager and `OnEvent` that shows notes as lines and tasks as progress bars on stderr.

    If stderr is not a terminal, a task prints a line at its begin, every few seconds, and at its end.
    """

    def __init__(self) -> None:
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            console=err,
            transient=True,
        )
        self._drawn = err.is_terminal
        self._task: _Task | None = None

    def __enter__(self) -> Self:
        silence_progress_bars()
        if self._drawn:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        silence_dspy_log()
        if isinstance(event, Note):
            say(event.text)
        else:
            self._advance(event)

    def _advance(self, event: Progress) -> None:
        task = self._task
        if task is None or task.name != event.task:
            if task is not None and task.bar is not None:
                self._bars.remove_task(task.bar)
            task = self._task = _Task(event.task, time.monotonic(), event.done)
        if self._drawn:
            self._draw(task, event)
        else:
            self._write(task, event)
        if event.done >= event.total:
            self._task = None

    def _draw(self, task: _Task, event: Progress) -> None:
        if task.bar is None:
            task.bar = self._bars.add_task(event.task, pace="")
        self._bars.update(task.bar, completed=event.done, total=event.total, pace=_line(task, event))
        if event.done >= event.total:
            self._bars.remove_task(task.bar)

    def _write(self, task: _Task, event: Progress) -> None:
        finished = event.done >= event.total
        if not finished and time.monotonic() - task.said < LINE_EVERY:
            return
        task.said = time.monotonic()
        say(f"{event.task}: {_line(task, event)}")


def _line(task: _Task, event: Progress) -> str:
    pace = f"{task.pace(event)}; {event.detail}" if event.detail else task.pace(event)
    if event.usage is None or not (event.usage.calls or event.usage.cache_hits):
        return pace
    spent = f"{event.usage.calls} calls, {event.usage.cache_hits} cache hits"
    dollars = "" if event.usage.usd is None else f", {format_usd(event.usage.usd)}"
    return f"{pace}; {spent}{dollars}"


def figure_table(title: str, first: str, *figures: str) -> Table:
    """An empty table with one column of names and then columns of figures, aligned to the right."""
    table = Table(first, title=title, title_justify="left")
    for column in figures:
        table.add_column(column, justify="right")
    return table


def metrics_table(results: RunMetrics, title: str) -> Table:
    """Metrics of a run: one row for the ranker, then one for each component of its score."""
    names = list(results.metrics)
    table = figure_table(title, "scores", *(f"{name} [95% CI]" for name in names), "n")
    rows = {results.ranker: results.metrics} | {
        f"  {component} alone" if component in ("prior", "mar") else f"  {component}": metrics
        for component, metrics in results.components.items()
        if component != results.ranker
    }
    for label, metrics in rows.items():
        table.add_row(label, *(format_estimate(metrics[name]) for name in names), str(results.users))
    return table


_EQUAL = {"MRR": "MRR = MAP"}
"""With one target per user the two are the same (`reciprocal_rank`)."""


def further_table(results: RunMetrics) -> Table:
    """Metrics at the cutoffs that were asked for: one row for each metric, one column for each cutoff."""
    by_metric: dict[str, dict[str, str]] = {}
    for name, estimate in results.further.items():
        metric, _, cutoff = name.partition("@")
        if metric != "MAP":
            by_metric.setdefault(_EQUAL.get(metric, metric), {})[cutoff] = format_estimate(estimate)
    for name, covered in results.coverage.items():
        metric, _, cutoff = name.partition("@")
        by_metric.setdefault(metric, {})[cutoff] = f"{covered.share:.1%} of at most {covered.reachable:.1%}"
    cutoffs = list(dict.fromkeys(cutoff for cells in by_metric.values() for cutoff in cells))
    table = figure_table(f"{results.ranker}, further metrics", "metric", *(f"@{cutoff}" for cutoff in cutoffs))
    for metric, cells in by_metric.items():
        table.add_row(metric, *(cells.get(cutoff, "-") for cutoff in cutoffs))
    return table


def usage_table(usages: Mapping[str, Usage], title: str = "Language models", by: str = "role") -> Table:
    """Calls, tokens, dollars and seconds, one row per role or phase; cache writes where a provider bills them."""
    from programs.lm.ledger import interrupted_note

    writes = any(usage.tokens_written for usage in usages.values())
    cached = ("of which cached", "cache writes") if writes else ("of which cached",)
    table = figure_table(title, by, "calls", "cache hits", "tokens in", *cached, "tokens out", "dollars", "seconds")
    if interrupted := sum(usage.interrupted for usage in usages.values()):
        table.caption, table.caption_justify = interrupted_note(interrupted), "left"
    for name, usage in usages.items():
        share = f"{usage.tokens_cached / usage.tokens_in:.0%}" if usage.tokens_in else "-"
        table.add_row(
            name or "-",
            str(usage.calls),
            str(usage.cache_hits),
            str(usage.tokens_in),
            share,
            *([str(usage.tokens_written)] if writes else []),
            str(usage.tokens_out),
            format_usd(usage.usd),
            f"{usage.seconds:.0f}",
        )
    return table


def recovery_line(recovered: Recovery) -> str:
    """How well profiles recover planted motivations, compared with random profiles."""
    return (
        f"planted motivations, n={recovered.n}: "
        f"primary found {recovered.primary_found:.2f} (chance {recovered.chance_primary_found:.2f}, above it by "
        f"{recovered.primary_found - recovered.chance_primary_found:.2f} "
        f"[{recovered.above_chance_low:.2f}, {recovered.above_chance_high:.2f}]), "
        f"precision {recovered.precision:.2f} (chance {recovered.chance_precision:.2f}), "
        f"recall {recovered.recall:.2f} (chance {recovered.chance_recall:.2f})"
    )
