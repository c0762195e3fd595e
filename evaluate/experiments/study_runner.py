"""Study runner: makes every missing run of a study, resumable, then the record that its report is written from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluate.baselines import TRAINED, Baseline
from evaluate.baselines.features import FeatureSource, RankerScores, RecordedScores
from evaluate.baselines.learned import Learned
from evaluate.baselines.stacked import NAME as STACKED
from evaluate.baselines.stacked import StackedRanker, stack
from evaluate.baselines.tuning import Tuned, tune
from evaluate.data.dataset import Dataset
from evaluate.experiments.study_reading import CatalogueRanks, is_done, read_record, tuned_path
from evaluate.experiments.study_setting import StudySetting, require_test_users
from evaluate.experiments.study_spec import RankerSpec, StudyCell, StudySpec
from evaluate.protocol.cases import Cases
from evaluate.ranker_choice import RankerChoice, Resolve, is_free
from evaluate.ranker_factory import RankerFactory
from evaluate.report.record import StudyRecord
from evaluate.runs.directory import LEDGER, RunDirectory
from evaluate.runs.full_ranking import full_ranking_ranks, owned_before_target
from evaluate.runs.journal import Journal, read_journal, refuse_other_run
from evaluate.runs.session import ledger_within, run_manifest, run_session, versions
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger, by_role, read_calls
from programs.lm.model_options import ModelOptions
from programs.program import Fusion
from programs.ranker import Ranker
from programs.runtime.atomic import sweep, write_atomically
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Note, OnEvent, Progress, ignore
from programs.runtime.lock import owned
from signatures.rows import total_usage


@dataclass
class StudyRunner:
    """Runs the cells of a study.

    Args:
        spec: The study.
        root: Its directory.
        resolve: Finds out what the name of a ranker stands for.
        datasets: The study's datasets by name.
        budget: For all runs together; those without a language model go on when it is spent.
    """

    spec: StudySpec
    root: Path
    resolve: Resolve
    datasets: Mapping[str, Dataset]
    budget: Budget = field(default_factory=Budget)
    on_event: OnEvent = ignore
    _setting: StudySetting | None = None
    _fitted: tuple[object, Ranker] | None = None

    @cached_property
    def backends(self) -> Backends:
        """Those of all runs, which keep to the same rate limits together."""
        return Backends(ModelOptions().roles())

    def cells(self, only: Sequence[str] = ()) -> list[StudyCell]:
        """The runs of the study, or those whose name contains one of `only`.

        Raises:
            InputError: if there is none, or one of them cannot be run at all.
        """
        cells = [
            cell
            for cell in self.spec.cells(tuple(TRAINED))
            if not only or any(part in f"{cell.path}/" for part in only)
        ]
        if not cells:
            raise InputError(f"--only {', '.join(only)}: no run of the study has such a name")
        for cell in cells:
            self._check(cell)
        return cells

    def run(self, only: Sequence[str] = ()) -> tuple[list[str], str | None]:
        """Make what is missing.

        Args:
            only: Parts of the names of the runs to make (dataset/protocol/draw/ranker); all where empty.

        Returns:
            Names of the runs that are incomplete, and why the budget stopped them, or None.

        Raises:
            InputError: if a folder holds a run of other cases or settings, or a cell cannot be run at all.
            BudgetExceededError: if the budget ended before anything was complete.
        """
        cells = self.cells(only)
        incomplete: list[str] = []
        spent: str | None = None
        with owned(self.root):
            sweep(self.root)
            for number, cell in enumerate(cells, start=1):
                if not is_done(self.root / cell.path):
                    self.on_event(Note(f"[{number}/{len(cells)}] {cell.path}"))
                try:
                    done = (is_free(cell.ranker.ranker) or spent is None) and self.run_cell(cell)
                except BudgetExceededError as error:
                    spent, done = str(error), False
                    self.on_event(Note(f"stopped: {spent}; runs without a language model go on"))
                if not done:
                    incomplete.append(str(cell.path))
        if spent is not None and len(incomplete) == len(cells):
            raise BudgetExceededError(spent)
        return incomplete, spent

    def record(self, commands: Sequence[str]) -> StudyRecord:
        """What the study has so far, for its report.

        Raises:
            InputError: if nothing has been run, or a run's journal is damaged.
        """
        return read_record(self.spec, self.root, tuple(TRAINED), self.datasets, commands, versions())

    def run_cell(self, cell: StudyCell) -> bool:
        """Make one run, or what is left of it.

        Returns:
            Whether it is complete.

        Raises:
            InputError: if the folder holds a run of other cases or settings, or the cell cannot be run at all.
            BudgetExceededError: if the budget of the study is spent.
        """
        setting = self._setting_of(cell)
        wanted = cell.ranker
        cases = setting.cases(cell.draw, wanted.users)
        directory = self.root / cell.path
        if wanted.ranker == STACKED:
            return self._stack(cell, setting, cases)
        if not is_free(wanted.ranker):
            return self._ask(directory, wanted, setting, cases)
        configuration: dict[str, Any] = {"ranker": wanted.ranker}
        settings: Baseline | None = None
        if wanted.ranker in TRAINED:
            settings = self._tuned(cell, setting).chosen if wanted.tune else TRAINED[wanted.ranker]()
            configuration |= {"seed": cell.seed, "settings": settings.model_dump(mode="json")}
        if cell.protocol.catalogue:
            configuration |= {"catalogue": True}
        if self._finished(directory, wanted, configuration, cases):
            return True
        ranker = setting.factory.ranker(wanted.ranker) if settings is None else self._fit(cell, setting, settings)
        if cell.protocol.catalogue:
            self._rank_catalogue(cell, setting, cases, ranker, configuration)
            return True
        return run_session(
            directory, wanted.label, ranker, configuration, cases, Ledger(), on_event=self.on_event
        ).complete

    def _check(self, cell: StudyCell) -> None:
        stacked = cell.ranker.ranker == STACKED
        if stacked or (cell.ranker.ranker in TRAINED and cell.ranker.tune):
            require_test_users(cell.protocol)
        if is_free(cell.ranker.ranker):
            return
        if cell.protocol.catalogue:
            raise InputError(f"{cell.path}: a language model cannot rank the whole catalogue; name its protocols")
        for name in cell.ranker.programs if stacked else (cell.ranker.ranker,):
            self._resolved(cell.ranker.model_copy(update={"ranker": name}))

    def _resolved(self, wanted: RankerSpec) -> RankerChoice:
        options = ModelOptions(wanted.preset, wanted.model, wanted.mope, wanted.mote, wanted.mar, wanted.judge)
        return self.resolve(wanted.ranker, options, Fusion(weight=wanted.weight, head=wanted.head), None)

    def _setting_of(self, cell: StudyCell) -> StudySetting:
        """What the cell shares with others; only the latest is kept, and cells come sorted."""
        known = self._setting
        if known is None or (known.dataset, known.protocol) != (cell.dataset, cell.protocol):
            data = self.datasets[cell.dataset.name]
            known = self._setting = StudySetting(self.root, cell.dataset, cell.protocol, data, self.on_event)
        return known

    def _finished(self, directory: Path, wanted: RankerSpec, configuration: dict[str, Any], cases: Cases) -> bool:
        """Whether the run is there and complete; refused if it was made of other cases or settings."""
        refuse_other_run(directory, run_manifest(wanted.label, configuration, cases))
        return is_done(directory)

    def _stack(self, cell: StudyCell, setting: StudySetting, cases: Cases) -> bool:
        """Weigh MAR's scores on dev users, then rank with them; every program has a run of its own on both.

        The learned ranker below is the one `learned` is in this study, so that the two differ by MAR alone.
        """
        wanted, directory = cell.ranker, self.root / cell.path
        dev = setting.tuning_cases(wanted.learn_users)
        own = wanted.model_copy(update={"ranker": Learned.name, "seeds": (0,)})
        spec = next((ranker for ranker in self.spec.rankers if ranker.ranker == Learned.name), own)
        below = replace(cell, ranker=spec, seed=spec.seeds[0])
        settings = self._tuned(below, setting).chosen if spec.tune else Learned()
        configuration: dict[str, Any] = {"ranker": STACKED, "programs": list(wanted.programs), "dev": dev.sha256}
        configuration |= {"learned": settings.model_dump(mode="json"), "seed": below.seed}
        if self._finished(directory, wanted, configuration, cases):
            return True
        runs = [
            (directory / part / name, wanted.model_copy(update={"ranker": name, "label": name}), some)
            for part, some in (("dev", dev), ("test", cases))
            for name in wanted.programs
        ]
        if not all(self._ask(path, program, setting, some) for path, program, some in runs):
            return False
        learned = RankerScores(self._fit(below, setting, settings), Learned.name)
        given: dict[str, list[FeatureSource]] = {
            part: [learned, *(_mar_scores(directory / part / name, name) for name in wanted.programs)]
            for part in ("dev", "test")
        }
        ranker = StackedRanker(given["test"], stack(given["dev"], dev.cases, seed=0).weights)
        weights = ", ".join(f"{name} {value:.2f}" for name, value in ranker.explained.items())
        self.on_event(Note(f"{wanted.label}: weights {weights}"))
        write_atomically(RunDirectory(directory).weights, json.dumps(ranker.explained).encode() + b"\n")
        return run_session(
            directory, wanted.label, ranker, configuration, cases, Ledger(), on_event=self.on_event
        ).complete

    def _ask(self, directory: Path, wanted: RankerSpec, setting: StudySetting, cases: Cases) -> bool:
        choice = self._resolved(wanted)
        configuration = choice.configuration(wanted.explain, wanted.check) | {"ranker": wanted.ranker}
        choice.refuse(cases)
        if self._finished(directory, wanted, configuration, cases):
            return True
        ledger = ledger_within(self.root, directory / LEDGER, self.budget)
        factory = RankerFactory.create(
            setting.data,
            setting.split.training,
            choice.roles,
            ledger,
            schema=choice.schema,
            fusion=choice.fusion,
            explain=wanted.explain,
            check=wanted.check,
            beside=self.backends,
            on_event=self.on_event,
        )
        try:
            ranker = choice.build(factory)
            finished = run_session(
                directory, wanted.label, ranker, configuration, cases, ledger, self.spec.workers, self.on_event
            )
        except InputError as error:
            # A backend that is dead or refuses ends its own runs; what is there of them is kept.
            self.on_event(Note(f"{wanted.label}: given up: {error}"))
            return False
        finally:
            ledger.close()
        if finished.status.stopped is not None:
            raise BudgetExceededError(finished.status.stopped)
        return finished.complete

    def _tuned(self, cell: StudyCell, setting: StudySetting) -> Tuned:
        path = tuned_path(self.root, cell)
        if path.exists():
            return Tuned.model_validate_json(path.read_bytes())
        baseline = TRAINED[cell.ranker.ranker]
        dev = setting.tuning_cases(cell.protocol.tune_users)
        self.on_event(Note(f"{cell.ranker.ranker}: tuning on {len(dev)} dev users"))
        tuned = tune(baseline, setting.factory.training_data, dev.cases, seed=0)
        write_atomically(path, tuned.model_dump_json(indent=2).encode() + b"\n")
        return tuned

    def _fit(self, cell: StudyCell, setting: StudySetting, settings: Baseline) -> Ranker:
        key = (cell.dataset.name, cell.protocol.name, settings.model_dump_json(), cell.ranker.ranker, cell.seed)
        if self._fitted is None or self._fitted[0] != key:
            self.on_event(Note(f"{cell.ranker.label}: fitting, seed {cell.seed}"))
            self._fitted = key, settings.fit(setting.factory.training_data, seed=cell.seed or 0)
        return self._fitted[1]

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
            found = CatalogueRanks(size=len(catalogue), ranks=ranks)
            write_atomically(RunDirectory(directory).ranks, found.model_dump_json().encode() + b"\n")


def run_states(spec: StudySpec, root: Path) -> Iterator[dict[str, Any]]:
    """Of every run of a study: its name, state (`done`, `begun`, `waiting`), ranked users, calls and dollars."""
    for cell in spec.cells(tuple(TRAINED)):
        journal = RunDirectory(root / cell.path).journal
        rows = sum(1 for _ in journal.open("rb")) if journal.exists() else 0
        ledgers = (root / cell.path).rglob(LEDGER)
        spent = total_usage(usage for path in ledgers for usage in by_role(read_calls(path)).values())
        state = "done" if is_done(root / cell.path) else "begun" if rows else "waiting"
        yield {"run": str(cell.path), "state": state, "users": rows, "calls": spent.calls, "usd": spent.usd}


def _mar_scores(directory: Path, name: str) -> RecordedScores:
    """MAR's scores of a run, under the program's name; what MAR did not see is unknown, not worst."""
    named = {}
    for user, row in read_journal(directory)[1].items():
        scores = row.scores["mar"]
        seen = {traits.item_id for traits in row.traits} or set(row.order)
        unseen = min(scores) if len(seen) < len(row.order) else None
        known = [float("nan") if value == unseen else value for value in scores]
        named[user] = row.model_copy(update={"scores": {name: known}})
    return RecordedScores(named, name)
