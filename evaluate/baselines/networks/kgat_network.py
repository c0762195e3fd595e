"""The network of KGAT: bi-interaction layers over users, items and entities, with or without attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.graph import GraphNetwork, Propagation, bpr, symmetric_normalised
from evaluate.baselines.networks.graph_settings import KGATSettings
from evaluate.baselines.networks.interactions import HistoryRows, pairs_of
from evaluate.baselines.networks.knowledge import RELATIONS, KnowledgeGraph
from programs.runtime.one_thread import one_thread

_TRIPLES = 8192
"""Triples per batch of TransR."""


class KGATNetwork(GraphNetwork):
    """Nodes are users, then items, then entities; a node's vector is its own beside those of all layers.

    Args:
        histories: Of every user.
        items: Number of items, those without users last; their own vectors are zeros and are not trained, since they
            would be scored without having been learned from a purchase.
        graph: Triples of the items.
    """

    has_own: Tensor

    def __init__(
        self, histories: Sequence[HistoryRows], items: int, graph: KnowledgeGraph, settings: KGATSettings
    ) -> None:
        super().__init__()
        self.users, self.items, self.penalty = len(histories), items, settings.penalty
        nodes = self.users + items + graph.entities
        self.node = nn.Embedding(nodes, settings.dimensions)
        nn.init.xavier_uniform_(self.node.weight)
        steps = list(pairwise((settings.dimensions, *settings.layers)))
        self.sums = nn.ModuleList(nn.Linear(before, after) for before, after in steps)
        self.products = nn.ModuleList(nn.Linear(before, after) for before, after in steps)
        self.dropout = nn.Dropout(settings.dropout)
        edges = _edges(histories, self.users, items, graph)
        self._fixed = symmetric_normalised(edges[:, [0, 2]], nodes)
        self._degrees = np.diff(self._fixed.indptr)
        has_own = torch.ones(nodes, 1)
        bought = np.unique(np.concatenate(list(histories)))
        has_own[torch.from_numpy(self.users + np.setdiff1d(np.arange(items), bought))] = 0
        self.register_buffer("has_own", has_own, persistent=False)
        self.transr = _TransR(edges, nodes, settings.dimensions) if settings.attention else None
        self._propagation: Propagation | None = None

    @property
    def own(self) -> Tensor:
        """Own vectors of all nodes, shape (nodes, d)."""
        return cast(Tensor, self.node.weight * self.has_own)

    def layers(self) -> list[Tensor]:
        """Vectors of all nodes before the first layer and after each: e' = f(W1 (e + Ae)) + f(W2 (e * Ae)) (eq. 8)."""
        if self._propagation is None:
            attended = self._fixed if self.transr is None else self.transr.attention(self.own)
            self._propagation = Propagation(attended, self.node.weight.device)
        found = [self.own]
        for number in range(len(self.sums)):
            found.append(self._layer(number, found[-1], self._propagation(found[-1])))
        return found

    def _layer(self, number: int, own: Tensor, received: Tensor) -> Tensor:
        summed = functional.leaky_relu(self.sums[number](own + received))
        multiplied = functional.leaky_relu(self.products[number](own * received))
        return cast(Tensor, self.dropout(summed + multiplied))

    def vectors(self) -> tuple[Tensor, Tensor]:
        """See `GraphNetwork.vectors`."""
        joined = _joined(self.layers())
        return joined[: self.users], joined[self.users : self.users + self.items]

    def loss(self, users: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
        """See `GraphNetwork.loss`."""
        of_users, of_items = self.vectors()
        losses = bpr(of_users[users], of_items[items], of_items[negatives])
        own = self.own
        lengths = own[users].square().sum(dim=1) + own[self.users + items].square().sum(dim=1)
        return losses.mean() + self.penalty * lengths.mean()

    def graph_losses(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Losses of TransR once over all triples; attention is computed anew when it is needed next."""
        if self.transr is None:
            return
        for batch in np.array_split(
            rng.permutation(len(self.transr.edges)), max(1, len(self.transr.edges) // _TRIPLES)
        ):
            yield self.transr.loss(self.own, batch, rng)
        self._propagation = None

    def train(self, mode: bool = True) -> KGATNetwork:
        """See `torch.nn.Module.train`; the weights may be others than before."""
        if self.transr is not None:
            self._propagation = None
        super().train(mode)
        return self

    @one_thread()
    @torch.no_grad()
    def folded_in(self, history: HistoryRows, layers: Sequence[Tensor]) -> NDArray[np.float32]:
        """See `GraphNetwork.folded_in`."""
        rows = self.users + history
        if self.transr is None:
            weights = 1 / np.sqrt(len(history) * np.maximum(self._degrees[rows], 1))
        else:
            weights = np.full(len(history), 1 / len(history))
        scale = torch.from_numpy(weights.astype(np.float32))[:, None].to(layers[0].device)
        found = [torch.zeros(1, layers[0].shape[1], device=layers[0].device)]
        for number in range(len(self.sums)):
            received = (layers[number][torch.from_numpy(rows)] * scale).sum(dim=0, keepdim=True)
            found.append(self._layer(number, found[-1], received))
        return np.asarray(_joined(found)[0].cpu().numpy(), dtype=np.float32)


def _joined(layers: Sequence[Tensor]) -> Tensor:
    return torch.cat([layers[0], *(functional.normalize(layer, dim=1) for layer in layers[1:])], dim=1)


def _edges(histories: Sequence[HistoryRows], users: int, items: int, graph: KnowledgeGraph) -> NDArray[np.int64]:
    """Shape (edges, 3): node, relation and node; relation 0 is a purchase."""
    owners, rows = pairs_of(histories)
    bought = np.column_stack([owners, np.zeros_like(owners), users + rows])
    heads, relations, entities = graph.triples.T
    known = np.column_stack([users + heads, 1 + relations, users + items + entities])
    return np.concatenate([bought, known])


class _TransR(nn.Module):
    """Vectors of relations in spaces of their own, and the attention that they give to edges.

    Every edge leads in both directions, each with a relation of its own.
    """

    def __init__(self, edges: NDArray[np.int64], nodes: int, dimensions: int) -> None:
        super().__init__()
        back = edges[:, ::-1].copy()
        back[:, 1] += 1 + len(RELATIONS)
        self.edges, self.nodes = np.concatenate([edges, back]), nodes
        kinds = 2 * (1 + len(RELATIONS))
        self.relation = nn.Parameter(torch.empty(kinds, dimensions))
        self.space = nn.Parameter(torch.empty(kinds, dimensions, dimensions))
        nn.init.xavier_uniform_(self.relation)
        nn.init.xavier_uniform_(self.space)

    def loss(self, vectors: Tensor, batch: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """-ln σ(g(h, r, t') - g(h, r, t)) with g(h, r, t) = |W_r h + r - W_r t|² (eq. 1 and 2)."""
        total = vectors.new_zeros(())
        for kind, edges in self._by_relation(self.edges[batch]):
            ends = (edges[:, 0], edges[:, 2], rng.integers(self.nodes, size=len(edges)))
            heads, tails, wrong = (self._projected(vectors, rows, kind) for rows in ends)
            moved = heads + self.relation[kind]
            apart = (moved - wrong).square().sum(dim=1) - (moved - tails).square().sum(dim=1)
            total = total - functional.logsigmoid(apart).sum()
        return total / len(batch)

    @torch.no_grad()
    def attention(self, vectors: Tensor) -> sparse.csr_matrix:
        """Softmax over the edges of a head of (W_r t) · tanh(W_r h + r) (eq. 4 and 5)."""
        parts = []
        for kind, edges in self._by_relation(self.edges):
            heads, tails = (self._projected(vectors, edges[:, end], kind) for end in (0, 2))
            values = (tails * torch.tanh(heads + self.relation[kind])).sum(dim=1)
            parts.append((edges[:, 0], edges[:, 2], values.cpu().numpy()))
        heads, tails, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        most = np.full(self.nodes, -np.inf, dtype=np.float32)
        np.maximum.at(most, heads, weights)
        powers = np.exp(weights - most[heads])
        shares = powers / np.bincount(heads, powers, minlength=self.nodes)[heads]
        return sparse.csr_matrix((shares, (heads, tails)), shape=(self.nodes, self.nodes), dtype=np.float32)

    def _projected(self, vectors: Tensor, rows: NDArray[np.int64], kind: int) -> Tensor:
        return vectors[torch.from_numpy(rows).to(vectors.device)] @ self.space[kind].T

    def _by_relation(self, edges: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        return [(int(kind), edges[edges[:, 1] == kind]) for kind in np.unique(edges[:, 1])]
