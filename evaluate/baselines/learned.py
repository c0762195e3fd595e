"""A learned ranker: gradient-boosted trees over the prior's signals and what else is known of a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.bpr import BPR
from evaluate.baselines.features import (
    FeatureSource,
    HistoryLength,
    Overlap,
    RankerScores,
    Relative,
    Shop,
    Signals,
    feature_table,
)
from evaluate.baselines.item_features import category_prefixes, title_words
from evaluate.baselines.training_cases import shortened, training_cases
from programs.ranker import ranking_from_scores
from programs.runtime.errors import InputError, require_extra
from signatures.rows import Case, Ranking


class Learned(Baseline):
    """Trees that tell the held-out item from sampled ones, by logistic loss over all candidates of all lists.

    They learn from the fit's histories alone, one step back (`training_cases.py`): targets of evaluated users, dev and
    test alike, are never seen. Trees are grown on all cores, with the same result on any number of them.

    Attributes:
        trees: How many.
        leaves: Per tree, at most.
        least: Candidates per leaf, at least.
        rate: Share of each tree that counts.
        negatives: Sampled items per training case.
        bpr: Adds the score of BPR with these settings to the features, fitted on what they are fitted on.
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

    def fit(self, material: TrainingData, seed: int) -> LearnedRanker:
        """Train; see `Baseline.fit`.

        Raises:
            InputError: if no history has two different items.
        """
        before = replace(material, histories=_shortened(material))
        cases = training_cases(material.histories, self.negatives, seed)
        trees = learn(cases, self.sources(before, seed), self, seed)
        return LearnedRanker(self.name, self.sources(material, seed), trees)

    def sources(self, material: TrainingData, seed: int) -> list[FeatureSource]:
        """What describes candidates, fitted on the material."""
        items = material.items
        sources: list[FeatureSource] = [
            Relative(Signals(material.histories, material.content)),
            Relative(Overlap({item_id: category_prefixes(item) for item_id, item in items.items()}, "category")),
            Relative(Overlap({item_id: title_words(item) for item_id, item in items.items()}, "words")),
            Relative(Shop(items)),
            HistoryLength(),
        ]
        if self.bpr is not None:
            sources.append(Relative(RankerScores(self.bpr.fit(material, seed), BPR.name)))
        return sources


def _shortened(material: TrainingData) -> dict[str, Sequence[str]]:
    histories = shortened(material.histories)
    if not histories:
        raise InputError("no history has two items: 'learned' holds out the last one of each to learn from")
    return histories


def learn(cases: Sequence[Case], sources: Sequence[FeatureSource], settings: Learned, seed: int) -> Any:
    """Grow the trees.

    Args:
        cases: With targets. No source may have seen a target beside its user's history.
        sources: What is known of candidates.

    Returns:
        A fitted scikit-learn classifier; its decision function scores rows of `feature_table(sources, case)`.

    Raises:
        InputError: if there are no cases, one has no target, or none has any other candidate.
        MissingExtraError: if scikit-learn is not installed.
    """
    require_extra("sklearn", "baselines", f"the ranker '{settings.name}'")
    from sklearn.ensemble import HistGradientBoostingClassifier

    if not cases or any(case.target is None for case in cases):
        raise InputError("a learner needs cases with targets, at least one")
    table = np.concatenate([feature_table(sources, case.blinded()).astype(np.float32) for case in cases])
    table[:, np.isnan(table).all(axis=0)] = 0.0  # scikit-learn cannot bin a feature nobody knows; none will use it
    chosen = np.array([item == case.target for case in cases for item in case.candidates])
    if chosen.all():
        raise InputError("a learner needs lists with more than the target; the catalogue may be too small")
    trees = HistGradientBoostingClassifier(
        max_iter=settings.trees,
        max_leaf_nodes=settings.leaves,
        min_samples_leaf=settings.least,
        learning_rate=settings.rate,
        early_stopping=False,
        random_state=seed,
    )
    return trees.fit(table, chosen)


class LearnedRanker:
    """Ranks by trees over features; users and items need not be in any fit.

    Args:
        name: Of the ranker and its component.
        sources: The sources the trees were grown on, in the same order, fitted on what may be seen now.
        trees: What `learn` returned.
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
