"""LLMRec (Wei et al., WSDM 2024): a graph of users and items, augmented by texts of items, of users, and by picks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.graph_ranker import GraphRanker
from evaluate.baselines.networks.graph_settings import LLMRecSettings
from evaluate.baselines.networks.interactions import HistoryRows, Interactions
from evaluate.baselines.networks.item_texts import item_texts, trait_texts

if TYPE_CHECKING:
    from evaluate.baselines.networks.llmrec_network import LLMRecNetwork


class LLMRec(LLMRecSettings):
    """LLMRec with MOTE's traits as what a model wrote about items, where a trait store has them; asks no model.

    The picks are by texts, not by a model; see docs/systems.md. Items without users are scored by their texts alone.

    Memory: for each user and item about 60 numbers of 4 bytes for each dimension, the text vectors of items and users,
    and the cosines of items with common users.
    """

    name: ClassVar[str] = "llmrec"
    reads: ClassVar[frozenset[str]] = frozenset({"preset", "model", "mote"})

    @property
    def reads_traits(self) -> bool:
        """See `Baseline.reads_traits`."""
        return True

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(picked=0.0), cls(pruned=0.0), cls(rate=2e-3), cls(item_rate=2.0, user_rate=2.0))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> GraphRanker:
        """Train; see `Baseline.fit`. A repeated purchase counts once.

        Raises:
            InputError: if no item has a text.
        """
        self.require_torch()
        from evaluate.baselines.networks.graph import train_graph
        from evaluate.baselines.networks.llmrec_network import LLMRecNetwork

        plain = item_texts(training, "item", self.name, fitting.on_event)
        texts = trait_texts(training, plain, self.name, fitting.on_event)
        data = Interactions.of(training.histories)
        rows, vectors = texts.after(data.items)

        def make(histories: list[HistoryRows]) -> LLMRecNetwork:
            return LLMRecNetwork(histories, len(data.items), vectors, self)

        plan = self.plan(training, seed, fitting).suffixed(texts.sha256[:16])
        network = train_graph(data.histories, len(data.items), make, self, plan)
        return GraphRanker(self.name, data.users, rows, network)
