"""Sparse graphs as matrices that vectors are multiplied by, and the training of networks over them by BPR."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.batches import shuffled_batches
from evaluate.baselines.networks.dev_ndcg import ndcg_among_new
from evaluate.baselines.networks.epochs import reproducible, take_steps, train_epochs
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.graph_settings import GraphSettings
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.interactions import HistoryRows, LastItems, Pairs
from programs.runtime.device import best_device

_SCORED = 500
"""Users whose held-out items are scored at a time."""


def symmetric_normalised(ends: NDArray[np.int64], nodes: int) -> sparse.csr_matrix:
    """D^(-1/2) A D^(-1/2) of an undirected graph.

    Args:
        ends: Shape (edges, 2): an edge leads in both directions, and counts once however often it is given.
        nodes: Number of nodes; those without an edge have a row of zeros.
    """
    both = np.concatenate([ends, ends[:, ::-1]])
    matrix = sparse.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(nodes, nodes))
    matrix.data[:] = 1
    degrees = np.asarray(matrix.sum(axis=1)).ravel()
    scale = sparse.diags(1 / np.sqrt(np.maximum(degrees, 1)))
    return sparse.csr_matrix(scale @ matrix @ scale, dtype=np.float32)


class Propagation:
    """Multiplies by a sparse matrix A; the gradient is multiplied by its transpose, which is kept beside it.

    Torch's own gradient of a sparse product would build the transpose in every step.
    """

    def __init__(self, matrix: sparse.csr_matrix, device: torch.device) -> None:
        self.forward, self.backward = _on(matrix, device), _on(sparse.csr_matrix(matrix.T), device)

    def __call__(self, vectors: Tensor) -> Tensor:
        """A times vectors, shape (nodes, d)."""
        return cast(Tensor, _Product.apply(vectors, self.forward, self.backward))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, vectors: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        context.transposed = transposed
        return matrix @ vectors

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return context.transposed @ gradients[0], None, None


def _on(matrix: sparse.csr_matrix, device: torch.device) -> Tensor:
    parts = (torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices), torch.from_numpy(matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")  # torch calls its CSR format a beta
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, dtype=torch.float32, device=device)


class GraphNetwork(nn.Module, ABC):
    """A network whose vectors of users and items come from one propagation over the whole graph."""

    @abstractmethod
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users, shape (users, d), and of all items, shape (items, d); a score is their product."""

    @abstractmethod
    def layers(self) -> list[Tensor]:
        """Vectors of the nodes before the first layer of the propagation and after each, shape (nodes, d) each."""

    @abstractmethod
    def loss(self, users: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
        """The loss of b interactions.

        Args:
            users, items: Shape (b,).
            negatives: Shape (b, n): items that the users have not.
        """

    @abstractmethod
    def folded_in(self, history: HistoryRows, layers: Sequence[Tensor]) -> NDArray[np.float32]:
        """The vector of a user who is not in the graph, from the messages of their items; shape (d,).

        Args:
            history: At least one item.
            layers: `layers()` of the trained network.
        """

    def graph_losses(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Losses of what the graph itself learns after an epoch of interactions, see `take_steps`; none by default."""
        return iter(())


Network = TypeVar("Network", bound=GraphNetwork)


def bpr(users: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
    """-ln σ(u·i - u·j), mean over the negatives j, for b interactions, shape (b,) (Rendle et al., 2009).

    Args:
        users, items: Shape (b, d).
        negatives: Shape (b, n, d).
    """
    apart = (users * items).sum(dim=1, keepdim=True) - (negatives @ users[:, :, None])[:, :, 0]
    return -functional.logsigmoid(apart).mean(dim=1)


def train_graph(
    histories: Sequence[HistoryRows],
    items: int,
    make: Callable[[list[HistoryRows]], Network],
    settings: GraphSettings,
    plan: FitPlan,
) -> Network:
    """Train until the NDCG of held-out items among all items stops improving; see `train_epochs`.

    Args:
        histories: Of every user.
        items: Number of items with users; only they are negatives.
        make: Makes the network from the histories without what is held out, so that no held-out edge is in the graph.
    """
    with reproducible(plan.seed):
        training, users = hold_out_last(histories, settings.validation, np.random.default_rng(plan.seed))
        held_out = LastItems.of(histories, users)
        device = best_device()
        network = make(training).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.rate)
        pairs = Pairs(training, items)

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            negatives = pairs.negatives(np.repeat(pairs.users, settings.negatives), rng)
            columns = (pairs.users, pairs.rows, negatives.reshape(len(pairs.users), -1))
            users, rows, others = (torch.from_numpy(column).to(device) for column in columns)
            shuffled = shuffled_batches(len(users), settings.batch, rng)
            batches = (torch.from_numpy(batch).to(device) for batch in shuffled)
            loss = take_steps(optimizer, (network.loss(users[batch], rows[batch], others[batch]) for batch in batches))
            take_steps(optimizer, network.graph_losses(rng))
            return loss

        def dev_score() -> float:
            of_users, of_items = network.vectors()

            def scores_of(users: NDArray[np.int64]) -> Tensor:
                return of_users[torch.from_numpy(users).to(device)] @ of_items[:items].T

            return ndcg_among_new(held_out, training, scores_of, _SCORED)

        train_epochs(network, optimizer, one_epoch, dev_score if users else None, plan)
    return network
