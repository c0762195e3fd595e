"""From a study's directory to its record: what is there, what is missing, what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluate.data.dataset import Dataset
from evaluate.experiments.study_spec import DatasetSpec, ProtocolSpec, StudyCell, StudySpec, folder_of
from evaluate.paper.published import ITEM_COLD, MAIN, USER_COLD, PublishedRow
from evaluate.protocol.cases import Cases, load_cases
from evaluate.protocol.splits import split_dataset
from evaluate.report.record import ProtocolRecord, RunRecord, StudyRecord
from evaluate.runs.costs import once_each
from evaluate.runs.directory import LEDGER, RunDirectory
from evaluate.runs.journal import read_journal
from evaluate.runs.run_metrics import ranks_of
from programs.lm.ledger import by_role, read_calls
from programs.prior.scorers import Popularity
from programs.runtime.errors import InputError
from signatures.rows import Ranking

ROWS_KEPT = 200
"""Rows of a ranker without a language model that a record keeps: enough to look at, and ranks are kept of all."""

_PUBLISHED = {"warm": MAIN, "item-cold": ITEM_COLD, "user-cold": USER_COLD}


class CatalogueRanks(BaseModel):
    """What a full-catalogue run leaves: the ranks of the targets.

    Attributes:
        size: Items of the catalogue; a user's own are not ranked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    ranks: dict[str, int]


def cases_path(root: Path, dataset: str, protocol: str, draw: int, users: int | None) -> Path:
    """Where the cases of one draw lie; runs on fewer users have a file of their own, the first of the whole."""
    name = "cases.jsonl" if users is None else f"cases-{users}.jsonl"
    return root / folder_of(dataset) / folder_of(protocol) / f"draw{draw}" / name


def is_done(directory: Path) -> bool:
    """Whether the run in a folder is complete: every case has a scored row, or every target its rank."""
    if (RunDirectory(directory).ranks).exists():
        return True
    try:
        facts = json.loads(RunDirectory(directory).metrics.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return facts.get("unresolved") == 0


def read_record(
    spec: StudySpec,
    root: Path,
    trained: Sequence[str],
    data: Mapping[str, Dataset],
    commands: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> StudyRecord:
    """Everything a study has so far.

    Args:
        root: The study's directory.
        trained: Rankers that have training seeds.
        data: Datasets by name.

    Raises:
        InputError: if nothing has been run, or a run's journal is damaged.
    """
    cells = list(spec.cells(trained))
    runs, missing = [], {}
    for cell in cells:
        try:
            runs.append(_run(root, cell, commands))
        except InputError as error:
            missing[str(cell.path)] = str(error)
    if not runs:
        raise InputError(f"{root}: nothing has been run yet; start with `mllm3rec study run`")
    places = {(cell.dataset.name, cell.protocol.name): (cell.dataset, cell.protocol) for cell in cells}
    used = {(run.dataset, run.protocol) for run in runs}
    protocols = [
        _protocol(root, dataset, protocol, data[name])
        for (name, _), (dataset, protocol) in places.items()
        if (dataset.name, protocol.name) in used
    ]
    hashes = {f"data {name}": dataset.sha256 for name, dataset in data.items()} | {
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
        commands=commands,
        hashes=hashes,
        versions=versions or {},
        missing=missing,
    )


def _run(root: Path, cell: StudyCell, commands: Sequence[str]) -> RunRecord:
    directory = root / cell.path
    manifest, rows = read_journal(directory)
    limited = cell.ranker.users
    cases = load_cases(cases_path(root, cell.dataset.name, cell.protocol.name, cell.draw, limited))
    # A ranker made of others has their runs, and ledgers, in folders below its own.
    calls = [call for path in sorted(directory.rglob(LEDGER)) for call in read_calls(path)]
    # What was asked of dev users to learn weights is no part of what ranking a user costs.
    ranking = [call for path in sorted(directory.rglob(LEDGER)) if "dev" not in path.parts for call in read_calls(path)]
    facts = {
        "dataset": cell.dataset.name,
        "protocol": cell.protocol.name,
        "draw": cell.draw,
        "ranker": cell.ranker.label,
        "seed": cell.seed,
        "manifest": manifest,
        "usage": by_role(calls),
        "stand_alone": by_role(call.model_copy(update={"hit": False}) for call in once_each(ranking)),
        # With the slash a name is not the beginning of another one.
        "command": f"{commands[0]} --only {cell.path}/" if commands else "",
        "tuned": _tuned(root, cell),
    }
    if cell.protocol.catalogue:
        path = RunDirectory(directory).ranks
        if not path.exists():
            raise InputError(f"{directory}: not finished")
        found = CatalogueRanks.model_validate_json(path.read_bytes())
        return RunRecord(**facts, rows={}, ranks=found.ranks, list_size=found.size)  # type: ignore[arg-type]
    if not rows:
        raise InputError(f"{directory}: no row yet")
    ranks = ranks_of(cases.cases, rows)
    return RunRecord(
        **facts,  # type: ignore[arg-type]
        rows=_kept(rows, cases),
        ranks=ranks,
        list_size=len(cases.cases[0].candidates),
        unresolved=len(cases.cases) - len(ranks),
    )


def _kept(rows: Mapping[str, Ranking], cases: Cases) -> dict[str, Ranking]:
    if any("mar" in row.scores for row in rows.values()):
        return dict(rows)
    first: Iterable[str] = (case.user_id for case in cases.cases[:ROWS_KEPT])
    return {user: rows[user] for user in first if user in rows}


def _tuned(root: Path, cell: StudyCell) -> list[Mapping[str, object]]:
    path = tuned_path(root, cell)
    return json.loads(path.read_text("utf-8"))["tried"] if path.exists() else []


def tuned_path(root: Path, cell: StudyCell) -> Path:
    """Where the settings tried on dev users are recorded."""
    return root / folder_of(cell.dataset.name) / folder_of(cell.protocol.name) / "tuned" / f"{cell.ranker.ranker}.json"


def _protocol(root: Path, dataset: DatasetSpec, protocol: ProtocolSpec, data: Dataset) -> ProtocolRecord:
    draws = {}
    for draw in range(protocol.draws):
        found = [path for path in (cases_path(root, dataset.name, protocol.name, draw, None),) if path.exists()]
        found += sorted(cases_path(root, dataset.name, protocol.name, draw, None).parent.glob("cases-*.jsonl"))
        if found:
            draws[draw] = max((load_cases(path) for path in found), key=lambda file: len(file.cases))
    first = next(iter(draws.values()))
    shown = {item for file in draws.values() for case in file.cases for item in case.candidates}
    shown |= {event.item_id for file in draws.values() for case in file.cases for event in case.history}
    choices = first.protocol.choices()
    if protocol.catalogue:
        choices["negatives"] = "none: the whole catalogue is ranked, without what the user already has"
    return ProtocolRecord(
        dataset=dataset.name,
        name=protocol.name,
        choices=choices,
        cases=draws,
        popularity=Popularity.fit(split_dataset(data, first.protocol).training).counts,
        catalogue={item: data.items[item] for item in shown if item in data.items},
        # Rows of a dataset do not belong beside another one that was taken instead.
        published=() if protocol.catalogue or data.name == "demo" else _published(dataset, protocol),
    )


def _published(dataset: DatasetSpec, protocol: ProtocolSpec) -> Sequence[PublishedRow]:
    return [row for row in _PUBLISHED[protocol.setting] if row.row.dataset == dataset.published]
