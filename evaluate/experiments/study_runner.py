"""Study runner: makes the missing runs of a study, resumable, and the record for its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluate.baselines import TRAINED, Baseline
from evaluate.baselines.fit_cost import save_fit_cost
from evaluate.baselines.stacked import NAME as STACKED
from evaluate.data.dataset import Dataset
from evaluate.experiments.study_fits import StudyFits
from evaluate.experiments.study_reading import RUN_AGAIN, CatalogueRanks, is_done, is_finished, read_record
from evaluate.experiments.study_setting import StudySetting, require_test_users
from evaluate.experiments.study_spec import RankerSpec, StudyCell, StudySpec
from evaluate.experiments.study_stacking import StudyStacking
from evaluate.protocol.cases import Cases
from evaluate.ranker_choice import (
    FIELDS_OF_TRAITS,
    MODEL_OPTIONS,
    RankerChoice,
    Resolve,
    is_free,
    is_free_program,
    models_of_traits,
    options_read_by,
    refuse_ignored,
)
from evaluate.ranker_factory import RankerFactory
from evaluate.report.record import StudyRecord
from evaluate.runs.directory import LEDGER, RunDirectory
from evaluate.runs.full_ranking import full_ranking_ranks, owned_before_target
from evaluate.runs.journal import Journal, read_journal
from evaluate.runs.session import prior_of_runs, run_manifest, run_of_several, run_session, versions
from evaluate.runs.trec import RUN_PREFIX, read_trec_run
from programs.gate import read_gate
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger, by_role, read_calls
from programs.lm.model_options import ModelOptions
from programs.lm.roles import Roles
from programs.prior.choice import UNRECORDED, PriorName, recorded
from programs.prior.default_encoder import use_encoder
from programs.program import PROGRAMS, Fusion
from programs.ranker import Ranker
from programs.runtime.atomic import sweep, write_atomically
from programs.runtime.config_file import read_json
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Note, OnEvent, Progress, ignore
from programs.runtime.lock import owned
from signatures.rows import total_usage

_OF_STACKED = ("programs", "learn_users")
"""Fields of a ranker that `learned+mar` alone reads."""


@dataclass
class StudyRunner:
    """Runs the cells of a study.

    Args:
        spec: The study.
        root: Its directory.
        resolve: Finds a ranker by name.
        datasets: The study's datasets by name.
        budget: For all runs together; runs without a language model continue when it is spent.
        timeout: Most seconds of one call; None for 600.
        max_tokens: Most tokens of one answer; None for what a valid one needs.
        retry_unparsable: Whether to rank users with unparsable answers again.
    """

    spec: StudySpec
    root: Path
    resolve: Resolve
    datasets: Mapping[str, Dataset]
    budget: Budget = field(default_factory=Budget)
    on_event: OnEvent = ignore
    timeout: float | None = None
    max_tokens: int | None = None
    retry_unparsable: bool = False
    _setting: StudySetting | None = None

    @cached_property
    def backends(self) -> Backends:
        """The backends of all runs, which share rate limits."""
        return Backends(ModelOptions().roles(), on_event=self.on_event)

    @cached_property
    def fits(self) -> StudyFits:
        """Settings and fits of the trained rankers."""
        return StudyFits(self.root, self.on_event)

    def cells(self, only: Sequence[str] = ()) -> list[StudyCell]:
        """The runs of the study, or those whose name contains one of `only`.

        Raises:
            InputError: if there is none, or one of them is invalid.
        """
        cells = [
            cell
            for cell in self.spec.cells(tuple(TRAINED))
            if not only or any(part in f"{cell.path}/" for part in only)
        ]
        if not cells:
            raise InputError(f"--only {', '.join(only)}: no run of the study has this text in its name")
        for cell in cells:
            self._check(cell)
        return cells

    def run(self, only: Sequence[str] = ()) -> tuple[list[str], str | None]:
        """Make the missing runs.

        Args:
            only: Parts of the names (dataset/protocol/draw/ranker) of the runs to make; empty for all.

        Returns:
            Names of the incomplete runs, and the reason if the budget stopped them, or None.

        Raises:
            InputError: if a folder holds a run of other cases or settings, or a run is invalid.
            BudgetExceededError: if the budget ended before a run was complete.
        """
        cells = self.cells(only)
        incomplete: list[str] = []
        spent: str | None = None
        with owned(self.root):
            sweep(self.root)
            for number, cell in enumerate(cells, start=1):
                done = is_done(self.root / cell.path)
                if not done:
                    self.on_event(Note(f"[{number}/{len(cells)}] {cell.path}"))
                try:
                    # A run that is done is checked against the study, and costs nothing.
                    if done or spent is None or is_free(cell.ranker.ranker):
                        done = self.run_cell(cell)
                except BudgetExceededError as error:
                    spent = str(error)
                    self.on_event(Note(f"stopped: {spent}; runs without a language model continue"))
                if not done:
                    incomplete.append(str(cell.path))
        if spent is not None and len(incomplete) == len(cells):
            raise BudgetExceededError(spent)
        return incomplete, spent

    def record(self, commands: Sequence[str]) -> StudyRecord:
        """The record of the study so far, for its report.

        Raises:
            InputError: if nothing has been run, or a journal is damaged.
        """
        return read_record(self.spec, self.root, tuple(TRAINED), self.datasets, commands, versions())

    def run_cell(self, cell: StudyCell) -> bool:
        """Start or resume one run.

        Returns:
            Whether it is complete.

        Raises:
            InputError: if the folder holds a run of other cases or settings, or the run is invalid.
            BudgetExceededError: if the budget of the study is spent.
        """
        with use_encoder(cell.ranker.encoder):
            return self._run_cell(cell)

    def _run_cell(self, cell: StudyCell) -> bool:
        setting = self.setting_of(cell)
        spec = cell.ranker
        cases = setting.cases(cell.draw, spec.users)
        directory = self.root / cell.path
        if spec.ranker == STACKED:
            stacking = StudyStacking(
                self.root, self.spec.rankers, self.fits, self._run_program, self.retry_unparsable, self.on_event
            )
            return stacking.run(cell, setting, cases)
        if spec.ranker.startswith(RUN_PREFIX):
            return self._run_outside(directory, spec, cases)
        if cell.protocol.catalogue and is_free_program(spec.ranker):
            return self._run_program_on_catalogue(cell, setting, cases)
        if not is_free(spec.ranker) or is_free_program(spec.ranker):
            return self._run_program(directory, spec, setting, cases)
        return self._run_baseline(cell, setting, cases)

    def _run_baseline(self, cell: StudyCell, setting: StudySetting, cases: Cases) -> bool:
        spec, directory = cell.ranker, self.root / cell.path
        configuration: dict[str, Any] = {"ranker": spec.ranker}
        if spec.ranker == "prior" and self._prior != UNRECORDED:
            configuration |= {"prior": recorded(self._prior)}
        settings: Baseline | None = None
        if spec.ranker in TRAINED:
            settings = self.fits.settings(cell, setting)
            configuration |= settings.configuration(cell.seed or 0, setting.factory.schema)
            configuration |= setting.factory.model_of_traits(settings)
        if cell.protocol.catalogue:
            configuration |= {"catalogue": True}
        if is_finished(directory, spec.label, configuration, cases):
            return True
        ranker = setting.factory.ranker(spec.ranker) if settings is None else self.fits.fit(cell, setting, settings)
        configuration |= setting.factory.fitted_with(settings)
        if cell.protocol.catalogue:
            self._rank_catalogue(cell, setting, cases, ranker, configuration)
            return True
        made = run_session(directory, spec.label, ranker, configuration, cases, Ledger(), on_event=self.on_event)
        if settings is not None:
            save_fit_cost(setting.factory.fit_cost, RunDirectory(directory).fit_cost)
        return made.complete

    def _run_program_on_catalogue(self, cell: StudyCell, setting: StudySetting, cases: Cases) -> bool:
        """Rank the whole catalogue by a program that asks no model."""
        choice = self.choice_of(cell.ranker)
        configuration = choice.configuration(0, check=False) | {"ranker": cell.ranker.ranker, "catalogue": True}
        if is_finished(self.root / cell.path, cell.ranker.label, configuration, cases):
            return True
        ranker = choice.build(replace(setting.factory, fusion=choice.fusion))
        self._rank_catalogue(cell, setting, cases, ranker, configuration)
        return True

    def _run_outside(self, directory: Path, spec: RankerSpec, cases: Cases) -> bool:
        """Rank by another system's run; a changed file is another run."""
        run = read_trec_run(Path(spec.ranker.removeprefix(RUN_PREFIX)))
        configuration = {"ranker": spec.ranker, "run file": run.sha256}
        if is_finished(directory, spec.label, configuration, cases):
            return True
        run.check(cases, self.on_event)
        return run_session(directory, spec.label, run, configuration, cases, Ledger(), on_event=self.on_event).complete

    def _refuse_ignored(self, cell: StudyCell) -> None:
        spec = cell.ranker
        named = (*sorted(MODEL_OPTIONS), "weight", "head", *_OF_STACKED)
        given = {name: getattr(spec, name) for name in named if name in spec.model_fields_set}
        given |= {"explain": spec.explain or None, "seed": None if spec.seeds == (0,) else spec.seeds}
        if spec.ranker == STACKED:
            read = options_read_by("listwise")
            read = replace(read, ranker=STACKED, names=read.names | {"seed", *_OF_STACKED})
        else:
            known = is_free(spec.ranker) or spec.ranker in PROGRAMS
            read = options_read_by(spec.ranker) if known else self.choice_of(spec).options_read
        try:
            refuse_ignored([read], **given)
        except InputError as error:
            raise InputError(f"{cell.path}: {error}") from error

    def _check(self, cell: StudyCell) -> None:
        spec = cell.ranker
        self._refuse_ignored(cell)
        if spec.ranker.startswith(RUN_PREFIX):
            self._check_outside(cell)
            return
        stacked, tuned = spec.ranker == STACKED, spec.ranker in TRAINED and spec.tune and not spec.settings
        if stacked or tuned:
            require_test_users(cell.protocol)
        if tuned and (named := sorted(spec.model_fields_set & FIELDS_OF_TRAITS)):
            raise InputError(
                f"{cell.path}: {', '.join(named)}: the settings that are tried on dev users have the default base "
                "model, and not all of them read traits; set tune = false, or leave it out"
            )
        if spec.settings:
            self.fits.given(cell)
        if spec.ranker in TRAINED:
            self._check_traits(cell)
        if spec.gate is not None or spec.ask is not None:
            self._check_gate(cell)
        if is_free(spec.ranker):
            return
        if cell.protocol.catalogue:
            raise InputError(
                f"{cell.path}: a language model cannot rank the whole catalogue; give the ranker a list of `protocols` "
                "without this one"
            )
        for name in spec.programs if stacked else (spec.ranker,):
            self.choice_of(spec.model_copy(update={"ranker": name}))

    def _check_outside(self, cell: StudyCell) -> None:
        spec = cell.ranker
        if cell.protocol.catalogue:
            raise InputError(f"{cell.path}: an outside run ranks the lists of cases; give it other `protocols`")
        if spec.gate is not None or spec.ask is not None:
            raise InputError(f"{cell.path}: gate, ask: an outside run has no scores to weigh; leave them out")
        if not Path(spec.ranker.removeprefix(RUN_PREFIX)).is_file():
            raise InputError(f"{cell.path}: {spec.ranker}: no such file")

    def _check_traits(self, cell: StudyCell) -> None:
        """Refuse a model for traits if there is no such preset, or if the settings read no traits."""
        try:
            if self._models_of_traits(cell.ranker) and not self.fits.untuned(cell).reads_traits:
                raise InputError("a model is named, and the settings read no traits; leave one of them out")
        except InputError as error:
            raise InputError(f"{cell.path}: {error}") from error

    def _models_of_traits(self, spec: RankerSpec) -> Roles | None:
        if spec.ranker not in TRAINED or "mote" not in options_read_by(spec.ranker).names:
            return None
        return models_of_traits(self._options(spec, spec.preset if "preset" in spec.model_fields_set else None))

    def _check_gate(self, cell: StudyCell) -> None:
        spec = cell.ranker
        try:
            if spec.ranker == STACKED:
                raise InputError(f"{STACKED} learns from answers about all users; leave out gate and ask")
            if cell.protocol.catalogue:
                raise InputError("the whole catalogue is ranked without a gate; give the ranker other `protocols`")
            self.choice_of(spec)
        except InputError as error:
            raise InputError(f"{cell.path}: gate, ask: {error}") from error

    def choice_of(self, spec: RankerSpec) -> RankerChoice:
        """The program of a ranker with its models, its gate and the prior of the study.

        Raises:
            InputError: if there is no such program, or it cannot have that gate.
        """
        options = self._options(spec, spec.preset)
        choice = self.resolve(spec.ranker, options, Fusion(weight=spec.weight, head=spec.head), None)
        choice = choice.with_gate(None if spec.gate is None else read_gate(spec.gate), spec.ask, spec.explain)
        return choice if choice.prior else choice.with_prior(self._prior)

    def _options(self, spec: RankerSpec, preset: str | None) -> ModelOptions:
        models = (spec.model, spec.mope, spec.mote, spec.mar, spec.judge)
        return ModelOptions(preset, *models, timeout=self.timeout, max_tokens=self.max_tokens)

    @cached_property
    def _prior(self) -> PriorName:
        """The formula of the prior of all runs of the study."""
        return self.spec.prior or prior_of_runs(self.root)

    def setting_of(self, cell: StudyCell) -> StudySetting:
        """The setting of a cell. Only the last one is kept: most cells of one setting are adjacent."""
        setting, roles = self._setting, self._models_of_traits(cell.ranker)
        wanted = cell.dataset, cell.protocol, roles
        if setting is None or (setting.dataset, setting.protocol, setting.roles) != wanted:
            data = self.datasets[cell.dataset.name]
            setting = self._setting = StudySetting(
                self.root, cell.dataset, cell.protocol, data, self._prior, self.on_event, roles
            )
        return setting

    def _run_program(self, directory: Path, spec: RankerSpec, setting: StudySetting, cases: Cases) -> bool:
        choice = self.choice_of(spec)
        configuration = choice.configuration(spec.explain, spec.check) | {"ranker": spec.ranker}
        choice.refuse(cases)
        if is_finished(directory, spec.label, configuration, cases) and not self.retry_unparsable:
            return True

        def build(ledger: Ledger) -> Ranker:
            return choice.build(
                RankerFactory.create(
                    setting.data,
                    setting.split.training,
                    choice.roles,
                    ledger,
                    schema=choice.schema,
                    fusion=choice.fusion,
                    explain=spec.explain,
                    check=spec.check,
                    prior=choice.prior,
                    beside=self.backends,
                    retry_unparsable=self.retry_unparsable,
                    on_event=self.on_event,
                )
            )

        incomplete = run_of_several(
            self.root,
            directory,
            spec.label,
            build,
            configuration,
            cases,
            self.budget,
            self.spec.workers,
            self.on_event,
            self.retry_unparsable,
        )
        if incomplete is not None:
            self.on_event(Note(f"{spec.label}: incomplete: {incomplete}"))
        return incomplete is None

    def _rank_catalogue(
        self, cell: StudyCell, setting: StudySetting, cases: Cases, ranker: Ranker, configuration: dict[str, Any]
    ) -> None:
        directory, done = self.root / cell.path, 0

        def on_user() -> None:
            nonlocal done
            done += 1
            self.on_event(Progress(f"{cell.ranker.label}: users, whole catalogue", done, len(cases)))

        with Journal.open(directory, run_manifest(cell.ranker.label, configuration, cases)):
            catalogue = sorted(set(setting.data.interactions["item_id"]) & setting.data.items.keys())
            owned_items = owned_before_target(setting.data, cases.cases)
            ranks = full_ranking_ranks(ranker, cases.cases, catalogue, owned_items, on_user)
            result = CatalogueRanks(size=len(catalogue), ranks=ranks)
            write_atomically(RunDirectory(directory).ranks, result.model_dump_json().encode() + b"\n")


def run_states(spec: StudySpec, root: Path) -> Iterator[dict[str, Any]]:
    """Name, state (`done`, `begun`, `waiting`), ranked users, calls and dollars of every run of a study.

    `interrupted`, if there are any, are the calls among them that were in flight at a kill.
    """
    for cell in spec.cells(tuple(TRAINED)):
        users = _ranked_users(root / cell.path)
        ledgers = (root / cell.path).rglob(LEDGER)
        spent = total_usage(usage for path in ledgers for usage in by_role(read_calls(path)).values())
        state = "done" if is_done(root / cell.path) else "begun" if users else "waiting"
        facts = {"run": str(cell.path), "state": state, "users": users, "calls": spent.calls, "usd": spent.usd}
        yield facts | ({"interrupted": spent.interrupted} if spent.interrupted else {})


def _ranked_users(directory: Path) -> int:
    if (ranks := RunDirectory(directory).ranks).exists():
        found: CatalogueRanks = read_json(ranks, CatalogueRanks, RUN_AGAIN)
        return len(found.ranks)
    if not RunDirectory(directory).journal.exists():
        return 0
    return sum(row.scored for row in read_journal(directory)[1].values())
