"""`learned`: a pointwise ranker of gradient-boosted trees over features of candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.bpr import BPR
from evaluate.baselines.features import (
    FeatureSource,
    HistoryLength,
    Overlap,
    PriceAndBrand,
    PriorParts,
    RankerScores,
    Relative,
    Signals,
    feature_tables,
)
from evaluate.baselines.history_features import PurchaseTimes
from evaluate.baselines.item_features import category_prefixes, title_words
from evaluate.baselines.sales_features import PastSalesFeatures
from evaluate.baselines.training_cases import training_steps
from evaluate.baselines.transition_features import Transitions, brand, leaf_category
from programs.prior.prior import Prior
from programs.ranker import ranking_from_scores
from programs.runtime.errors import InputError, require_extra
from signatures.rows import Case, Ranking

Group = Literal["signals", "overlap", "graph", "sales", "transitions", "times"]
"""A group of features: the older prior's signals; category, words, price and brand; the prior's walk and content
neighbours; past sales; transitions of departments and brands; times between purchases."""

GROUPS: tuple[Group, ...] = get_args(Group)
VERSION_1: tuple[Group, ...] = ("signals", "overlap")
"""The groups of runs from before there was a choice."""

_BATCH = 256
"""Cases whose features are computed at once."""


class Learned(Baseline):
    """Gradient-boosted trees that classify candidates as target or negative, with logistic loss.

    They learn from cases made of the training data (`training_cases.py`), never from targets of dev or test users. All
    cores are used; the result does not depend on their number.

    Attributes:
        trees: Number of trees.
        leaves: Most leaves per tree.
        least: Fewest candidates per leaf.
        rate: Learning rate.
        negatives: Sampled items per training case.
        bpr: Settings of BPR, whose score is a further feature; None for no such feature.
        groups: Groups of features, of `GROUPS`.
        lists: What it learns from: lists of the shape of the evaluation's (`protocol`), or the last item of every
            history (`last`), as version 1 did.
    """

    name: ClassVar[str] = "learned"

    trees: int = Field(default=200, ge=1)
    leaves: int = Field(default=31, ge=2)
    least: int = Field(default=50, ge=1)
    rate: float = Field(default=0.05, gt=0)
    negatives: int = Field(default=29, ge=1)
    bpr: BPR | None = Field(default_factory=BPR)
    groups: tuple[Group, ...] = Field(default=GROUPS, exclude_if=lambda groups: groups == VERSION_1)
    lists: Literal["protocol", "last"] = Field(default="protocol", exclude_if=lambda lists: lists == "last")

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(trees=400), cls(leaves=15), cls(trees=400, leaves=15), cls(bpr=None))

    @classmethod
    def recorded(cls, settings: Mapping[str, Any]) -> Self:
        """See `Baseline.recorded`; settings without groups and lists are of version 1."""
        return cls.model_validate({"groups": VERSION_1, "lists": "last"} | dict(settings))

    @classmethod
    def like(cls, settings: Mapping[str, Any]) -> Self:
        """See `Baseline.like`."""
        return cls() if {"groups", "lists"} & settings.keys() else cls(groups=VERSION_1, lists="last")

    def fit(self, training: TrainingData, seed: int) -> LearnedRanker:
        """Train; see `Baseline.fit`.

        Raises:
            InputError: if no history has two different items.
        """
        protocol = training.protocol if self.lists == "protocol" else None
        steps = training_steps(training.interactions, protocol, self.negatives, seed)
        if not any(step.cases for step in steps):
            raise InputError("no history has two items, but 'learned' needs the last item of each as a training target")
        tables, cases = [], []
        for step in steps:
            sources = self.sources(replace(training, interactions=step.before), seed)
            tables += _tables(sources, step.cases)
            cases += step.cases
        trees = learn_from(tables, cases, self, seed)
        return LearnedRanker(self.name, self.sources(training, seed), trees)

    def sources(self, training: TrainingData, seed: int) -> list[FeatureSource]:
        """The feature sources, fitted on the training data."""
        made = {group: _SOURCES[group](training) for group in self.groups}
        sources = [source for group in made.values() for source in group]
        if self.bpr is not None:
            sources.append(Relative(RankerScores(self.bpr.fit(training, seed), BPR.name)))
        return sources


def _signals(training: TrainingData) -> list[FeatureSource]:
    return [Relative(Signals(training.histories, training.content))]


def _overlap(training: TrainingData) -> list[FeatureSource]:
    items = training.items
    return [
        Relative(Overlap({item_id: category_prefixes(item) for item_id, item in items.items()}, "category")),
        Relative(Overlap({item_id: title_words(item) for item_id, item in items.items()}, "words")),
        Relative(PriceAndBrand(items)),
        HistoryLength(),
    ]


def _graph(training: TrainingData) -> list[FeatureSource]:
    return [Relative(PriorParts(Prior.fit(training.histories, training.content)))]


def _sales(training: TrainingData) -> list[FeatureSource]:
    return [Relative(PastSalesFeatures(training.interactions))]


def _transitions(training: TrainingData) -> list[FeatureSource]:
    histories, items = training.histories, training.items
    return [
        Relative(Transitions(histories, items, leaf_category, "category")),
        Relative(Transitions(histories, items, brand, "brand")),
    ]


def _times(training: TrainingData) -> list[FeatureSource]:
    return [PurchaseTimes()]


_SOURCES: dict[Group, Callable[[TrainingData], list[FeatureSource]]] = {
    "signals": _signals,
    "overlap": _overlap,
    "graph": _graph,
    "sales": _sales,
    "transitions": _transitions,
    "times": _times,
}


def learn(cases: Sequence[Case], sources: Sequence[FeatureSource], settings: Learned, seed: int) -> Any:
    """Train the trees.

    Args:
        cases: Cases with targets; no source may be fitted on a target together with its user's history.
        sources: Features of candidates.

    Returns:
        A fitted scikit-learn classifier; its decision function scores rows of `feature_table(sources, case)`.

    Raises:
        InputError: if there are no cases, a case has no target, or no case has a negative.
        MissingExtraError: if scikit-learn is not installed.
    """
    if not cases or any(case.target is None for case in cases):
        raise InputError("'learned' needs at least one case, all of them with targets")
    return learn_from(_tables(sources, cases), cases, settings, seed)


def _tables(sources: Sequence[FeatureSource], cases: Sequence[Case]) -> list[NDArray[np.float32]]:
    tables: list[NDArray[np.float32]] = []
    for start in range(0, len(cases), _BATCH):
        some = [case.blinded() for case in cases[start : start + _BATCH]]
        tables += [table.astype(np.float32) for table in feature_tables(sources, some)]
    return tables


def learn_from(tables: Sequence[NDArray[np.float32]], cases: Sequence[Case], settings: Learned, seed: int) -> Any:
    """Train the trees on features that are there already; see `learn`."""
    require_extra("sklearn", "baselines", f"the ranker '{settings.name}'")
    from sklearn.ensemble import HistGradientBoostingClassifier

    table = np.concatenate(tables)
    table[:, np.isnan(table).all(axis=0)] = 0.0  # scikit-learn cannot bin a feature without values
    is_target = np.array([item == case.target for case in cases for item in case.candidates])
    if is_target.all():
        raise InputError("'learned' needs lists with negatives; the catalogue may be too small")
    trees = HistGradientBoostingClassifier(
        max_iter=settings.trees,
        max_leaf_nodes=settings.leaves,
        min_samples_leaf=settings.least,
        learning_rate=settings.rate,
        early_stopping=False,
        random_state=seed,
    )
    return trees.fit(table, is_target)


class LearnedRanker:
    """Ranks by trees over features; users and items need not be in the training data.

    Args:
        name: Of the ranker and its score vector.
        sources: The sources that the trees were trained on, in the same order, fitted on the whole training data.
        trees: The result of `learn`.
    """

    def __init__(self, name: str, sources: Sequence[FeatureSource], trees: Any) -> None:
        self.name = name
        self.sources = tuple(sources)
        self.trees = trees

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        return self.rank_many([case])[0]

    def rank_many(self, cases: Sequence[Case]) -> list[Ranking]:
        """Rank several cases at once; see `BatchRanker`."""
        tables = _tables(self.sources, cases)
        scores = self.trees.decision_function(np.concatenate(tables)) if any(map(len, tables)) else np.zeros(0)
        split = np.split(scores, np.cumsum([len(table) for table in tables])[:-1])
        return [
            ranking_from_scores(case, {self.name: own.tolist()}, by=self.name)
            for case, own in zip(cases, split, strict=True)
        ]
