"""Sparse graphs as matrices that vectors are multiplied by, and the training of networks over them by BPR."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.epochs import best_device, reproducible, train_epochs
from evaluate.baselines.networks.graph_settings import GraphSettings
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.interactions import HistoryRows, LastItems
from evaluate.baselines.networks.neumf_network import Pairs
from programs.runtime.events import OnEvent, ignore


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
    def loss(self, users: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
        """The loss of b interactions.

        Args:
            users, items: Shape (b,).
            negatives: Shape (b, n): items that the users have not.
        """

    def finish_epoch(self, rng: np.random.Generator, step: Callable[[Tensor], None]) -> None:
        """Train whatever the graph itself needs, after an epoch of interactions.

        Args:
            step: Takes a loss and moves the weights.
        """


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
    seed: int,
    folder: Path | None = None,
    on_event: OnEvent = ignore,
) -> Network:
    """Train until the NDCG of held-out items among all items stops improving; see `train_epochs`.

    Args:
        histories: Of every user.
        items: Number of items with users; only they are negatives.
        make: Makes the network from the histories without what is held out, so that no held-out edge is in the graph.
    """
    with reproducible(seed):
        training, users = hold_out_last(histories, settings.validation, np.random.default_rng(seed))
        held_out = LastItems.of(histories, users)
        network = make(training).to(best_device())
        device = best_device()
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.rate)
        pairs = Pairs(training, items)

        def step(loss: Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            negatives = pairs.negatives(np.repeat(pairs.users, settings.negatives), rng)
            columns = (pairs.users, pairs.rows, negatives.reshape(len(pairs.users), -1))
            users, rows, others = (torch.from_numpy(column).to(device) for column in columns)
            losses = []
            for batch in torch.from_numpy(rng.permutation(len(users))).to(device).split(settings.batch):
                loss = network.loss(users[batch], rows[batch], others[batch])
                step(loss)
                losses.append(loss.item())
            network.finish_epoch(rng, step)
            return float(np.mean(losses))

        train_epochs(
            network,
            optimizer,
            one_epoch,
            (lambda: _ndcg(network, training, held_out, items)) if len(held_out.users) else None,
            seed=seed,
            epochs=settings.epochs,
            patience=settings.patience,
            task=f"fitting {settings.name}",
            folder=folder,
            on_event=on_event,
        )
    return network


def _ndcg(network: GraphNetwork, histories: Sequence[HistoryRows], held_out: LastItems, items: int) -> float:
    """Mean NDCG of held-out items among all items with users that the user has not."""
    of_users, of_items = network.vectors()
    total = 0.0
    for start in range(0, len(held_out.users), 500):
        users = held_out.users[start : start + 500]
        scores = of_users[torch.from_numpy(users).to(of_users.device)] @ of_items[:items].T
        for row, user in zip(scores, users.tolist(), strict=True):
            row[torch.from_numpy(histories[user])] = -torch.inf
        targets = torch.from_numpy(held_out.targets[start : start + 500]).to(scores.device)[:, None]
        total += float((1 / torch.log2(2.0 + (scores > scores.gather(1, targets)).sum(dim=1))).sum())
    return total / len(held_out.users)
