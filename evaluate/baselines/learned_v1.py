"""Version 1 of `learned`, to finish and to reproduce runs that were begun with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.features_v1 import (
    FeatureSource,
    HistoryLength,
    OverlapV1,
    PriceAndBrand,
    RankerScores,
    RelativeV1,
    Signals,
    feature_table,
)
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.item_features import category_prefixes, title_words
from evaluate.baselines.systems.bpr import BPR
from evaluate.baselines.training_lists import NO_LAST_ITEM, last_item_lists
from programs.ranker import ranking_from_scores
from programs.runtime.errors import InputError, require_extra
from signatures.rows import Case, Ranking


class LearnedV1(Baseline):
    """Gradient-boosted trees that classify candidates as target or negative, with logistic loss.

    They learn from cases made of the training data (`last_item_lists`), never from targets of dev or test users. All
    cores are used; the result does not depend on their number.

    Attributes:
        trees: Number of trees.
        leaves: Most leaves per tree.
        least: Fewest candidates per leaf.
        rate: Learning rate.
        negatives: Sampled items per training case.
        bpr: Settings of BPR, whose score is a further feature; None for no such feature.
    """

    name: ClassVar[str] = "learned"

    trees: int = Field(default=200, ge=1)
    leaves: int = Field(default=31, ge=2)
    least: int = Field(default=50, ge=1)
    rate: float = Field(default=0.05, gt=0)
    negatives: int = Field(default=29, ge=1)
    bpr: BPR | None = Field(default_factory=BPR)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(trees=400), cls(leaves=15), cls(trees=400, leaves=15), cls(bpr=None))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> LearnedV1Ranker:
        """Train; see `Baseline.fit`.

        Raises:
            InputError: if no history has two different items.
        """
        lists = last_item_lists(training.interactions, self.negatives, seed)
        if not lists.training:
            raise InputError(NO_LAST_ITEM)
        before = replace(training, interactions=lists.training)
        trees = learn(lists.cases, self.sources(before, seed), self, seed)
        return LearnedV1Ranker(self.name, self.sources(training, seed), trees)

    def sources(self, training: TrainingData, seed: int) -> list[FeatureSource]:
        """The feature sources, fitted on the training data."""
        items = training.items
        sources: list[FeatureSource] = [
            RelativeV1(Signals(training.histories, training.content)),
            RelativeV1(OverlapV1({item_id: category_prefixes(item) for item_id, item in items.items()}, "category")),
            RelativeV1(OverlapV1({item_id: title_words(item) for item_id, item in items.items()}, "words")),
            RelativeV1(PriceAndBrand(items)),
            HistoryLength(),
        ]
        if self.bpr is not None:
            sources.append(RelativeV1(RankerScores(self.bpr.fit(training, seed), BPR.name)))
        return sources


def learn(cases: Sequence[Case], sources: Sequence[FeatureSource], settings: LearnedV1, seed: int) -> Any:
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
    require_extra("sklearn", "baselines", f"the ranker '{settings.name}'")
    from sklearn.ensemble import HistGradientBoostingClassifier

    if not cases or any(case.target is None for case in cases):
        raise InputError("'learned' needs at least one case, all of them with targets")
    table = np.concatenate([feature_table(sources, case.blinded()).astype(np.float32) for case in cases])
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


class LearnedV1Ranker:
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
        table = feature_table(self.sources, case).astype(np.float32)
        scores = self.trees.decision_function(table) if len(table) else np.zeros(0)
        return ranking_from_scores(case, {self.name: scores.tolist()}, by=self.name)
