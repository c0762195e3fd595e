"""`mllm3rec compare`: which model for which module, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from evaluate.data.dataset import Dataset
from evaluate.experiments.grid import Grid, Mix, read_grid
from evaluate.experiments.grid_forecast import MIX_SAMPLE, MixForecast, forecast_grid, measure_mix, sample_of, shown_of
from evaluate.experiments.grid_report import write_comparison
from evaluate.experiments.grid_results import GridResults, MixRun, grid_results, objectives
from evaluate.experiments.grid_search import search_mixes
from evaluate.protocol.cases import CaseFile, read_cases
from evaluate.runs.costs import cost_of
from evaluate.runs.journal import RunManifest, read_journal, refuse_other_run
from evaluate.runs.run_metrics import ranks_of
from mllm3rec.cli.console import dollars, emit, figure, out, say
from mllm3rec.cli.evaluate import LEDGER, CasesFile, DatasetOption, dataset_of, run_into, safe_histories
from mllm3rec.cli.settings import (
    BudgetUsd,
    Json,
    MaxCalls,
    configuration,
    encoder_setting,
    ledger_within,
    versions,
    workshop,
)
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger, read_calls
from programs.lm.roles import PRESETS, Roles
from programs.program import Fusion, MLLM3Rec
from programs.runtime.atomic import sweep
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.lock import owned
from signatures.schema import CONSUMER

SEARCH, FORECAST = "search.sqlite", "forecast"


class Comparer:
    """Runs the mixes of a grid on one cases file, each in a folder of its own, sharing what they share."""

    def __init__(
        self,
        grid: Grid,
        case_file: CaseFile,
        data: Dataset,
        root: Path,
        budget_usd: float | None = None,
        max_calls: int | None = None,
    ) -> None:
        if grid.preset not in PRESETS:
            raise InputError(f"no preset {grid.preset!r}: choose one of {', '.join(PRESETS)}")
        self.grid = grid
        self.case_file = case_file
        self.data = data
        self.root = root
        self.budget_usd = budget_usd
        self.max_calls = max_calls
        self.histories = safe_histories(case_file, data)
        self.fusion = Fusion(weight=grid.weight, head=grid.head)
        self.backends = Backends(PRESETS[grid.preset])

    def roles(self, mix: Mix) -> Roles:
        """Who speaks in a mix."""
        return self.grid.roles(mix, PRESETS[self.grid.preset])

    def program(self, mix: Mix, ledger: Ledger) -> MLLM3Rec:
        """The grid's program with the models of a mix; refuses roles that cannot be asked."""
        shop = workshop(
            self.data,
            self.histories,
            self.roles(mix),
            ledger,
            CONSUMER,
            self.fusion,
            self.grid.explain,
            beside=self.backends,
        )
        program = shop.ranker(self.grid.ranker)
        if not isinstance(program, MLLM3Rec):
            raise InputError(f"{self.grid.ranker!r} asks no language model: there is nothing to compare")
        return program

    def run(self, mix: Mix) -> str | None:
        """Run a mix, or what is left of it.

        Returns:
            Why it was given up, or None. A backend that is dead or refuses ends its mixes and no others.

        Raises:
            BudgetExceededError: if the budget of the whole grid is spent.
        """
        directory = self.root / mix.label
        ledger = ledger_within(self.root, directory / LEDGER, self.budget_usd, self.max_calls)
        settings = configuration(self.roles(mix), self.fusion, CONSUMER, self.grid.explain)
        settings |= {"ranker": self.grid.ranker}
        asked = RunManifest(
            cases_sha256=self.case_file.sha256, ranker=mix.label, configuration=settings | encoder_setting()
        )
        refuse_other_run(directory, asked)
        try:
            program = self.program(mix, ledger)
            done = run_into(directory, mix.label, program, settings, self.case_file, ledger, self.grid.workers)
        except InputError as error:
            return str(error)
        finally:
            ledger.close()
        if done.outcome.stopped is not None:
            raise BudgetExceededError(done.outcome.stopped)
        return None if done.outcome.complete else f"{done.outcome.failed} users failed"

    def read(self, mix: Mix, stopped: str | None) -> MixRun:
        """What there is of a mix."""
        directory = self.root / mix.label
        try:
            _, rows = read_journal(directory)
        except InputError:
            rows = {}
        ranks = ranks_of(self.case_file.cases, rows)
        ranked = [case for case in self.case_file.cases if case.user_id in ranks]
        calls = list(read_calls(directory / LEDGER))
        cost = cost_of(
            calls,
            users=len(ranked),
            pairs=sum(len(rows[case.user_id].traits) or len(case.candidates) for case in ranked),
            products=len({traits.item_id for case in ranked for traits in rows[case.user_id].traits}),
            population_users=len(self.data.sequences),
            catalogue=len(self.data.items),
        )
        unresolved = len(self.case_file.cases) - len(ranks)
        return MixRun(mix, ranks, rows, cost, unresolved, stopped if unresolved else None)

    def forecast(self, mixes: Sequence[Mix]) -> list[MixForecast]:
        """Measure a few users on every mix, and scale."""
        # What is measured is paid for, and counts for the grid's budget like all else.
        ledger = ledger_within(self.root, self.root / FORECAST / LEDGER, self.budget_usd, self.max_calls)
        sample = sample_of(self.case_file.cases)
        measured, products = {}, 0
        for mix in mixes:
            say(f"measuring {len(sample)} users on {mix.label}")
            program = self.program(mix, ledger)
            measured[mix.label] = measure_mix(program, sample, ledger)
            products = products or len(set(shown_of(self.case_file.cases, program)))
        ledger.close()
        return forecast_grid(mixes, measured, len(self.case_file.cases), products)


