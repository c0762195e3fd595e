"""KGAT (Wang et al., KDD 2019): propagates vectors over users, items, categories, brands and price bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.graph_ranker import GraphRanker
from evaluate.baselines.networks.graph_settings import KGATSettings
from evaluate.baselines.networks.interactions import HistoryRows, Interactions
from evaluate.baselines.networks.knowledge import KnowledgeGraph

if TYPE_CHECKING:
    from evaluate.baselines.networks.kgat_network import KGATNetwork


class KGAT(KGATSettings):
    """KGAT without pre-training, its attention a setting.

    Items without users have the vectors that their categories, brand and price give them; for those without such facts,
    too, see `unknown_below`.

    Memory: for each user, item and entity about 60 numbers of 4 bytes for each dimension of its own and of the layers.
    """

    name: ClassVar[str] = "kgat"
    fit_version: ClassVar[int] = 2

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(attention=True), cls(rate=2e-3), cls(negatives=16), cls(dropout=0.3))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> GraphRanker:
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

        plan = self.plan(training, seed, fitting).suffixed(graph.sha256[:16])
        network = train_graph(data.histories, len(data.items), make, self, plan)
        # An item without an edge has nothing but the biases of the layers, which say nothing about it.
        joined = {*data.items.values(), *graph.triples[:, 0].tolist()}
        known = {item: row for item, row in rows.items() if row in joined}
        return GraphRanker(self.name, data.users, known, network)
