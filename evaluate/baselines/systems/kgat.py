"""KGAT (Wang et al., KDD 2019): propagates vectors over users, items, categories, brands and price bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.factors import FactorRanker, Factors, FactorVectors
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.graph_settings import KGATSettings
from evaluate.baselines.networks.interactions import HistoryRows, Interactions, distinct_rows
from evaluate.baselines.networks.knowledge import KnowledgeGraph
from signatures.rows import Case

if TYPE_CHECKING:
    from evaluate.baselines.networks.kgat_network import KGATNetwork


class KGAT(KGATSettings):
    """KGAT without pre-training, its attention a setting.

    Memory: for each user, item and entity about 60 numbers of 4 bytes for each dimension of its own and of the layers.
    """

    name: ClassVar[str] = "kgat"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(attention=True), cls(rate=2e-3), cls(negatives=16), cls(dropout=0.3))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> KGATRanker:
        """Train; see `Baseline.fit`. A repeated purchase counts once."""
        self.require_torch()
        from evaluate.baselines.networks.graph import train_graph
        from evaluate.baselines.networks.kgat_network import KGATNetwork

        data = Interactions.of(training.histories)
        rows = dict(data.items)
        for item in training.items:
            rows.setdefault(item, len(rows))
        graph = KnowledgeGraph.of(training.items, rows)

        def make(histories: list[HistoryRows]) -> KGATNetwork:
            return KGATNetwork(histories, len(rows), graph, self)

        plan = self.plan(training, seed, fitting)
        network = train_graph(data.histories, len(data.items), make, self, plan)
        return KGATRanker(data.users, rows, network)


class KGATRanker(FactorRanker):
    """Ranks by the products of the propagated vectors.

    Items without users have the vectors that their categories, brand and price give them. A new user gets one pass of
    messages from the known items of their history; without any, the mean vector of all users.

    Args:
        users, rows: Row by user id, and by item id.
    """

    def __init__(self, users: dict[str, int], rows: dict[str, int], network: KGATNetwork) -> None:
        import torch

        with torch.no_grad():
            self._layers = network.layers()
            of_users, of_items = (vectors.cpu().numpy() for vectors in network.vectors())
        super().__init__(KGAT.name, Factors(users, of_users, rows, of_items, np.zeros(len(rows), dtype=np.float32)))
        self.network = network

    def folded_in(self, case: Case) -> FactorVectors:
        """See `FactorRanker.folded_in`."""
        history = distinct_rows(case.item_ids, self.factors.items)
        if not len(history):
            return np.asarray(self.factors.user_vectors.mean(axis=0), dtype=np.float32)
        return self.network.folded_in(history, self._layers)
