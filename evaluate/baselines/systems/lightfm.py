"""LightFM (Kula, CBRecSys 2015): a factor model whose vectors are sums over features, trained with WARP loss."""

from __future__ import annotations

from collections.abc import Container
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from scipy import sparse

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.factors import FactorRanker, Factors, trait_name
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.item_features import columns_of, feature_matrix, feature_names, matrix_of_features_alone
from programs.runtime.errors import require_extra


class LightFM(Baseline):
    """LightFM without features: every user and every item has one vector of its own.

    Attributes:
        factors: Dimension of the vectors.
        epochs: Passes over the interactions.
        rate: Initial learning rate of Adagrad.
        penalty: L2 regularization of the vectors of users and items.
        loss: `warp` samples negatives until one is ranked too high, `bpr` takes the first.
    """

    name: ClassVar[str] = "lightfm"

    factors: int = Field(default=64, ge=1)
    epochs: int = Field(default=30, ge=1)
    rate: float = Field(default=0.05, gt=0)
    penalty: float = Field(default=0.0, ge=0)
    loss: Literal["warp", "bpr"] = "warp"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(epochs=10), cls(factors=128, epochs=60), cls(penalty=1e-5), cls(loss="bpr", epochs=60))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> FactorRanker:
        """Train; see `Baseline.fit`. A repeated purchase counts once."""
        require_extra("lightfm", "baselines", f"the ranker '{self.name}'")
        from lightfm import LightFM as Model

        users = {user: row for row, user in enumerate(training.histories)}
        bought = dict.fromkeys(item for history in training.histories.values() for item in history)
        items = {item: row for row, item in enumerate(bought)}
        user_names = self._user_features(training, list(users))
        others = self._others(training, items)
        names = self._item_features(training, [*items, *others])
        item_names, other_names = names[: len(items)], names[len(items) :]
        user_columns, item_columns = columns_of(user_names), columns_of(item_names)
        user_features = feature_matrix(user_names, user_columns)
        item_features = feature_matrix(item_names, item_columns)
        pairs = [(users[u], items[i]) for u, history in training.histories.items() for i in dict.fromkeys(history)]
        rows, cols = np.array(pairs, dtype=np.int32).T.copy()  # LightFM needs contiguous rows
        interactions = sparse.coo_matrix(
            (np.ones(len(pairs), dtype=np.float32), (rows, cols)), (len(users), len(items))
        )
        model = Model(
            no_components=self.factors,
            loss=self.loss,
            learning_rate=self.rate,
            user_alpha=self.penalty,
            item_alpha=self.penalty,
            random_state=seed,
        )
        features = {"user_features": user_features, "item_features": item_features}
        model.fit(interactions, **features, epochs=self.epochs, num_threads=1)
        # Fitted as rows, items without users would be nothing but negatives.
        alone = matrix_of_features_alone(other_names, item_columns, item_features.shape[1])
        biases, item_vectors = model.get_item_representations(sparse.vstack([item_features, alone]).tocsr())
        scored = alone.getnnz(axis=1) > 0
        items |= {item: len(items) + place for place, item in enumerate(others) if scored[place]}
        _, user_vectors = model.get_user_representations(user_features)
        traits = {name: model.user_embeddings[column] for name, column in user_columns.items()}
        return FactorRanker(self.name, Factors(users, user_vectors, items, item_vectors, biases, traits))

    def _others(self, training: TrainingData, bought: Container[str]) -> list[str]:
        """Items without users that are scored, too, if they have a feature that others have."""
        return []

    def _item_features(self, training: TrainingData, items: list[str]) -> list[list[str]]:
        return [[] for _ in items]

    def _user_features(self, training: TrainingData, users: list[str]) -> list[list[str]]:
        return [[] for _ in users]


class LightFMFeatures(LightFM):
    """LightFM with features of items (`feature_names`) and users (metadata).

    An item of the catalogue that nobody has is scored by its features alone, if items with users have them.

    Attributes:
        least_items: Fewest items of a brand or title word that is used as a feature.
    """

    name: ClassVar[str] = "lightfm-features"

    least_items: int = Field(default=5, ge=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(epochs=15), cls(factors=128), cls(least_items=2), cls(penalty=1e-6))

    def _others(self, training: TrainingData, bought: Container[str]) -> list[str]:
        """See `LightFM._others`: those of the catalogue."""
        return [item for item in training.items if item not in bought]

    def _item_features(self, training: TrainingData, items: list[str]) -> list[list[str]]:
        names = feature_names(training.items, self.least_items)
        return [names.get(item, []) for item in items]

    def _user_features(self, training: TrainingData, users: list[str]) -> list[list[str]]:
        metadata = training.metadata
        return [[trait_name(key, value) for key, value in metadata.get(user, {}).items()] for user in users]
