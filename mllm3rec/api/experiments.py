"""Experiments: a study of many rankers, and a comparison of many models on the same cases."""

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
from evaluate.experiments.grid_forecast import GridForecast
from evaluate.experiments.grid_report import write_comparison
from evaluate.experiments.grid_results import GridResults
from evaluate.experiments.grid_runner import GridRunner
from evaluate.experiments.study_forecast import RankerForecast, forecast_runs
from evaluate.experiments.study_runner import StudyRunner
from evaluate.experiments.study_spec import DatasetSpec, StudySpec, read_study
from evaluate.protocol.cases import Cases
from evaluate.report.record import StudyRecord
from evaluate.report.write import write_report
from evaluate.runs.session import versions
from evaluate.stats.metrics import per_user
from mllm3rec.api.options import budget_of
from mllm3rec.api.sessions import read_cases, tell_list_warnings
from optimize.resolve import resolve_ranker
from programs.lm.ledger import Budget
from programs.runtime.config_file import validated_config
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, ignore

REPORT_FOLDER = "report"


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison of models.

    Attributes:
        results: Accuracy with tests, costs, the effect of each role's model, and the recommended mix.
        written: Files of the report, the HTML page first.
        stopped: The reason if the budget stopped it, or None.
        complete: Whether all mixes ranked all users.
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
    """Results of a study so far.

    Attributes:
        record: All runs with their cases, rows and costs.
        runs: Number of runs that were requested.
        incomplete: Names of the incomplete runs.
        stopped: The reason if the budget stopped it, or None.
        written: Files of the report, the HTML page first.
        forecast: What `run_study` expected of every ranker with a model, before it asked any.
    """

    record: StudyRecord
    runs: int
    incomplete: tuple[str, ...]
    stopped: str | None
    written: tuple[Path, ...]
    forecast: tuple[RankerForecast, ...] = ()

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
    max_minutes: float | None = None,
    timeout: float | None = None,
    max_tokens: int | None = None,
    retry_unparsable: bool = False,
    on_event: OnEvent = ignore,
    command: str = "",
) -> Comparison:
    """Rank the same cases with every mix of models for MOPE, MOTE and MAR. The same call resumes.

    Args:
        cases: Cases, or their file.
        grid: The models to try for each role (docs/compare.md): a TOML file, or the same as a dictionary.
        out: Folder of the run directories and the report.
        search: Number of mixes to try, chosen by quality and cost; None for all.
        budget_usd, max_calls, max_minutes: Most dollars, model calls and minutes for all mixes together; None for no
            limit.
        timeout, max_tokens: Most seconds of one call, and most tokens of one answer.
        retry_unparsable: Whether to rank users with unparsable answers again, with new calls.
        on_event: Receives notes and progress.
        command: The command to show in the report, to repeat the comparison.

    Raises:
        InputError: if the grid is not valid, or no mix ranked any user.
        BudgetExceededError: if the budget ended before any user was ranked.
    """
    budget = budget_of(budget_usd, max_calls, max_minutes)
    runner = _grid_runner(cases, grid, Path(out), budget, on_event, timeout, max_tokens, retry_unparsable)
    runs, stopped = runner.run(search)
    results = runner.results(runs)
    written = write_comparison(results, runner, runs, command, versions())
    return Comparison(results, tuple(written), stopped, all(not run.unresolved for run in runs))


def forecast_comparison(
    cases: Cases | str | Path,
    grid: Grid | Mapping[str, Any] | str | Path,
    *,
    out: str | Path,
    search: int | None = None,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    timeout: float | None = None,
    max_tokens: int | None = None,
    on_event: OnEvent = ignore,
) -> GridForecast:
    """Forecast of the cost of `compare` with the same arguments, from a few users measured on every mix.

    Of a search it is an upper bound: which mixes it tries depends on their results.

    Raises:
        InputError: as `compare`.
        BudgetExceededError: if the budget ended before all mixes were measured; all answers are cached.
    """
    budget = budget_of(budget_usd, max_calls, max_minutes)
    return _grid_runner(cases, grid, Path(out), budget, on_event, timeout, max_tokens).forecast(search)


def _grid_runner(
    cases: Cases | str | Path,
    grid: Grid | Mapping[str, Any] | str | Path,
    out: Path,
    budget: Budget,
    on_event: OnEvent,
    timeout: float | None,
    max_tokens: int | None,
    retry_unparsable: bool = False,
) -> GridRunner:
    cases = read_cases(cases)
    if isinstance(grid, str | Path):
        grid = read_grid(Path(grid))
    elif not isinstance(grid, Grid):
        grid = validated_config("grid", grid, Grid)
    tell_list_warnings(cases, on_event)
    return GridRunner(grid, cases, out, budget, on_event, timeout, max_tokens, retry_unparsable)


