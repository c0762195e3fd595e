"""Data model of a finished study, the input of its report: all runs with their cases, rows and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from evaluate.baselines.fit_cost import FitCost
from evaluate.data.dataset import Dataset
from evaluate.paper.published import PublishedRow
from evaluate.protocol.case_warnings import find_given_away, find_known_titles
from evaluate.protocol.cases import Cases
from evaluate.runs.further_metrics import FurtherMetrics
from evaluate.runs.journal import RunManifest
from evaluate.runs.run_metrics import count_unparsable, is_readable
from evaluate.stats.metrics import CUTOFFS
from programs.prior.scorers import Popularity, Training, histories_of
from signatures.rows import Ranking, Usage
from signatures.types import Item

FURTHER_AT = CUTOFFS[0]
"""Cutoff of the further metrics in reports."""


def further_cutoffs(list_size: int) -> tuple[int, ...]:
    """Cutoffs of the further metrics for lists of this length; none for shorter ones than the cutoff.

    >>> further_cutoffs(30), further_cutoffs(4)
    ((5,), ())
    """
    return (FURTHER_AT,) if list_size >= FURTHER_AT else ()


@dataclass(frozen=True)
class ProtocolRecord:
    """One protocol on one dataset, over one or more draws of negatives.

    Attributes:
        dataset: Short name of the dataset.
        name: Name of the protocol in the study file.
        choices: The choice made for each open question of the paper, by question.
        cases: The frozen cases by draw; all draws have the same users, histories and targets.
        popularity: Number of users of each item in the training data; items without users may be missing.
        catalogue: Items by id, at least those of histories and candidates.
        published: Published results of the paper for this setting and dataset.
    """

    dataset: str
    name: str
    choices: Mapping[str, str]
    cases: Mapping[int, Cases]
    popularity: Mapping[str, int]
    catalogue: Mapping[str, Item]
    published: Sequence[PublishedRow] = ()

    @classmethod
    def of(cls, name: str, cases: Mapping[int, Cases], data: Dataset, training: Training) -> Self:
        """A protocol under a name.

        Args:
            cases: By draw; at least one.
            training: The training data of the protocol.
        """
        shown = {item for drawn in cases.values() for case in drawn for item in (*case.candidates, *case.item_ids)}
        return cls(
            dataset=data.name,
            name=name,
            choices=next(iter(cases.values())).protocol.choices(),
            cases=cases,
            popularity=Popularity.fit(histories_of(training)).counts,
            catalogue={item: data.items[item] for item in shown if item in data.items},
        )

    @property
    def given_away(self) -> list[str]:
        """A warning, if the lists give the target away."""
        first = next(iter(self.cases.values()))
        return [f"{self.dataset}, {self.name}: {one.message}." for one in find_given_away(first.cases, self.popularity)]

    @property
    def known_titles(self) -> list[str]:
        """A warning, if there are targets with the title of an item in the history."""
        first = next(iter(self.cases.values()))
        found = find_known_titles(first.cases, self.catalogue)
        return [f"{self.dataset}, {self.name}: {one.message}." for one in found]


@dataclass(frozen=True)
class RunRecord:
    """One run: a ranker on the cases of one draw of a protocol.

    Attributes:
        dataset, protocol, draw: The cases that it ranked.
        ranker: Label of the ranker in the study.
        seed: Training or sampling seed, or None.
        rows: Journal rows by user; empty if only the rank of the target was kept (full-catalogue ranking).
        ranks: 1-based rank of the target by user; resolved users only.
        list_size: Length of the ranked lists; for full-catalogue ranking the size of the catalogue.
        unresolved: Number of cases without a scored row.
        usage: Billed usage by role.
        stand_alone: Usage without cache hits, by role.
        command: The command that repeats only this run.
        tuned: Settings that were tried on dev users; may be empty.
        further: Metrics of the lists beside their hits, in their first `FURTHER_AT` items; empty where a list is the
            whole catalogue, or shorter.
        importance: Share of every feature in what the trees of a learned ranker gain; empty for other rankers.
        fit_cost: Of a trained baseline, if it is known.
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
    importance: Mapping[str, float] = field(default_factory=dict)
    fit_cost: FitCost | None = None
    further: FurtherMetrics = field(default_factory=FurtherMetrics)

    @property
    def unparsable_users(self) -> int:
        """Number of users without a parsable answer; ranked by the prior."""
        return count_unparsable(self.rows.values())

    @property
    def asked(self) -> int:
        """Number of users about whom the models were asked; all of a ranker without models."""
        return len(self.ranks) - sum(row.scored and not row.asked for row in self.rows.values())

    @property
    def readable(self) -> bool:
        """Whether enough users have a readable answer for the figures to be about the ranker."""
        return is_readable(self.unparsable_users, self.asked)


@dataclass(frozen=True)
class StudyRecord:
    """A whole study.

    Attributes:
        reference: Label of the ranker that all others are compared with.
        pairs: Further pairs of labels (a, b) to test, a minus b.
        together: Groups of protocols whose users are also compared together.
        commands: Commands that repeat the study.
        hashes: Hashes of data and cases, by a readable name.
        versions: Package versions.
        missing: Names of missing runs of the study, with the reason.
        warnings: Warnings that are shown above every tab.
        data_warnings: What makes targets easy to find in the data (`find_data_warnings`), shown in the overview.
    """

    name: str
    title: str
    reference: str
    protocols: Sequence[ProtocolRecord]
    runs: Sequence[RunRecord]
    pairs: Sequence[tuple[str, str]] = ()
    together: Sequence[Sequence[str]] = ()
    commands: Sequence[str] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    data_warnings: Sequence[str] = ()
