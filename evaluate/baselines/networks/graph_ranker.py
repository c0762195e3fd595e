"""Ranker of the recommenders that propagate vectors over a graph: KGAT and LLMRec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evaluate.baselines.factors import FactorRanker, Factors, FactorVectors
from evaluate.baselines.networks.interactions import distinct_rows
from programs.runtime.one_thread import one_thread
from signatures.rows import Case

if TYPE_CHECKING:
    from evaluate.baselines.networks.graph import GraphNetwork


class GraphRanker(FactorRanker):
    """Ranks by the products of the propagated vectors of users and items.

    A new user gets one pass of messages from the known items of their history; without any, the mean vector of all
    users.

    Args:
        users, rows: Row by user id, and by id of an item that can be ranked.
        network: Trained.
    """

    @one_thread()
    def __init__(self, name: str, users: dict[str, int], rows: dict[str, int], network: GraphNetwork) -> None:
        import torch

        with torch.no_grad():
            self._layers = network.layers()
            of_users, of_items = (vectors.cpu().numpy() for vectors in network.vectors())
        super().__init__(name, Factors(users, of_users, rows, of_items, np.zeros(len(of_items), dtype=np.float32)))
        self.network = network

    def folded_in(self, case: Case) -> FactorVectors:
        """See `FactorRanker.folded_in`."""
        history = distinct_rows(case.item_ids, self.factors.items)
        if not len(history):
            return np.asarray(self.factors.user_vectors.mean(axis=0), dtype=np.float32)
        return self.network.folded_in(history, self._layers)
