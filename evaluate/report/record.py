"""Data model of a finished study, the only input of its report: every run with its cases, rows and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluate.paper.published import PublishedRow
from evaluate.protocol.cases import Cases
from evaluate.runs.journal import RunManifest
from signatures.rows import Ranking, Usage
from signatures.types import Item


@dataclass(frozen=True)
class ProtocolRecord:
    """One protocol on one dataset, over one or more draws of negatives.

    Attributes:
        dataset: Short name of the dataset.
        name: Name of the protocol in the study file.
        choices: Every ambiguity of the paper and how it was settled, by what it is about; printed in reports.
        cases: The frozen cases by draw; all draws have the same users, histories and targets.
        popularity: How many users have an item in what rankers are fitted on; absent items have none.
        catalogue: Items by id, at least those of histories and candidates.
        published: The paper's rows for this setting and dataset, as context.
    """

    dataset: str
    name: str
    choices: Mapping[str, str]
    cases: Mapping[int, Cases]
    popularity: Mapping[str, int]
    catalogue: Mapping[str, Item]
    published: Sequence[PublishedRow] = ()


@dataclass(frozen=True)
class RunRecord:
    """One run: a ranker on the cases of one draw of a protocol.

    Attributes:
        dataset, protocol, draw: Which cases it ranked.
        ranker: Its label in the study.
        seed: Training or sampling seed, or None where the ranker has none.
        rows: Journal rows by user; empty where only the target's rank was kept (full-catalogue ranking).
        ranks: 1-based rank of the target by user, of the order the ranker gave; resolved users only.
        list_size: Length of the ranked lists; for full-catalogue ranking the size of the catalogue.
        unresolved: Cases without a scored row: bounds on the metric, never misses.
        usage: What was sent and paid for, by role.
        stand_alone: What the rankings would have cost without cache hits, by role.
        command: The command that makes this run alone.
        tuned: Settings tried on dev users, for reports; empty where nothing was tuned.
    """

    dataset: str
    protocol: str
    draw: int
    ranker: str
    seed: int | None
    manifest: RunManifest
    rows: Mapping[str, Ranking]
    ranks: Mapping[str, int]
    list_size: int
    unresolved: int = 0
    usage: Mapping[str, Usage] = field(default_factory=dict)
    stand_alone: Mapping[str, Usage] = field(default_factory=dict)
    command: str = ""
    tuned: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True)
class StudyRecord:
    """All of a study.

    Attributes:
        reference: Label of the ranker that all others are compared with, protocol by protocol.
        pairs: Further pairs of labels to test against each other (a, b): a - b.
        commands: How to make the whole study again.
        hashes: What identifies the inputs: data and cases, by a readable name.
        versions: Package versions.
        missing: Runs that the study file asks for and that are not there, with the reason.
        warnings: What a reader of any figure must know; shown over every tab.
    """

    name: str
    title: str
    reference: str
    protocols: Sequence[ProtocolRecord]
    runs: Sequence[RunRecord]
    pairs: Sequence[tuple[str, str]] = ()
    commands: Sequence[str] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
