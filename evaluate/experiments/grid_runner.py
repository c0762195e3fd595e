"""Grid runner: ranks the same cases with every mix of backends, resumable, each mix in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from evaluate.experiments.grid import Grid, Mix
from evaluate.experiments.grid_forecast import MixForecast, forecast_grid, measure_mix, sample_of, shown_of
from evaluate.experiments.grid_results import GridResults, MixRun, grid_results, objectives
from evaluate.experiments.grid_search import search_mixes
from evaluate.protocol.cases import Cases
from evaluate.ranker_factory import RankerFactory
from evaluate.runs.costs import cost_of
from evaluate.runs.directory import RunDirectory
from evaluate.runs.journal import read_journal, refuse_other_run
from evaluate.runs.run_metrics import ranks_of
from evaluate.runs.session import ledger_within, program_configuration, run_manifest, run_session
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger, read_calls
from programs.lm.roles import PRESETS, Roles
from programs.program import Fusion, MLLM3Rec
from programs.runtime.atomic import sweep
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Note, OnEvent, ignore
from programs.runtime.lock import owned
from signatures.schema import CONSUMER

SEARCH_DATABASE, FORECAST_FOLDER = "search.sqlite", "forecast"


@dataclass
class GridRunner:
    """Runs the mixes of a grid on some cases; they share the traits and answers they have in common.

    Args:
        root: Where the mixes' run directories go.
        budget: For all mixes together.

    Raises:
        InputError: if the grid names a preset that does not exist.
    """

    grid: Grid
    cases: Cases
    root: Path
    budget: Budget = field(default_factory=Budget)
    on_event: OnEvent = ignore

    def __post_init__(self) -> None:
        if self.grid.preset not in PRESETS:
            raise InputError(f"no preset {self.grid.preset!r}: choose one of {', '.join(PRESETS)}")
        self.fusion = Fusion(weight=self.grid.weight, head=self.grid.head)

    @cached_property
    def backends(self) -> Backends:
        """Those of all mixes, which keep to the same rate limits together."""
        return Backends(PRESETS[self.grid.preset])

    @property
    def histories(self) -> Mapping[str, Sequence[str]]:
        """What fits may see, checked for leaks."""
        return self.cases.training

    def roles(self, mix: Mix) -> Roles:
        """The models of a mix, by role."""
        return self.grid.roles(mix, PRESETS[self.grid.preset])

    def program(self, mix: Mix, ledger: Ledger) -> MLLM3Rec:
        """The grid's program with the models of a mix.

        Raises:
            InputError: if it asks no language model, or a role cannot be asked.
        """
        factory = RankerFactory.create(
            self.cases.dataset,
            self.histories,
            self.roles(mix),
            ledger,
            fusion=self.fusion,
            explain=self.grid.explain,
            beside=self.backends,
            on_event=self.on_event,
        )
        program = factory.ranker(self.grid.ranker)
        if not isinstance(program, MLLM3Rec):
            raise InputError(f"{self.grid.ranker!r} asks no language model: there is nothing to compare")
        return program

    def run(self, search: int | None = None) -> tuple[list[MixRun], str | None]:
        """Run every mix, or search the grid.

        Args:
            search: Try so many mixes, chosen by quality against cost, instead of all.

        Returns:
            What there is of every mix that was begun, and why the budget stopped them, or None.

        Raises:
            BudgetExceededError: if the budget ended before any user was ranked.
            InputError: if no mix ranked any user.
        """
        mixes, spent = list(self.grid.mixes()), None
        found: dict[Mix, MixRun] = {}

        def ranked(mix: Mix) -> MixRun:
            self.on_event(Note(f"[{len(found) + 1}/{min(search or len(mixes), len(mixes))}] {mix.label}"))
            stopped = self.run_mix(mix)
            if stopped is not None:
                self.on_event(Note(f"{mix.label}: given up: {stopped}"))
            found[mix] = self.read_mix(mix, stopped)
            return found[mix]

        with owned(self.root):
            sweep(self.root)
            try:
                if search is not None:
                    database = self.root / SEARCH_DATABASE
                    mixes = search_mixes(self.grid, search, database, lambda mix: objectives(self.grid, ranked(mix)))
                # Those of an earlier session of a search are only read.
                runs = [found[mix] if mix in found else ranked(mix) for mix in mixes]
            except BudgetExceededError as error:
                spent = str(error)
                self.on_event(Note(f"stopped: {spent}"))
                begun = [mix for mix in mixes if search is None or (self.root / mix.label).exists()]
                runs = [found.get(mix) or self.read_mix(mix, spent) for mix in begun]
        if not any(run.ranks for run in runs):
            if spent is not None:
                raise BudgetExceededError(spent)
            raise InputError(f"no mix ranked any user: {'; '.join(run.stopped or '' for run in runs)[:500]}")
        return runs, spent

    def results(self, runs: Sequence[MixRun]) -> GridResults:
        """Accuracy with tests, cost, the effect of each role, and the mix to deploy."""
        return grid_results(self.grid, runs, len(self.cases[0].candidates))

    def run_mix(self, mix: Mix) -> str | None:
        """Run a mix, or what is left of it.

        Returns:
            Why it was given up, or None. A backend that is dead or refuses ends its mixes and no others.

        Raises:
            BudgetExceededError: if the budget of the whole grid is spent.
        """
        directory = self.root / mix.label
        ledger = ledger_within(self.root, RunDirectory(directory).ledger, self.budget)
        configuration = program_configuration(self.roles(mix), self.fusion, CONSUMER, self.grid.explain)
        configuration |= {"ranker": self.grid.ranker}
        refuse_other_run(directory, run_manifest(mix.label, configuration, self.cases))
        try:
            program = self.program(mix, ledger)
            done = run_session(
                directory, mix.label, program, configuration, self.cases, ledger, self.grid.workers, self.on_event
            )
        except InputError as error:
            return str(error)
        finally:
            ledger.close()
        if done.status.stopped is not None:
            raise BudgetExceededError(done.status.stopped)
        return None if done.complete else f"{done.status.failed} users failed"

    def read_mix(self, mix: Mix, stopped: str | None) -> MixRun:
        """What there is of a mix."""
        directory = self.root / mix.label
        try:
            _, rows = read_journal(directory)
        except InputError:
            rows = {}
        ranks = ranks_of(self.cases.cases, rows)
        ranked = [case for case in self.cases if case.user_id in ranks]
        data = self.cases.dataset
        cost = cost_of(
            list(read_calls(RunDirectory(directory).ledger)),
            users=len(ranked),
            pairs=sum(len(rows[case.user_id].traits) or len(case.candidates) for case in ranked),
            products=len({traits.item_id for case in ranked for traits in rows[case.user_id].traits}),
            population_users=len(data.sequences),
            catalogue=len(data.items),
        )
        unresolved = len(self.cases) - len(ranks)
        return MixRun(mix, ranks, rows, cost, unresolved, stopped if unresolved else None)

    def forecast(self) -> list[MixForecast]:
        """Measure a few users on every mix, and scale."""
        # What is measured is paid for, and counts for the grid's budget like all else.
        ledger = ledger_within(self.root, RunDirectory(self.root / FORECAST_FOLDER).ledger, self.budget)
        sample, mixes = sample_of(self.cases.cases), list(self.grid.mixes())
        measured, products = {}, 0
        with owned(self.root):
            for mix in mixes:
                self.on_event(Note(f"measuring {len(sample)} users on {mix.label}"))
                program = self.program(mix, ledger)
                measured[mix.label] = measure_mix(program, sample, ledger)
                products = products or len(set(shown_of(self.cases.cases, program)))
        ledger.close()
        return forecast_grid(mixes, measured, len(self.cases), products)
