"""Reader of a study's directory: its runs with rows, ranks and costs, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from evaluate.baselines.fit_cost import FitCost
from evaluate.baselines.tuning import Tuned
from evaluate.data.data_warnings import find_data_warnings
from evaluate.data.dataset import Dataset
from evaluate.experiments.study_spec import DatasetSpec, ProtocolSpec, StudyCell, StudySpec, folder_of
from evaluate.paper.published import ITEM_COLD, MAIN, USER_COLD, PublishedRow
from evaluate.protocol.cases import Cases, load_cases
from evaluate.protocol.splits import split_dataset
from evaluate.report.record import ProtocolRecord, RunRecord, StudyRecord, further_cutoffs
from evaluate.runs.costs import stand_alone_usage
from evaluate.runs.directory import LEDGER, RunDirectory
from evaluate.runs.further_metrics import background_of, further_metrics
from evaluate.runs.journal import read_journal, refuse_other_run
from evaluate.runs.run_metrics import ranks_of, unreadable_warning
from evaluate.runs.session import run_manifest
from evaluate.stats.list_metrics import Background
from programs.lm.ledger import by_role, read_calls
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError, quoted
from programs.runtime.untrusted import regular
from signatures.rows import Ranking

ROWS_KEPT = 200
"""Number of rows that a record keeps of a ranker without a language model; ranks are kept of all users."""

_PUBLISHED = {"warm": MAIN, "item-cold": ITEM_COLD, "user-cold": USER_COLD}

TUNE_AGAIN = "delete it to have the settings tried again"
"""What to do about a damaged file of `tuned_path`."""
RUN_AGAIN = "delete the run to have it made again"
"""What to do about a damaged file of a run."""


class CatalogueRanks(BaseModel):
    """Result of a full-catalogue run: the ranks of the targets.

    Attributes:
        size: Number of items in the catalogue; a user's items before the target are not ranked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    ranks: dict[str, int]


def cases_path(root: Path, dataset: str, protocol: str, draw: int, users: int | None) -> Path:
    """The cases file of one draw; runs on fewer users have a file of their own, with the first users."""
    name = "cases.jsonl" if users is None else f"cases-{users}.jsonl"
    return root / folder_of(dataset) / folder_of(protocol) / f"draw{draw}" / name


