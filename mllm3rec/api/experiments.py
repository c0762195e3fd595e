"""Experiments: a study of many rankers out of one file, and a comparison of many backends on one set of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.data.locate import SEARCHED, find_source
from evaluate.experiments.grid import Grid, read_grid
from evaluate.experiments.grid_forecast import MixForecast
from evaluate.experiments.grid_report import write_comparison
from evaluate.experiments.grid_results import GridResults
from evaluate.experiments.grid_runner import GridRunner
from evaluate.experiments.study_runner import StudyRunner
from evaluate.experiments.study_spec import DatasetSpec, StudySpec, read_study
from evaluate.protocol.cases import Cases, load_cases
from evaluate.report.record import StudyRecord
from evaluate.report.write import write_report
from evaluate.runs.session import versions
from evaluate.stats.metrics import per_user
from mllm3rec.api.options import budget_of
from optimize.resolve import resolve_ranker
from programs.lm.ledger import Budget
from programs.runtime.config_file import validated_config
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, ignore

REPORT_FOLDER = "report"


@dataclass(frozen=True)
class Comparison:
    """What a comparison of backends found.

    Attributes:
        results: Accuracy with tests, costs, effects of each role, and the mix to deploy.
        written: Files of the report, the page first.
        stopped: Why the budget stopped it, or None.
        complete: Whether every mix ranked every user.
    """

    results: GridResults
    written: tuple[Path, ...]
    stopped: str | None
    complete: bool

    def to_frame(self) -> pd.DataFrame:
        """One row per mix: users, mean, low and high of each metric, and stand-alone dollars per user."""
        return pd.DataFrame(
            [
                {"mix": row.label, "users": row.users, "unresolved": row.unresolved, "usd per user": row.cost.per_user}
                | {
                    f"{name} {part}": getattr(found, part)
                    for name, found in row.metrics.items()
                    for part in ("mean", "low", "high")
                }
                for row in self.results.rows
            ]
        ).set_index("mix")


@dataclass(frozen=True)
class Study:
    """What a study has so far.

    Attributes:
        record: Every run with its cases, rows and costs.
        runs: How many runs were asked for.
        incomplete: Names of runs that are not complete.
        stopped: Why the budget stopped it, or None.
        written: Files of the report, the page first.
    """

    record: StudyRecord
    runs: int
    incomplete: tuple[str, ...]
    stopped: str | None
    written: tuple[Path, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row per run: dataset, protocol, draw, ranker, seed, users, and the mean of each metric."""
        rows = []
        for run in self.record.runs:
            means = per_user(run.ranks).mean() if run.ranks else pd.Series(dtype=float)
            about = {"dataset": run.dataset, "protocol": run.protocol, "draw": run.draw, "ranker": run.ranker}
            rows.append(about | {"seed": run.seed, "users": len(run.ranks)} | means.to_dict())
        return pd.DataFrame(rows)


def compare(
    cases: Cases | str | Path,
    grid: Grid | Mapping[str, Any] | str | Path,
    *,
    out: str | Path,
    search: int | None = None,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    on_event: OnEvent = ignore,
    command: str = "",
) -> Comparison:
    """Rank the same cases with every mix of backends for MOPE, MOTE and MAR, or go on with it.

    Args:
        cases: Cases, or a file of them.
        grid: Backends and the roles they are tried in (docs/compare.md): a TOML file, or the same as a dictionary.
        out: Where run directories and report go; the same call resumes.
        search: Try so many mixes, chosen by quality against cost, instead of all.
        budget_usd, max_calls: For all mixes together.
        on_event: Gets notes and progress.
        command: Command that makes this comparison, for the report.

    Raises:
        InputError: if the grid is not valid, or no mix ranked any user.
        BudgetExceededError: if the budget ended before any user was ranked.
    """
    runner = _grid_runner(cases, grid, Path(out), budget_of(budget_usd, max_calls), on_event)
    runs, stopped = runner.run(search)
    results = runner.results(runs)
    written = write_comparison(
        results, runner.grid, runs, runner.cases, runner.cases.dataset, runner.histories, Path(out), command, versions()
    )
    return Comparison(results, tuple(written), stopped, all(not run.unresolved for run in runs))


def forecast_comparison(
    cases: Cases | str | Path,
    grid: Grid | Mapping[str, Any] | str | Path,
    *,
    out: str | Path,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    on_event: OnEvent = ignore,
) -> list[MixForecast]:
    """Measure a few users on every mix and say what `compare` with the same arguments will take."""
    return _grid_runner(cases, grid, Path(out), budget_of(budget_usd, max_calls), on_event).forecast()