def compare(
    cases: CasesFile,
    grid: Annotated[Path, typer.Option(help="Backends and the roles they are tried in, as TOML; see docs/compare.md.")],
    directory: Annotated[Path, typer.Option("--out", help="Where runs go; the same command resumes.")],
    dataset: DatasetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=f"Measure {MIX_SAMPLE} users a mix and forecast the rest.")
    ] = False,
    search: Annotated[
        int | None, typer.Option(min=1, help="Try so many mixes, chosen by quality against cost, instead of all.")
    ] = None,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    as_json: Json = False,
) -> None:
    """Rank the same cases with every mix of backends; accuracy with tests, cost, and the mix to deploy.

    Exit code 1 while a mix is incomplete.
    """
    wanted = read_grid(grid)
    case_file = read_cases(cases)
    data = dataset_of(case_file, dataset)
    comparer = Comparer(wanted, case_file, data, directory, budget_usd, max_calls)
    mixes = list(wanted.mixes())
    if dry_run:
        with owned(directory):
            _show_forecast(comparer.forecast(mixes), as_json)
        return
    spent: str | None = None
    found_runs: dict[Mix, MixRun] = {}

    def ranked(mix: Mix) -> MixRun:
        say(f"[{len(found_runs) + 1}/{min(search or len(mixes), len(mixes))}] {mix.label}")
        stopped = comparer.run(mix)
        if stopped is not None:
            say(f"{mix.label}: given up: {stopped}")
        found_runs[mix] = comparer.read(mix, stopped)
        return found_runs[mix]

    with owned(directory):
        sweep(directory)
        try:
            if search is not None:
                mixes = search_mixes(wanted, search, directory / SEARCH, lambda mix: objectives(wanted, ranked(mix)))
            # Those of an earlier session of a search are only read.
            runs = [found_runs[mix] if mix in found_runs else ranked(mix) for mix in mixes]
        except BudgetExceededError as error:
            spent = str(error)
            say(f"stopped: {spent}")
            begun = [mix for mix in mixes if search is None or (directory / mix.label).exists()]
            runs = [found_runs.get(mix) or comparer.read(mix, spent) for mix in begun]
    if spent is not None and not any(run.ranks for run in runs):
        raise BudgetExceededError(spent)
    if not any(run.ranks for run in runs):
        raise InputError(f"no mix ranked anybody: {'; '.join(run.stopped or '' for run in runs)[:500]}")
    found = grid_results(wanted, runs, len(case_file.cases[0].candidates))
    command = f"mllm3rec compare {cases} --grid {grid} --out {directory}"
    written = write_comparison(found, wanted, runs, case_file, data, comparer.histories, directory, command, versions())
    if as_json:
        emit({**found.model_dump(mode="json"), "written": [str(path) for path in written]})
    else:
        _show(found, written)
    if spent is not None:
        raise BudgetExceededError(spent)
    raise typer.Exit(0 if all(not run.unresolved for run in runs) else 1)


def _show(found: GridResults, written: Sequence[Path]) -> None:
    metrics = next(list(row.metrics) for row in found.rows if row.metrics)
    mix = Column("MOPE_MOTE_MAR", no_wrap=True)
    intervals = (f"{metric}/{found.list_size} [95% CI]" for metric in metrics)
    table = Table(mix, *intervals, "n", title="Accuracy of the mixes", title_justify="left")
    for row in found.rows:
        figures = [figure(row.metrics[metric]) if row.metrics else "-" for metric in metrics]
        users = str(row.users) if not row.unresolved else f"{row.users} ({row.unresolved} unresolved)"
        table.add_row(row.label, *figures, users)
    out.print(table)
    columns = ("$ a user", "$ a pair", "seconds", "stored answers")
    table = Table(mix, *columns, title="What each takes, as if run alone", title_justify="left")
    for row in found.rows:
        cost = row.cost
        seconds = f"{cost.seconds:.0f}"
        table.add_row(row.label, dollars(cost.per_user), dollars(cost.per_pair), seconds, f"{row.stored:.0%}")
    out.print(table)
    table = Table("role", "from", "to", "gain", "$ a user", "seconds", title="One role changed", title_justify="left")
    for effect in found.effects:
        usd = dollars(effect.usd_per_user)
        gain = f"{effect.metric} {figure(effect.gain)}"
        table.add_row(effect.role, effect.before, effect.after, gain, usd, f"{effect.seconds:+.0f}")
    out.print(table)
    if found.recommendation is not None:
        out.print(str(found.recommendation), markup=False)
    for path in written[:1]:
        out.print(f"written: {path}", markup=False)


def _show_forecast(found: Sequence[MixForecast], as_json: bool) -> None:
    if as_json:
        emit({"mixes": [one.model_dump() for one in found]})
        return
    mix = Column("mix", no_wrap=True)
    table = Table(mix, "calls", "tokens", "dollars", "hours", "after those above: tokens", "dollars", "hours")
    for one in found:
        cells = []
        for work in (one.alone, one.marginal):
            cells += [f"{work.tokens_in + work.tokens_out:,.0f}", dollars(work.usd), f"{work.seconds / 3600:.2f}"]
        table.add_row(one.label, f"{one.alone.calls:,.0f}", *cells)
    out.print(table)
    out.print("forecast from a few measured users; their answers are kept and will not be paid again")
