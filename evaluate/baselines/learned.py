"""`learned`, version 2: gradient-boosted trees over features of candidates, learned from lists like those to rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.item_features import brands, category_prefixes, leaf_categories, title_words
from evaluate.baselines.sources.factor_scores import FactorScores
from evaluate.baselines.sources.graph import Graph
from evaluate.baselines.sources.leanings import LeaningsFeature
from evaluate.baselines.sources.lists import ItemIndex, Lists, Source
from evaluate.baselines.sources.past import Past
from evaluate.baselines.sources.relative import Relative
from evaluate.baselines.sources.sequence_scores import SequenceScores
from evaluate.baselines.sources.shop import Shop
from evaluate.baselines.sources.texts import Content, Overlap
from evaluate.baselines.sources.transitions import Transitions
from evaluate.baselines.sources.user import User
from evaluate.baselines.systems.bpr import BPR
from evaluate.baselines.systems.ials import IALS
from evaluate.baselines.systems.sasrec import FIRST_SASREC, SASRec
from evaluate.baselines.training_lists import steps_back
from programs.motivation_encoder import MotivationEncoder
from programs.ranker import ranking_from_scores
from programs.runtime.errors import InputError, require_extra
from signatures.rows import Case, Ranking
from signatures.schema import MotivationSchema

Group = Literal["graph", "content", "words", "shop", "past", "bpr", "ials", "transitions", "sasrec", "leanings"]
"""A group of features; the modules of `sources` say what is in it. Constants of the user are always there."""

_PAYING: tuple[Group, ...] = ("graph", "content", "words", "shop", "past", "bpr")
"""The groups that gain something on dev users; docs/results.md has what the others gain."""

_CAME_LATER = ("objective", "ials", "sasrec")

_BATCH = 64
"""Lists whose features are computed at a time: the arrays of a random walk over them fit the cache of a core."""

FeatureTable = NDArray[np.float32]


class Learned(Baseline):
    """Gradient-boosted trees that rank the target of a list above its negatives.

    They learn from lists made of the training data (`training_lists.py`), never from targets of dev or test users.

    Attributes:
        version: Rows of two versions must not be mixed; settings without it are those of version 1 (`LearnedV1`).
        objective: What LightGBM's trees minimize: `lambdarank` compares the candidates of a list (LambdaMART), `binary`
            classifies each of them as target or negative.
        trees: Number of trees.
        leaves: Most leaves per tree.
        least: Fewest candidates per leaf.
        rate: Learning rate.
        features: Share of the features that each tree may use.
        negatives: Sampled items per training list.
        groups: Groups of features; `sasrec` needs the extra `neural`.
        bpr, ials, sasrec: Settings of the rankers whose scores the groups of those names are.
    """

    name: ClassVar[str] = "learned"
    reads: ClassVar[frozenset[str]] = frozenset({"schema"})

    version: Literal[2] = 2
    objective: Literal["lambdarank", "binary"] = "lambdarank"
    trees: int = Field(default=300, ge=1)
    leaves: int = Field(default=31, ge=2)
    least: int = Field(default=50, ge=1)
    rate: float = Field(default=0.05, gt=0)
    features: float = Field(default=0.5, gt=0, le=1)
    negatives: int = Field(default=29, ge=1)
    groups: tuple[Group, ...] = _PAYING
    bpr: BPR = Field(default_factory=BPR)
    ials: IALS = Field(default_factory=IALS)
    sasrec: SASRec = FIRST_SASREC

    @model_serializer(mode="wrap")
    def _recorded(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that came later are recorded only where they are not the default: older runs did not record them."""
        default = {name: type(self).model_fields[name].get_default(call_default_factory=True) for name in _CAME_LATER}
        return {key: value for key, value in fields(self).items() if getattr(self, key) != default.get(key, ...)}

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(trees=600), cls(leaves=15), cls(rate=0.1), cls(objective="binary"))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> LearnedRanker:
        """Train; see `Baseline.fit`.

        Raises:
            InputError: if no history has two different items, or no list has a negative.
        """
        return self.fit_asked(training, seed, (), (), fitting=fitting)

    def part_versions(self) -> tuple[int, ...]:
        """See `Baseline.part_versions`: those of the rankers whose scores are features."""
        parts: dict[Group, Baseline] = {"bpr": self.bpr, "ials": self.ials, "sasrec": self.sasrec}
        return tuple(part.fit_version for group, part in parts.items() if group in self.groups)

    def environment(self) -> dict[str, str]:
        """See `Baseline.environment`."""
        return self.sasrec.environment() if "sasrec" in self.groups else {}

    def configuration(self, seed: int, schema: MotivationSchema) -> dict[str, Any]:
        """See `Baseline.configuration`."""
        read = {"leanings_schema": schema.model_dump(mode="json")} if "leanings" in self.groups else {}
        return super().configuration(seed, schema) | read

    def fit_asked(
        self,
        training: TrainingData,
        seed: int,
        asked: Sequence[Source],
        cases: Sequence[Case],
        name: str = name,
        fitting: Fitting = UNKEPT,
    ) -> LearnedRanker:
        """Train with further features that are known for some lists only, such as what a language model said.

        Args:
            asked: Sources of these features.
            cases: Lists with targets, from which is learned, too: those of dev users that a model was asked about.
            name: Of the ranker.
            fitting: Where fits of networks among the sources are kept.

        Raises:
            InputError: as `fit`.
        """
        require_extra("lightgbm", "baselines", f"the ranker '{name}'")
        index = ItemIndex.of([*training.items, *(item for own in training.histories.values() for item in own)])
        tables, targets, lengths = [], [], []
        for step in steps_back(training, self.negatives, seed):
            fitted = self.sources(replace(training, interactions=step.training), index, seed, fitting)
            for lists in _batches(step.cases, index):
                tables.append(joined_table([*fitted, *asked], lists))
            targets += [item == case.target for case in step.cases for item in case.candidates]
            lengths += [len(case.candidates) for case in step.cases]
        sources = [*self.sources(training, index, seed, fitting), *asked]
        for lists in _batches(cases, index):
            tables.append(joined_table(sources, lists))
        targets += [item == case.target for case in cases for item in case.candidates]
        lengths += [len(case.candidates) for case in cases]
        if not targets or all(targets):
            raise InputError("'learned' needs lists with negatives; the catalogue may be too small")
        features = [feature for source in sources for feature in source.names]
        trees = self._trees(np.concatenate(tables), targets, lengths, features, seed)
        return LearnedRanker(name, sources, index, trees)

    def _trees(
        self, table: FeatureTable, targets: Sequence[bool], lengths: Sequence[int], names: Sequence[str], seed: int
    ) -> Any:
        import lightgbm

        settings = {
            "objective": self.objective,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.least,
            "learning_rate": self.rate,
            "feature_fraction": self.features,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(table, np.array(targets, dtype=int), group=lengths, feature_name=list(names))
        return lightgbm.train(settings, data, num_boost_round=self.trees)

    def sources(self, training: TrainingData, index: ItemIndex, seed: int, fitting: Fitting = UNKEPT) -> list[Source]:
        """The feature sources, fitted on the training data."""
        items = training.items
        makers: dict[Group, Callable[[], list[Source]]] = {
            "graph": lambda: [Graph(training.histories, training.content, index)],
            "content": lambda: [Content(training.content, index)],
            "words": lambda: [
                Overlap({name: category_prefixes(item) for name, item in items.items()}, "category", index),
                Overlap({name: title_words(item) for name, item in items.items()}, "words", index),
            ],
            "shop": lambda: [Shop(items, index)],
            "past": lambda: [Past(training.interactions, index)],
            "leanings": lambda: [LeaningsFeature(_required(training.motivations), index)],
            "bpr": lambda: [FactorScores(self.bpr.fit(training, seed), index)],
            "ials": lambda: [FactorScores(self.ials.fit(training, seed), index)],
            "transitions": lambda: [
                Transitions(training.histories, leaf_categories(items), "category", index),
                Transitions(training.histories, brands(items), "brand", index),
            ],
            "sasrec": lambda: [SequenceScores(self.sasrec.fit(training, seed, fitting), index)],
        }
        return [*(Relative(source) for group in self.groups for source in makers[group]()), User()]


def _required(motivations: MotivationEncoder | None) -> MotivationEncoder:
    if motivations is None:
        raise InputError("the group 'leanings' of 'learned' needs training data with a sentence encoder")
    return motivations


def joined_table(sources: Sequence[Source], lists: Lists) -> FeatureTable:
    """The features of all sources side by side, shape (n, sum of k)."""
    return np.hstack([source.features(lists).astype(np.float32) for source in sources])


def _batches(cases: Sequence[Case], index: ItemIndex) -> Iterator[Lists]:
    for start in range(0, len(cases), _BATCH):
        yield Lists.of([case.blinded() for case in cases[start : start + _BATCH]], index)


class LearnedRanker:
    """Ranks by trees over features; users and items need not be in the training data.

    Args:
        name: Of the ranker and its score vector.
        sources: The sources that the trees were trained on, in the same order, fitted on the whole training data.
        trees: A LightGBM booster.
    """

    def __init__(self, name: str, sources: Sequence[Source], index: ItemIndex, trees: Any) -> None:
        self.name = name
        self.sources = tuple(sources)
        self.index = index
        self.trees = trees

    @property
    def importance(self) -> dict[str, float]:
        """Share of every feature in the gain of all splits, the largest first."""
        gain = self.trees.feature_importance("gain")
        shares = zip(self.trees.feature_name(), (gain / max(gain.sum(), 1e-12)).tolist(), strict=True)
        return dict(sorted(shares, key=lambda pair: -pair[1]))

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        return self.rank_many([case])[0]

    def rank_many(self, cases: Sequence[Case]) -> list[Ranking]:
        """Rank several cases at once; see `BatchRanker`."""
        rankings = []
        for lists in _batches(cases, self.index):
            table = joined_table(self.sources, lists)
            scores = self.trees.predict(table, num_threads=1) if len(table) else np.zeros(0)
            ends = np.cumsum([len(case.candidates) for case in lists.cases])
            for case, own in zip(lists.cases, np.split(scores, ends[:-1]), strict=True):
                rankings.append(ranking_from_scores(case, {self.name: own.tolist()}, by=self.name))
        return rankings