def is_done(directory: Path) -> bool:
    """Whether the run in a folder is complete: every case has a scored row, or every target a rank."""
    if RunDirectory(directory).ranks.exists():
        return True
    try:
        facts = json.loads(regular(RunDirectory(directory).metrics).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # a damaged file is written again
    return isinstance(facts, dict) and facts.get("unresolved") == 0


def is_finished(directory: Path, label: str, configuration: Mapping[str, Any], cases: Cases) -> bool:
    """Whether the run in a folder is complete.

    Raises:
        InputError: if it is a run of other cases or settings.
    """
    refuse_other_run(directory, run_manifest(label, configuration, cases))
    return is_done(directory)


def read_record(
    spec: StudySpec,
    root: Path,
    trained: Sequence[str],
    data: Mapping[str, Dataset],
    commands: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> StudyRecord:
    """The record of a study, complete or not.

    Args:
        root: The study's directory.
        trained: Names of the rankers with training seeds.
        data: Datasets by name.

    Raises:
        InputError: if nothing has been run, or no run can be reported, such as runs on other data.
    """
    cells = list(spec.cells(trained))
    runs, missing = [], {}
    lists = _Lists(root, data)
    for cell in cells:
        try:
            runs.append(_run(root, cell, lists, commands))
        except InputError as error:
            missing[str(cell.path)] = str(error)
    if not runs:
        begun = next((why for path, why in missing.items() if RunDirectory(root / path).manifest.exists()), None)
        if begun is not None:
            raise InputError(f"{root}: no run can be reported: {begun}")
        raise InputError(f"{root}: nothing has been run yet; start with `mllm3rec study run`")
    settings = {(cell.dataset.name, cell.protocol.name): (cell.dataset, cell.protocol) for cell in cells}
    used = {(run.dataset, run.protocol) for run in runs}
    protocols = [
        _protocol(root, dataset, protocol, data[name])
        for (name, _), (dataset, protocol) in settings.items()
        if (data[name].shown_name_as(name), protocol.name) in used
    ]
    hashes = {f"data {own.shown_name_as(name)}": own.sha256 for name, own in data.items()} | {
        f"cases {record.dataset} {record.name} draw {draw}": cases.sha256
        for record in protocols
        for draw, cases in record.cases.items()
    }
    return StudyRecord(
        name=spec.name,
        title=spec.title or spec.name,
        reference=spec.reference,
        protocols=protocols,
        runs=runs,
        pairs=spec.pairs,
        together=spec.together,
        commands=commands,
        hashes=hashes,
        versions=versions or {},
        missing=missing,
        warnings=[
            f"{own.stands_for} was not found. It was replaced by {_what(own)}, so no figure here is about "
            f"{own.stands_for}."
            for own in data.values()
            if own.stands_for
        ]
        + [
            f"{run.dataset}, {run.protocol}, draw {run.draw}, {run.ranker}: "
            f"{unreadable_warning(run.unparsable_users, run.asked)}."
            for run in runs
            if not run.readable
        ]
        + [line for protocol in protocols for line in protocol.given_away],
        data_warnings=[
            f"{own.shown_name_as(name)}: {one.message}."
            for name, own in data.items()
            if own.shown_name_as(name) in {dataset for dataset, _ in used}
            for one in find_data_warnings(own)
        ],
    )


def _what(data: Dataset) -> str:
    return "the demo store, whose items and users are invented" if data.source == "demo" else f"the data {data.name}"


@dataclass
class _Lists:
    """Cases with their data, and what recommended items are compared with; each read once."""

    root: Path
    data: Mapping[str, Dataset]
    _cases: dict[Path, Cases] = field(default_factory=dict)
    _backgrounds: dict[tuple[str, str], Background] = field(default_factory=dict)

    def cases(self, cell: StudyCell) -> Cases:
        """The cases of a run.

        Raises:
            InputError: if they cannot be read, or were drawn from other data.
        """
        path = cases_path(self.root, cell.dataset.name, cell.protocol.name, cell.draw, cell.ranker.users)
        if path not in self._cases:
            self._cases[path] = load_cases(path).on(self.data[cell.dataset.name])
        return self._cases[path]

    def background(self, cell: StudyCell) -> Background:
        """That of the run's protocol."""
        known = cell.dataset.name, cell.protocol.name
        if known not in self._backgrounds:
            data = self.data[cell.dataset.name]
            self._backgrounds[known] = background_of(data, split_dataset(data, self.cases(cell).protocol).training)
        return self._backgrounds[known]


def _run(root: Path, cell: StudyCell, lists: _Lists, commands: Sequence[str]) -> RunRecord:
    directory = root / cell.path
    manifest, rows = read_journal(directory)
    cases = lists.cases(cell)
    if manifest.cases_sha256 != cases.sha256:
        raise InputError(f"{directory}: is a run of other cases than those of the study; {RUN_AGAIN}")
    asked = manifest.configuration.get("ranker", cell.ranker.ranker)
    for given, wanted in ((manifest.ranker, cell.ranker.label), (asked, cell.ranker.ranker)):
        if given != wanted:
            raise InputError(f"{directory}: is a run of {quoted(str(given))}, not of {quoted(wanted)}; {RUN_AGAIN}")
    # A stacked ranker has the runs of its programs, with their ledgers, in folders below its own.
    ledgers = sorted(directory.rglob(LEDGER))
    calls = [call for path in ledgers for call in read_calls(path)]
    # Calls for the dev users that weights are learned on are not part of the cost of ranking a user.
    ranking = [call for path in ledgers if path.relative_to(directory).parts[0] != "dev" for call in read_calls(path)]
    facts = {
        "dataset": lists.data[cell.dataset.name].shown_name_as(cell.dataset.name),
        "protocol": cell.protocol.name,
        "draw": cell.draw,
        "ranker": cell.ranker.label,
        "seed": cell.seed,
        "manifest": manifest,
        "usage": by_role(calls),
        "stand_alone": stand_alone_usage(ranking),
        # The slash, because a name may be the beginning of another one.
        "command": f"{commands[0]} --only {cell.path}/" if commands else "",
        "tuned": _tuned(root, cell),
        "importance": _importance(RunDirectory(directory).importance),
        "fit_cost": _fit_cost(RunDirectory(directory).fit_cost),
    }
    if cell.protocol.catalogue:
        path = RunDirectory(directory).ranks
        if not path.exists():
            raise InputError(f"{directory}: not finished")
        full: CatalogueRanks = read_json(path, CatalogueRanks, RUN_AGAIN)
        return RunRecord(**facts, rows={}, ranks=full.ranks, list_size=full.size)  # type: ignore[arg-type]
    if not rows:
        raise InputError(f"{directory}: no row yet")
    ranks, size = ranks_of(cases.cases, rows), len(cases[0].candidates)
    return RunRecord(
        **facts,  # type: ignore[arg-type]
        rows=_kept(rows, cases),
        ranks=ranks,
        list_size=size,
        unresolved=len(cases.cases) - len(ranks),
        further=further_metrics(cases, rows, further_cutoffs(size), lists.background(cell)),
    )


def _kept(rows: Mapping[str, Ranking], cases: Cases) -> dict[str, Ranking]:
    if any("mar" in row.scores or not row.asked for row in rows.values()):
        return dict(rows)
    first: Iterable[str] = (case.user_id for case in cases.cases[:ROWS_KEPT])
    return {user: rows[user] for user in first if user in rows}


def _tuned(root: Path, cell: StudyCell) -> list[Mapping[str, object]]:
    path = tuned_path(root, cell)
    if not cell.ranker.tune or cell.ranker.settings:
        return []
    return read_json(path, Tuned, TUNE_AGAIN).model_dump(mode="json")["tried"] if path.exists() else []


def _importance(path: Path) -> Mapping[str, float]:
    found: Mapping[str, float] = read_json(path, dict[str, float], RUN_AGAIN) if path.exists() else {}
    return found


def _fit_cost(path: Path) -> FitCost | None:
    found: FitCost | None = read_json(path, FitCost, RUN_AGAIN) if path.exists() else None
    return found


def tuned_path(root: Path, cell: StudyCell) -> Path:
    """The file with the settings that were tried on dev users."""
    # Settings are tuned with the features of one encoder.
    name = cell.ranker.ranker if cell.ranker.encoder is None else folder_of(cell.ranker.label)
    return root / folder_of(cell.dataset.name) / folder_of(cell.protocol.name) / "tuned" / f"{name}.json"


def _protocol(root: Path, dataset: DatasetSpec, protocol: ProtocolSpec, data: Dataset) -> ProtocolRecord:
    draws = {}
    for draw in range(protocol.draws):
        whole = cases_path(root, dataset.name, protocol.name, draw, None)
        paths = [path for path in (whole, *sorted(whole.parent.glob("cases-*.jsonl"))) if path.exists()]
        if paths:
            draws[draw] = max(map(load_cases, paths), key=len)
    first = next(iter(draws.values()))
    record = ProtocolRecord.of(protocol.name, draws, data, split_dataset(data, first.protocol).training)
    choices = dict(record.choices)
    if protocol.catalogue:
        choices["negatives"] = "none: the whole catalogue is ranked, without the user's items before the target"
    # Published rows do not belong beside other data, which may be used as fallback.
    other = protocol.catalogue or data.stands_for or data.source == "demo"
    published = () if other else _published(dataset, protocol)
    return replace(record, dataset=data.shown_name_as(dataset.name), choices=choices, published=published)


def _published(dataset: DatasetSpec, protocol: ProtocolSpec) -> Sequence[PublishedRow]:
    return [row for row in _PUBLISHED.get(protocol.setting, ()) if row.row.dataset == dataset.published]