def run_study(
    study: StudySpec | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    data: Mapping[str, Dataset | str | Path] | None = None,
    only: Sequence[str] = (),
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    timeout: float | None = None,
    max_tokens: int | None = None,
    retry_unparsable: bool = False,
    on_event: OnEvent = ignore,
) -> Study:
    """Make all missing runs of a study, then write its report. The same call resumes a stopped study.

    Args:
        study: A TOML file (docs/study.md), or the same as a dictionary.
        out: Folder of the runs; None for `runs/NAME`.
        data: Datasets, or their directories, by their name in the study.
        only: Make only runs whose name (dataset/protocol/draw/ranker) contains one of these texts; empty for all.
        budget_usd, max_calls, max_minutes: Replace the study's own budget, for all runs together.
        timeout, max_tokens: Most seconds of one call, and most tokens of one answer.
        retry_unparsable: Whether programs rank users with unparsable answers again, with new calls.
        on_event: Receives notes and progress.

    Raises:
        InputError: if the study is not valid, a dataset is not found, or a run is not possible.
        BudgetExceededError: if the budget ended before a run was complete.
    """
    given = budget_of(budget_usd, max_calls, max_minutes)
    runner = _study_runner(study, out, data, on_event, given, timeout, max_tokens, retry_unparsable)
    runs = len(runner.cells(only))
    forecast = forecast_runs(runner, only)
    for one in forecast:
        on_event(Note(f"forecast: {one}"))
    incomplete, stopped = runner.run(only)
    record, written = _reported(runner, study, runner.root, data)
    return Study(record, runs, tuple(incomplete), stopped, written, tuple(forecast))


def forecast_study(
    study: StudySpec | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    data: Mapping[str, Dataset | str | Path] | None = None,
    only: Sequence[str] = (),
    max_tokens: int | None = None,
    on_event: OnEvent = ignore,
) -> list[RankerForecast]:
    """What the models of every ranker will be asked by `run_study` with the same arguments; asks none.

    The cases of runs with a model are drawn and kept.

    Raises:
        InputError: as `run_study`.
    """
    runner = _study_runner(study, out, data, on_event, max_tokens=max_tokens)
    return forecast_runs(runner, only)


def report_study(
    study: StudySpec | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    data: Mapping[str, Dataset | str | Path] | None = None,
    on_event: OnEvent = ignore,
) -> Study:
    """Write the report of all runs so far; arguments as in `run_study`.

    Raises:
        InputError: if nothing has been run yet.
    """
    runner = _study_runner(study, out, data, on_event)
    record, written = _reported(runner, study, runner.root, data)
    return Study(record, len(runner.cells()), tuple(record.missing), None, written)


def _study_runner(
    study: StudySpec | Mapping[str, Any] | str | Path,
    out: str | Path | None,
    data: Mapping[str, Dataset | str | Path] | None,
    on_event: OnEvent,
    given: Budget | None = None,
    timeout: float | None = None,
    max_tokens: int | None = None,
    retry_unparsable: bool = False,
) -> StudyRunner:
    """The runner of a study; limits that are given replace its own, and its minutes begin."""
    spec = read_spec(study)
    replaced = {} if given is None else given.model_dump(exclude_none=True)
    budget = Budget.model_validate(spec.budget.model_dump() | replaced)
    datasets = study_datasets(spec, data, on_event)
    root = study_root(study, spec, out)
    return StudyRunner(spec, root, resolve_ranker, datasets, budget, on_event, timeout, max_tokens, retry_unparsable)


def read_spec(study: StudySpec | Mapping[str, Any] | str | Path) -> StudySpec:
    """A study from its TOML file or a dictionary.

    Raises:
        InputError: naming the field that is not valid.
    """
    if isinstance(study, str | Path):
        return read_study(Path(study))
    return study if isinstance(study, StudySpec) else validated_config("study", study, StudySpec)


def study_root(study: object, spec: StudySpec, out: str | Path | None) -> Path:
    """Folder of the runs of a study."""
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
        columns = {} if stands_for else wanted.columns
        found[wanted.name] = replace(load_dataset(source, columns), stands_for=stands_for)
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
