"""Grid runner: ranks the same cases with every mix of models, resumable, one run directory per mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from evaluate.experiments.grid import Grid, Mix
from evaluate.experiments.grid_forecast import (
    GridForecast,
    SearchForecast,
    forecast_grid,
    measure_mix,
    sample_of,
    shown_of,
)
from evaluate.experiments.grid_results import GridResults, MixRun, grid_results, objectives
from evaluate.experiments.grid_search import search_mixes
from evaluate.protocol.cases import Cases
from evaluate.ranker_factory import RankerFactory
from evaluate.runs.costs import cost_of
from evaluate.runs.directory import RunDirectory
from evaluate.runs.journal import read_journal
from evaluate.runs.run_metrics import ranks_of
from evaluate.runs.session import ledger_within, prior_of_runs, program_configuration, run_of_several
from programs.chat_rec import fusion_of
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger, read_calls
from programs.lm.model_options import ModelOptions
from programs.lm.roles import PRESETS, Roles
from programs.prior.choice import PriorName
from programs.prior.scorers import Training
from programs.program import Fusion, MLLM3Rec
from programs.runtime.atomic import sweep
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Note, OnEvent, ignore
from programs.runtime.lock import owned
from signatures.schema import CONSUMER

SEARCH_DATABASE, FORECAST_FOLDER = "search.sqlite", "forecast"


@dataclass
class GridRunner:
    """Runs the mixes of a grid on some cases; mixes share cached traits and answers.

    Args:
        root: Folder of the run directories.
        budget: For all mixes together.
        timeout: Most seconds of one call; None for 600.
        max_tokens: Most tokens of one answer; None for what a valid one needs.
        retry_unparsable: Whether to rank users with unparsable answers again.

    Raises:
        InputError: if there is no such preset.
    """

    grid: Grid
    cases: Cases
    root: Path
    budget: Budget = field(default_factory=Budget)
    on_event: OnEvent = ignore
    timeout: float | None = None
    max_tokens: int | None = None
    retry_unparsable: bool = False

    def __post_init__(self) -> None:
        if self.grid.preset not in PRESETS:
            raise InputError(f"no preset {self.grid.preset!r}: choose one of {', '.join(PRESETS)}")
        self.fusion = fusion_of(self.grid.ranker, Fusion(weight=self.grid.weight, head=self.grid.head))

    @cached_property
    def backends(self) -> Backends:
        """The backends of all mixes, which share rate limits."""
        return Backends(PRESETS[self.grid.preset], on_event=self.on_event)

    @cached_property
    def _prior(self) -> PriorName:
        """The formula of the prior of all runs of the grid."""
        return prior_of_runs(self.root)

    @property
    def training(self) -> Training:
        """The training data, checked for leaks."""
        return self.cases.training

    def roles(self, mix: Mix) -> Roles:
        """The models of a mix, by role."""
        options = ModelOptions(timeout=self.timeout, max_tokens=self.max_tokens)
        return options.over(self.grid.roles(mix, PRESETS[self.grid.preset]))

    def program(self, mix: Mix, ledger: Ledger) -> MLLM3Rec:
        """The grid's program with the models of a mix.

        Raises:
            InputError: if the ranker is not a program, or the model of a role cannot be used.
        """
        factory = RankerFactory.create(
            self.cases.dataset,
            self.training,
            self.roles(mix),
            ledger,
            fusion=self.fusion,
            explain=self.grid.explain,
            prior=self._prior,
            beside=self.backends,
            retry_unparsable=self.retry_unparsable,
            on_event=self.on_event,
        )
        program = factory.ranker(self.grid.ranker)
        if not isinstance(program, MLLM3Rec):
            raise InputError(f"ranker {self.grid.ranker!r} calls no language model: name a program, such as listwise")
        return program

    def run(self, search: int | None = None) -> tuple[list[MixRun], str | None]:
        """Run every mix, or search the grid.

        Args:
            search: Number of mixes to try, chosen by quality and cost; None for all.

        Returns:
            The runs of all mixes that were begun, and the reason if the budget stopped them, or None.

        Raises:
            BudgetExceededError: if the budget ended before any user was ranked.
            InputError: if no mix ranked any user.
        """
        mixes, budget_stop = list(self.grid.mixes()), None
        done: dict[Mix, MixRun] = {}

        def ranked(mix: Mix) -> MixRun:
            self.on_event(Note(f"[{len(done) + 1}/{min(search or len(mixes), len(mixes))}] {mix.label}"))
            stopped = self.run_mix(mix)
            if stopped is not None:
                self.on_event(Note(f"{mix.label}: incomplete: {stopped}"))
            done[mix] = self.read_mix(mix, stopped)
            return done[mix]

        with owned(self.root):
            sweep(self.root)
            try:
                if search is not None:
                    database = self.root / SEARCH_DATABASE
                    mixes = search_mixes(self.grid, search, database, lambda mix: objectives(self.grid, ranked(mix)))
                # A mix that an earlier session of a search completed is only read.
                runs = [done[mix] if mix in done else ranked(mix) for mix in mixes]
            except BudgetExceededError as error:
                budget_stop = str(error)
                self.on_event(Note(f"stopped: {budget_stop}"))
                begun = [mix for mix in mixes if search is None or (self.root / mix.label).exists()]
                runs = [done.get(mix) or self.read_mix(mix, budget_stop) for mix in begun]
        if not any(run.ranks for run in runs):
            if budget_stop is not None:
                raise BudgetExceededError(budget_stop)
            raise InputError(f"no mix ranked any user: {'; '.join(run.stopped or '' for run in runs)[:500]}")
        return runs, budget_stop

    def results(self, runs: Sequence[MixRun]) -> GridResults:
        """Accuracy with tests, costs, the effect of each role, and the recommended mix."""
        return grid_results(self.grid, runs, len(self.cases[0].candidates))

    def run_mix(self, mix: Mix) -> str | None:
        """Start or resume the run of a mix.

        Returns:
            Why it is incomplete, or None. A backend that is down or rejects calls ends its own mixes only.

        Raises:
            BudgetExceededError: if the budget of the whole grid is spent.
        """
        configuration = program_configuration(
            self.roles(mix), self.fusion, CONSUMER, self.grid.explain, prior=self._prior
        )
        return run_of_several(
            self.root,
            self.root / mix.label,
            mix.label,
            lambda ledger: self.program(mix, ledger),
            configuration | {"ranker": self.grid.ranker},
            self.cases,
            self.budget,
            self.grid.workers,
            self.on_event,
            self.retry_unparsable,
        )

    def read_mix(self, mix: Mix, stopped: str | None) -> MixRun:
        """The run of a mix so far."""
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
        with_prior = {user: row for user, row in rows.items() if "prior" in row.scores}
        prior_ranks = ranks_of(self.cases.cases, with_prior, "prior")
        return MixRun(mix, ranks, rows, cost, unresolved, stopped if unresolved else None, prior_ranks)

    def forecast(self, search: int | None = None) -> GridForecast:
        """Measure a few users on every mix and extrapolate.

        Args:
            search: See `run`.
        """
        # The measured calls are paid for and count for the grid's budget.
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
        found = forecast_grid(mixes, measured, len(self.cases), products)
        return GridForecast(mixes=tuple(found), search=None if search is None else SearchForecast.of(search, found))