def _grid_runner(
    cases: Cases | str | Path, grid: Grid | Mapping[str, Any] | str | Path, out: Path, budget: Budget, on_event: OnEvent
) -> GridRunner:
    cases = cases if isinstance(cases, Cases) else load_cases(cases)
    if isinstance(grid, str | Path):
        grid = read_grid(Path(grid))
    elif not isinstance(grid, Grid):
        grid = validated_config("grid", grid, Grid)
    return GridRunner(grid, cases, out, budget, on_event)


def run_study(
    study: StudySpec | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    data: Mapping[str, Dataset | str | Path] | None = None,
    only: Sequence[str] = (),
    budget_usd: float | None = None,
    max_calls: int | None = None,
    on_event: OnEvent = ignore,
) -> Study:
    """Make every run of a study that is missing, then write its report; the same call goes on where it was stopped.

    Args:
        study: A TOML file (docs/study.md), or the same as a dictionary.
        out: Where runs go; `runs/NAME` unless given.
        data: Datasets by their name in the study, or where they are.
        only: Parts of the names of the runs to make (dataset/protocol/draw/ranker); all where empty.
        budget_usd, max_calls: In place of the study's own budget, for all runs together.
        on_event: Gets notes and progress.

    Raises:
        InputError: if the study is not valid, a dataset is not found, or a run cannot be made at all.
        BudgetExceededError: if the budget ended before anything was complete.
    """
    spec = read_spec(study)
    budget = budget_of(
        spec.budget.usd if budget_usd is None else budget_usd,
        spec.budget.calls if max_calls is None else max_calls,
    )
    root = study_root(study, spec, out)
    runner = StudyRunner(spec, root, resolve_ranker, study_datasets(spec, data, on_event), budget, on_event)
    runs = len(runner.cells(only))
    incomplete, stopped = runner.run(only)
    record, written = _reported(runner, study, root, data)
    return Study(record, runs, tuple(incomplete), stopped, written)


def report_study(
    study: StudySpec | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    data: Mapping[str, Dataset | str | Path] | None = None,
    on_event: OnEvent = ignore,
) -> Study:
    """Write the report of what has been run so far; arguments as in `run_study`.

    Raises:
        InputError: if nothing has been run yet.
    """
    spec = read_spec(study)
    root = study_root(study, spec, out)
    runner = StudyRunner(spec, root, resolve_ranker, study_datasets(spec, data, on_event), on_event=on_event)
    record, written = _reported(runner, study, root, data)
    return Study(record, len(runner.cells()), tuple(record.missing), None, written)


def read_spec(study: StudySpec | Mapping[str, Any] | str | Path) -> StudySpec:
    """A study from its TOML file or a dictionary.

    Raises:
        InputError: naming the field that is not valid.
    """
    if isinstance(study, str | Path):
        return read_study(Path(study))
    return study if isinstance(study, StudySpec) else validated_config("study", study, StudySpec)


def study_root(study: object, spec: StudySpec, out: str | Path | None) -> Path:
    """Where the runs of a study go."""
    if out is not None:
        return Path(out)
    return Path("runs") / (Path(study).stem if isinstance(study, str | Path) else spec.name.replace(" ", "_"))


def study_datasets(
    spec: StudySpec, data: Mapping[str, Dataset | str | Path] | None, on_event: OnEvent = ignore
) -> dict[str, Dataset]:
    """The datasets of a study by name.

    Raises:
        InputError: if one cannot be found or read.
    """
    given = dict(data or {})
    found: dict[str, Dataset] = {}
    for wanted in spec.datasets:
        known = given.get(wanted.name)
        if isinstance(known, Dataset):
            found[wanted.name] = known
            continue
        source = None if known is None else str(known)
        if source is None:
            source = find_source(wanted.source)
        stands_for = ""
        if source is None:
            source = _fallback(wanted)
            stands_for = wanted.name
            on_event(Note(f"no dataset {wanted.source!r} {SEARCHED}: {source} is used instead"))
        found[wanted.name] = replace(load_dataset(source), stands_for=stands_for)
        for note in found[wanted.name].notes:
            on_event(Note(f"{wanted.name}: {note}"))
    return found


def _fallback(wanted: DatasetSpec) -> str:
    if wanted.fallback is None:
        raise InputError(
            f"no dataset {wanted.source!r}: no such directory, and none of that name {SEARCHED}; give its directory "
            f"with --data {wanted.name}=DIRECTORY"
        )
    return wanted.fallback


def _reported(
    runner: StudyRunner, study: object, root: Path, data: Mapping[str, Dataset | str | Path] | None
) -> tuple[StudyRecord, tuple[Path, ...]]:
    sources = "".join(
        f" --data {name}={source}" for name, source in (data or {}).items() if not isinstance(source, Dataset)
    )
    named = study if isinstance(study, str | Path) else "STUDY.toml"
    record = runner.record([f"mllm3rec study run {named} --out {root}{sources}"])
    return record, tuple(write_report(record, root / REPORT_FOLDER))
