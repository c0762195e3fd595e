"""`mllm3rec study`: many runs out of one file, resumable, and one report about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from evaluate.baselines import TRAINED, Baseline
from evaluate.baselines.features import FeatureSource, RankerScores, RecordedScores
from evaluate.baselines.learned import Learned
from evaluate.baselines.stacked import NAME as STACKED
from evaluate.baselines.stacked import StackedRanker, stack
from evaluate.baselines.tuning import Tuned, tune
from evaluate.data.dataset import Dataset
from evaluate.data.locate import find_source
from evaluate.experiments.study_reading import (
    LEDGER,
    RANKS,
    CatalogueRanks,
    cases_path,
    is_done,
    read_record,
    tuned_path,
)
from evaluate.experiments.study_spec import DatasetSpec, ProtocolSpec, RankerSpec, StudyCell, StudySpec, read_study
from evaluate.protocol.cases import CaseFile, draw_cases, read_cases, write_cases
from evaluate.protocol.leakage import find_leaks, refuse_leaks
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import Split, split_dataset
from evaluate.ranker_factory import BASELINES, RankerFactory
from evaluate.report.write import write_report
from evaluate.runs.full_ranking import full_ranking_ranks
from evaluate.runs.journal import Journal, RunManifest, read_journal, refuse_other_run
from mllm3rec.cli.console import emit, out, progress, say
from mllm3rec.cli.evaluate import refuse_known_shoppers, run_into
from mllm3rec.cli.settings import (
    BudgetUsd,
    Json,
    MaxCalls,
    ModelOptions,
    configuration,
    encoder_setting,
    ledger_within,
    open_dataset,
    versions,
    workshop,
)
from mllm3rec.resolve import Chosen, choose
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger, by_role, read_calls
from programs.program import Fusion
from programs.ranker import Ranker
from programs.runtime.atomic import sweep, write_atomically
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.lock import owned
from signatures.rows import Case, total_usage

app = typer.Typer(no_args_is_help=True, help="Run a whole evaluation described by one file, and report it.")
StudyFile = Annotated[Path, typer.Argument(help="A study, as TOML; see docs/study.md.")]
Directory = Annotated[Path | None, typer.Option("--out", help="Where runs go [default: runs/NAME of the study].")]
Data = Annotated[
    list[str] | None, typer.Option("--data", help="NAME=DIRECTORY: where a dataset of the study lies. Repeatable.")
]
REPORT, WEIGHTS = "report", "weights.json"


@dataclass
class Ground:
    """One protocol on one dataset: what its runs share, each part made when first needed."""

    root: Path
    dataset: DatasetSpec
    protocol: ProtocolSpec
    data: Dataset
    source: str
    _cases: dict[tuple[int, int | None], CaseFile] = field(default_factory=dict)

    @cached_property
    def divided(self) -> Split:
        """Who is evaluated, and what may be learnt."""
        return split_dataset(self.data, self._protocol(0, None))

    @cached_property
    def shop(self) -> RankerFactory:
        """Builds rankers without a language model."""
        return workshop(self.data, self.divided.training, ModelOptions().roles(), Ledger())

    def cases(self, draw: int, users: int | None) -> CaseFile:
        """The frozen cases of a draw, written when missing.

        Raises:
            InputError: if the file there holds other cases than the study file asks for, or they leak.
        """
        if (draw, users) not in self._cases:
            path = cases_path(self.root, self.dataset.name, self.protocol.name, draw, users)
            asked = self._protocol(draw, users)
            found = read_cases(path) if path.exists() else None
            if found is None:
                found = write_cases(path, asked, draw_cases(self.data, asked, self.divided))
            _require_drawn_by(path, found, asked)
            refuse_leaks(find_leaks(found.cases, self.data, self.divided.training, self.protocol.setting))
            self._cases[draw, users] = found
        return self._cases[draw, users]

    def tuning_cases(self, users: int) -> CaseFile:
        """Dev cases of the same protocol, checked like those of test users.

        Raises:
            InputError: if the evaluated users are not test users: then dev users are among them.
        """
        _require_test_users(self.protocol)
        folder = cases_path(self.root, self.dataset.name, self.protocol.name, 0, None).parents[1] / "tuned"
        path = folder / f"dev-{users}.jsonl"
        changes = {"part": "dev", "users": users, "negatives": self.protocol.negatives}
        asked = self._protocol(0, None).model_copy(update=changes)
        if path.exists():
            found = read_cases(path)
            _require_drawn_by(path, found, asked)
            return found
        found = write_cases(path, asked, draw_cases(self.data, asked, self.divided))
        refuse_leaks(find_leaks(found.cases, self.data, self.divided.training, self.protocol.setting))
        return found

    def _protocol(self, draw: int, users: int | None) -> EvaluationProtocol:
        return self.protocol.drawn(self.dataset.name, self.source, self.data.sha256, users, draw)


def _require_test_users(protocol: ProtocolSpec) -> None:
    if protocol.part != "test":
        raise InputError(
            f"protocol {protocol.name!r}: what is tuned on dev users is evaluated on test users only; give it "
            'part = "test"'
        )


def _require_drawn_by(path: Path, found: CaseFile, asked: EvaluationProtocol) -> None:
    # The same data may lie elsewhere today: their hash is part of the protocol.
    if found.protocol.model_copy(update={"source": asked.source}) != asked:
        raise InputError(f"{path}: drawn by another protocol than the study file's; choose another --out")


def _free(wanted: RankerSpec) -> bool:
    """Whether it asks no language model."""
    return wanted.ranker in TRAINED or wanted.ranker in BASELINES


@dataclass
class Runner:
    """Runs the cells of a study."""

    spec: StudySpec
    root: Path
    given: Mapping[str, str]
    budget_usd: float | None = None
    max_calls: int | None = None
    _data: dict[str, tuple[Dataset, str]] = field(default_factory=dict)
    _ground: Ground | None = None
    _fitted: tuple[object, Ranker] | None = None

    @cached_property
    def backends(self) -> Backends:
        """Those of all runs, which keep to the same limits together."""
        return Backends(ModelOptions().roles())

    def dataset(self, wanted: DatasetSpec) -> tuple[Dataset, str]:
        """The dataset and where it was read from."""
        if wanted.name not in self._data:
            source = find_source(wanted.source, wanted.fallback, self.given.get(wanted.name))
            self._data[wanted.name] = open_dataset(source), source
        return self._data[wanted.name]

    def ground(self, cell: StudyCell) -> Ground:
        """What the cell shares with others; only the latest is kept, and cells come sorted."""
        known = self._ground
        if known is None or (known.dataset, known.protocol) != (cell.dataset, cell.protocol):
            data, source = self.dataset(cell.dataset)
            self._ground = Ground(self.root, cell.dataset, cell.protocol, data, source)
        assert self._ground is not None  # noqa: S101 - set above
        return self._ground

    @staticmethod
    def check(cell: StudyCell) -> None:
        """Find out what is wrong with a cell before anything of the study is run.

        Raises:
            InputError: if there is no such ranker or artifact, or it cannot rank under the protocol.
        """
        stacked = cell.ranker.ranker == STACKED
        if stacked or (cell.ranker.ranker in TRAINED and cell.ranker.tune):
            _require_test_users(cell.protocol)
        if _free(cell.ranker):
            return
        if cell.protocol.catalogue:
            raise InputError(f"{cell.path}: a language model cannot rank the whole catalogue; name its protocols")
        for name in cell.ranker.programs if stacked else (cell.ranker.ranker,):
            _chosen(cell.ranker.model_copy(update={"ranker": name}))

    def run(self, cell: StudyCell) -> bool:
        """Run one cell, or what is left of it.

        Returns:
            Whether it is complete.

        Raises:
            InputError: if the folder holds a run of other cases or settings, or the cell cannot be run at all.
            BudgetExceededError: if the budget of the study is spent.
        """
        ground = self.ground(cell)
        wanted = cell.ranker
        cases = ground.cases(cell.draw, wanted.users)
        directory = self.root / cell.path
        if not _free(wanted):
            if wanted.ranker == STACKED:
                return self._stack(cell, ground, cases)
            return self._ask(directory, wanted, ground, cases)
        settings: dict[str, Any] = {"ranker": wanted.ranker}
        chosen: Baseline | None = None
        if wanted.ranker in TRAINED:
            chosen = self._tuned(cell, ground).chosen if wanted.tune else TRAINED[wanted.ranker]()
            settings |= {"seed": cell.seed, "settings": chosen.model_dump(mode="json")}
        if cell.protocol.catalogue:
            settings |= {"catalogue": True}
        if self._finished(directory, wanted, settings, cases):
            return True
        ranker = ground.shop.ranker(wanted.ranker) if chosen is None else self._fit(cell, ground, chosen)
        if cell.protocol.catalogue:
            self._whole_catalogue(cell, ground, cases, ranker, settings)
            return True
        return run_into(directory, wanted.label, ranker, settings, cases, Ledger()).outcome.complete

    def _finished(self, directory: Path, wanted: RankerSpec, settings: dict[str, Any], cases: CaseFile) -> bool:
        """Whether the run is there and complete; refused if it was made of other cases or settings."""
        refuse_other_run(directory, _manifest(wanted, settings, cases))
        return is_done(directory)

    def _stack(self, cell: StudyCell, ground: Ground, cases: CaseFile) -> bool:
        """Weigh MAR's scores on dev users, then rank with them; every program has a run of its own on both.

        The learned ranker below is the one `learned` is in this study, so that the two differ by MAR alone.
        """
        wanted, directory = cell.ranker, self.root / cell.path
        dev = ground.tuning_cases(wanted.learn_users)
        own = wanted.model_copy(update={"ranker": Learned.name, "seeds": (0,)})
        spec = next((one for one in self.spec.rankers if one.ranker == Learned.name), own)
        below = replace(cell, ranker=spec, seed=spec.seeds[0])
        chosen = self._tuned(below, ground).chosen if spec.tune else Learned()
        settings: dict[str, Any] = {"ranker": STACKED, "programs": list(wanted.programs), "dev": dev.sha256}
        settings |= {"learned": chosen.model_dump(mode="json"), "seed": below.seed}
        if self._finished(directory, wanted, settings, cases):
            return True
        runs = [
            (directory / part / name, wanted.model_copy(update={"ranker": name, "label": name}), some)
            for part, some in (("dev", dev), ("test", cases))
            for name in wanted.programs
        ]
        if not all(self._ask(place, one, ground, some) for place, one, some in runs):
            return False
        learned = RankerScores(self._fit(below, ground, chosen), Learned.name)
        given: dict[str, list[FeatureSource]] = {
            part: [learned, *(_mar(directory / part / name, name) for name in wanted.programs)]
            for part in ("dev", "test")
        }
        ranker = StackedRanker(given["test"], stack(given["dev"], dev.cases, seed=0).weights)
        say(f"{wanted.label}: weights {', '.join(f'{name} {value:.2f}' for name, value in ranker.explained.items())}")
        write_atomically(directory / WEIGHTS, json.dumps(ranker.explained).encode() + b"\n")
        return run_into(directory, wanted.label, ranker, settings, cases, Ledger()).outcome.complete

    def _ask(self, directory: Path, wanted: RankerSpec, ground: Ground, cases: CaseFile) -> bool:
        chosen = _chosen(wanted)
        settings = configuration(chosen.roles, chosen.fusion, chosen.schema, wanted.explain, wanted.check)
        settings |= {"ranker": wanted.ranker}
        if chosen.manifest is not None:
            refuse_known_shoppers(chosen.manifest, cases)
            settings |= {"artifact": chosen.manifest.sha256}
        if self._finished(directory, wanted, settings, cases):
            return True
        ledger = ledger_within(self.root, directory / LEDGER, self.budget_usd, self.max_calls)
        shop = workshop(
            ground.data,
            ground.divided.training,
            chosen.roles,
            ledger,
            chosen.schema,
            chosen.fusion,
            wanted.explain,
            wanted.check,
            beside=self.backends,
        )
        try:
            ranker = chosen.build(shop)
            finished = run_into(directory, wanted.label, ranker, settings, cases, ledger, self.spec.workers)
        except InputError as error:
            # A backend that is dead or refuses ends its own runs; what is there of them is kept.
            say(f"{wanted.label}: given up: {error}")
            return False
        finally:
            ledger.close()
        if finished.outcome.stopped is not None:
            raise BudgetExceededError(finished.outcome.stopped)
        return finished.outcome.complete

    def _tuned(self, cell: StudyCell, ground: Ground) -> Tuned:
        path = tuned_path(self.root, cell)
        if path.exists():
            return Tuned.model_validate_json(path.read_bytes())
        baseline = TRAINED[cell.ranker.ranker]
        dev = ground.tuning_cases(cell.protocol.tune_users)
        say(f"{cell.ranker.ranker}: tuning on {len(dev.cases)} dev users")
        tuned = tune(baseline, ground.shop.material, dev.cases, seed=0)
        write_atomically(path, tuned.model_dump_json(indent=2).encode() + b"\n")
        return tuned

    def _fit(self, cell: StudyCell, ground: Ground, settings: Baseline) -> Ranker:
        key = (cell.dataset.name, cell.protocol.name, settings.model_dump_json(), cell.ranker.ranker, cell.seed)
        if self._fitted is None or self._fitted[0] != key:
            say(f"{cell.ranker.label}: fitting, seed {cell.seed}")
            self._fitted = key, settings.fit(ground.shop.material, seed=cell.seed or 0)
        return self._fitted[1]

    def _whole_catalogue(
        self, cell: StudyCell, ground: Ground, cases: CaseFile, ranker: Ranker, settings: dict[str, Any]
    ) -> None:
        directory = self.root / cell.path
        with Journal.open(directory, _manifest(cell.ranker, settings, cases)):
            catalogue = sorted(set(ground.data.interactions["item_id"]) & ground.data.items.keys())
            with progress(f"{cell.ranker.label}: users, whole catalogue", len(cases.cases)) as ticker:
                owned = _owned(ground.data, cases.cases)
                ranks = full_ranking_ranks(ranker, cases.cases, catalogue, owned, ticker.advance)
            found = CatalogueRanks(size=len(catalogue), ranks=ranks)
            write_atomically(directory / RANKS, found.model_dump_json().encode() + b"\n")


def _chosen(wanted: RankerSpec) -> Chosen:
    options = ModelOptions(wanted.preset, wanted.model, wanted.mope, wanted.mote, wanted.mar, wanted.judge)
    return choose(wanted.ranker, options, Fusion(weight=wanted.weight, head=wanted.head), None)


def _owned(data: Dataset, cases: Sequence[Case]) -> dict[str, set[str]]:
    """What every user had before the target."""
    owned = {}
    for case in cases:
        items = [event.item_id for event in data.sequences[case.user_id]]
        place = max(index for index, item in enumerate(items) if item == case.target)
        owned[case.user_id] = set(items[:place])
    return owned


def _manifest(wanted: RankerSpec, settings: dict[str, Any], cases: CaseFile) -> RunManifest:
    return RunManifest(
        cases_sha256=cases.sha256,
        ranker=wanted.label,
        configuration=settings | encoder_setting(),
        versions=versions(),
    )


def _mar(directory: Path, name: str) -> RecordedScores:
    """MAR's scores of a run, under the program's name; what MAR did not see is unknown, not worst."""
    named = {}
    for user, row in read_journal(directory)[1].items():
        scores = row.scores["mar"]
        seen = {traits.item_id for traits in row.traits} or set(row.order)
        unseen = min(scores) if len(seen) < len(row.order) else None
        known = [float("nan") if value == unseen else value for value in scores]
        named[user] = row.model_copy(update={"scores": {name: known}})
    return RecordedScores(named, name)


@app.command()
def run(
    study: StudyFile,
    directory: Directory = None,
    data: Data = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run only what has this in its name (dataset/protocol/draw/ranker).")
    ] = None,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    as_json: Json = False,
) -> None:
    """Run what is missing, then write the report. The same command goes on where it was stopped.

    A dataset's source is a directory, `demo`, or a name: then the folder of that name is looked for in ./data, in the
    folder MLLM3REC_DATA names, and in data folders beside this one.
    """
    spec, root = read_study(study), _root(study, directory)
    runner = Runner(
        spec,
        root,
        _given(data),
        budget_usd if budget_usd is not None else spec.budget.usd,
        max_calls if max_calls is not None else spec.budget.calls,
    )
    cells = [cell for cell in spec.cells(tuple(TRAINED)) if _asked(cell, only)]
    if not cells:
        raise InputError(f"--only {', '.join(only or ())}: nothing in {study} has such a name")
    for cell in cells:
        runner.check(cell)
    incomplete: list[str] = []
    spent: str | None = None
    with owned(root):
        sweep(root)
        for number, cell in enumerate(cells, start=1):
            if not is_done(root / cell.path):
                say(f"[{number}/{len(cells)}] {cell.path}")
            try:
                done = (_free(cell.ranker) or spent is None) and runner.run(cell)
            except BudgetExceededError as error:
                spent, done = str(error), False
                say(f"stopped: {spent}; runs without a language model go on")
            if not done:
                incomplete.append(str(cell.path))
        if spent is not None and len(incomplete) == len(cells):
            raise BudgetExceededError(spent)
        written = _report(spec, study, root, runner, data)
    if as_json:
        emit({"study": spec.name, "runs": len(cells), "incomplete": incomplete, "written": [str(p) for p in written]})
    else:
        out.print(f"{len(cells) - len(incomplete)} of {len(cells)} runs complete")
        _say_written(written)
    if spent is not None:
        raise BudgetExceededError(spent)
    raise typer.Exit(1 if incomplete else 0)


@app.command()
def status(study: StudyFile, directory: Directory = None, as_json: Json = False) -> None:
    """What is done, what is left, what was paid. Exit code 1 while something is left."""
    spec, root = read_study(study), _root(study, directory)
    rows = list(_states(spec, root))
    left = sum(row["state"] != "done" for row in rows)
    if as_json:
        emit({"study": spec.name, "runs": rows, "left": left})
    else:
        table = Table("run", "state", "users", "calls", "dollars")
        for row in rows:
            usd = row["usd"]
            table.add_row(
                row["run"], row["state"], str(row["users"]), str(row["calls"]), "-" if usd is None else f"${usd:.4f}"
            )
        out.print(table)
        out.print(f"{len(rows) - left} of {len(rows)} runs done")
    raise typer.Exit(1 if left else 0)


@app.command()
def report(study: StudyFile, directory: Directory = None, data: Data = None, as_json: Json = False) -> None:
    """Write the report of what has been run so far: one HTML file, and its tables as CSV, Markdown and LaTeX."""
    spec, root = read_study(study), _root(study, directory)
    written = _report(spec, study, root, Runner(spec, root, _given(data)), data)
    if as_json:
        emit({"study": spec.name, "written": [str(path) for path in written]})
        return
    _say_written(written)


def _say_written(written: Sequence[Path]) -> None:
    page, *tables = written
    out.print(f"written: {page}", markup=False)
    out.print(f"written: {len(tables)} tables as CSV, Markdown and LaTeX in {tables[0].parent}", markup=False)


def _root(study: Path, directory: Path | None) -> Path:
    return directory or Path("runs") / study.stem


def _given(data: Sequence[str] | None) -> dict[str, str]:
    given = {}
    for entry in data or ():
        name, equals, place = entry.partition("=")
        if not (name and equals and place):
            raise InputError(f"--data {entry!r}: write NAME=DIRECTORY")
        given[name] = place
    return given


def _asked(cell: StudyCell, only: Sequence[str] | None) -> bool:
    return not only or any(part in f"{cell.path}/" for part in only)


def _states(spec: StudySpec, root: Path) -> Iterator[dict[str, Any]]:
    for cell in spec.cells(tuple(TRAINED)):
        journal = root / cell.path / "journal.jsonl"
        rows = sum(1 for _ in journal.open("rb")) if journal.exists() else 0
        ledgers = (root / cell.path).rglob(LEDGER)
        spent = total_usage(usage for path in ledgers for usage in by_role(read_calls(path)).values())
        state = "done" if is_done(root / cell.path) else "begun" if rows else "waiting"
        yield {"run": str(cell.path), "state": state, "users": rows, "calls": spent.calls, "usd": spent.usd}


def _report(spec: StudySpec, study: Path, root: Path, runner: Runner, data: Sequence[str] | None) -> list[Path]:
    datasets = {wanted.name: runner.dataset(wanted)[0] for wanted in spec.datasets}
    places = "".join(f" --data {entry}" for entry in data or ())
    command = f"mllm3rec study run {study} --out {root}{places}"
    record = read_record(spec, root, tuple(TRAINED), datasets, [command], versions())
    return write_report(record, root / REPORT)
