"""The network of LLMRec: LightGCN beside projected texts of items, and of users by what they bought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.graph import GraphNetwork, Propagation, bpr, symmetric_normalised
from evaluate.baselines.networks.graph_settings import LLMRecSettings
from evaluate.baselines.networks.interactions import HistoryRows, pairs_of, user_item_matrix
from programs.runtime.one_thread import one_thread

_CHUNK = 1000
"""Users whose candidates are scored at a time."""


@dataclass(frozen=True)
class Picks:
    """A favourite and a dislike of each of m users.

    Attributes:
        users, favourites, dislikes: Rows, shape (m,).
    """

    users: NDArray[np.int64]
    favourites: NDArray[np.int64]
    dislikes: NDArray[np.int64]


def text_picks(histories: Sequence[HistoryRows], items: int, texts: NDArray[np.float32], candidates: int = 10) -> Picks:
    """Picks by texts in place of a language model: the nearest and the farthest of each user's likely next items.

    A user whose items are all equally near has none.

    Args:
        histories: Of training data.
        items: Number of items with users.
        texts: Shape (items or more, d).
        candidates: Items with the highest sums of cosines over common users (item kNN), without those of the history.
    """
    x = user_item_matrix(histories, items, np.float32)
    counts = np.maximum(np.asarray(x.sum(axis=0)).ravel(), 1)
    scaled = x @ sparse.diags((1 / np.sqrt(counts)).astype(np.float32))
    cosines = sparse.csr_matrix(scaled.T @ scaled)
    users, favourites, dislikes = [], [], []
    for start in range(0, len(histories), _CHUNK):
        likely = sparse.csr_matrix(x[start : start + _CHUNK] @ cosines)
        for place in range(likely.shape[0]):
            own = histories[start + place]
            found = slice(likely.indptr[place], likely.indptr[place + 1])
            others = ~np.isin(likely.indices[found], own)
            near, sums = likely.indices[found][others], likely.data[found][others]
            top = near[np.argsort(-sums, kind="stable")[:candidates]]
            likeness = texts[top] @ texts[own].mean(axis=0)
            if len(top) and likeness.max() > likeness.min():
                users.append(start + place)
                favourites.append(top[likeness.argmax()])
                dislikes.append(top[likeness.argmin()])
    return Picks(*(np.array(column, dtype=np.int64) for column in (users, favourites, dislikes)))


class LLMRecNetwork(GraphNetwork):
    """Id vectors, averaged over the layers of LightGCN, plus the direction of the projected text.

    A user's text is the mean of the texts of their items. Items without users have an id vector of zeros.

    Args:
        histories: Of every user.
        items: Number of items with users; their rows come first.
        texts: Shape (all items, d); zeros for an item without a text.
    """

    def __init__(
        self, histories: Sequence[HistoryRows], items: int, texts: NDArray[np.float32], settings: LLMRecSettings
    ) -> None:
        super().__init__()
        self.settings, self.users = settings, len(histories)
        self.node = nn.Embedding(self.users + items, settings.dimensions)
        nn.init.xavier_uniform_(self.node.weight)
        self.item_text = nn.Linear(texts.shape[1], settings.dimensions, bias=False)
        self.user_text = nn.Linear(texts.shape[1], settings.dimensions, bias=False)
        owners, rows = pairs_of(histories)
        ends = np.column_stack([owners, self.users + rows])
        self._matrix = symmetric_normalised(ends, self.users + items)
        self._propagation: Propagation | None = None
        self.picks = text_picks(histories, items, texts) if settings.picked else None
        # Not part of the state: a kept fit would hold the texts of the whole catalogue again.
        self.register_buffer("texts", torch.from_numpy(texts), persistent=False)
        profiles = np.stack([texts[own].mean(axis=0) for own in histories])
        self.register_buffer("profiles", torch.from_numpy(profiles), persistent=False)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """See `GraphNetwork.vectors`."""
        of_users, of_items = self._ids()
        users, items = self.directions()
        return of_users + self.settings.user_rate * users, of_items + self.settings.item_rate * items

    def _ids(self) -> tuple[Tensor, Tensor]:
        """Id vectors of users and of all items: the mean over the layers."""
        mean = torch.stack(self.layers()).mean(dim=0)
        nobodys = len(self.texts) - (len(mean) - self.users)
        return mean[: self.users], functional.pad(mean[self.users :], (0, 0, 0, nobodys))

    def layers(self) -> list[Tensor]:
        """See `GraphNetwork.layers`; those of LightGCN, over users and items with users."""
        if self._propagation is None:
            self._propagation = Propagation(self._matrix, self.node.weight.device)
        found = [cast(Tensor, self.node.weight)]
        for _ in range(self.settings.layers):
            found.append(self._propagation(found[-1]))
        return found

    def directions(self) -> tuple[Tensor, Tensor]:
        """Projected texts of users and of items, of length 1."""
        users, items = self.user_text(self.profiles), self.item_text(self.texts)
        return functional.normalize(users, dim=1), functional.normalize(items, dim=1)

    def loss(self, users: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
        """BPR without the noisiest interactions, BPR by texts alone, and BPR of picks.

        See `GraphNetwork.loss`.
        """
        of_users, of_items = self.vectors()
        kept = max(1, round(len(users) * (1 - self.settings.pruned)))
        losses = bpr(of_users[users], of_items[items], of_items[negatives]).topk(kept, largest=False).values
        text_users, text_items = self.directions()
        by_text = bpr(text_users[users], text_items[items], text_items[negatives])
        own = self.node.weight
        lengths = own[users].square().sum(dim=1) + own[self.users + items].square().sum(dim=1)
        total = losses.mean() + self.settings.feature_loss * by_text.mean() + self.settings.penalty * lengths.mean()
        if self.picks is not None and len(self.picks.users):
            n = max(1, round(len(users) * self.settings.picked))
            drawn = torch.randint(len(self.picks.users), (n,))
            columns = (self.picks.users, self.picks.favourites, self.picks.dislikes)
            who, liked, disliked = (torch.from_numpy(column)[drawn].to(own.device) for column in columns)
            picked = bpr(of_users[who], of_items[liked], of_items[disliked][:, None])
            total = total + picked.sum() / len(users)
        return cast(Tensor, total)

    @one_thread()
    @torch.no_grad()
    def folded_in(self, history: HistoryRows, layers: Sequence[Tensor]) -> NDArray[np.float32]:
        """See `GraphNetwork.folded_in`; the texts of the items count, too."""
        device = self.node.weight.device
        bought = self.users + history[history < len(self.node.weight) - self.users]
        degrees = np.diff(self._matrix.indptr)[bought]
        weights = (1 / np.sqrt(max(len(bought), 1) * np.maximum(degrees, 1))).astype(np.float32)
        rows, scale = torch.from_numpy(bought).to(device), torch.from_numpy(weights).to(device)
        messages = [layer[rows].T @ scale for layer in layers]
        ids = torch.stack(messages[:-1]).sum(dim=0) / len(layers)
        mean = self.texts[torch.from_numpy(history).to(device)].mean(dim=0)
        text = functional.normalize(self.user_text(mean), dim=0)
        return np.asarray((ids + self.settings.user_rate * text).cpu().numpy(), dtype=np.float32)
