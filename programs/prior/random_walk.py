"""Random walk of two steps from a history over users and items: item-kNN that also reaches neighbours of neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from programs.prior.scorers import Histories
from programs.runtime.errors import InputError


class RandomWalk:
    """Scores of every item for a history, by two steps item -> user -> item.

    With A the binary user-item matrix, D_i the users of each item and D_u the items of each user, one step is
    T = D_i^(-1/2) A' D_u^(-1) A D_i^(-1/2): the cosine of item-kNN in which a user with many items counts less. A
    history is the vector h with decay^age at its last `items_last` items, the newest having age 0; its scores are
    h T T. Half of all targets share no user with the history (Toys, 5-core), so that one step cannot score them.

    Args:
        histories: Item ids by user, oldest first; a repeated purchase counts once.
        further: More item ids to have a column, such as items that only have a text.
        precision: Type of all numbers; 32 bits are faster.

    Attributes:
        to_users: D_i^(-1/2) A', shape (items, users).
        to_items: D_u^(-1) A D_i^(-1/2), shape (users, items).
    """

    def __init__(
        self,
        histories: Histories,
        further: Iterable[str] = (),
        items_last: int = 20,
        decay: float = 0.7,
        precision: type[np.floating] = np.float64,
    ) -> None:
        if items_last < 1 or not 0 < decay <= 1:
            raise InputError(f"random walk: items_last={items_last} must be >= 1 and decay={decay} in (0, 1]")
        self.items_last = items_last
        self.decay = decay
        baskets = [dict.fromkeys(history) for history in histories.values() if history]
        self.columns = {item: 0 for basket in baskets for item in basket} | dict.fromkeys(further, 0)
        for column, item in enumerate(self.columns):
            self.columns[item] = column
        lengths = np.array([len(basket) for basket in baskets], dtype=float)
        owned = np.array([self.columns[item] for basket in baskets for item in basket], dtype=np.int64)
        rows = np.repeat(np.arange(len(baskets)), lengths.astype(np.int64))
        self.users = np.bincount(owned, minlength=len(self.columns)).astype(float)
        entries = (1 / np.sqrt(self.users[owned])).astype(precision)
        shape = (len(baskets), len(self.columns))
        by_user = sparse.csr_matrix((entries, (rows, owned)), shape=shape)
        self.to_users = by_user.T.tocsr()
        self.to_items = sparse.csr_matrix(((entries / lengths[rows]).astype(precision), (rows, owned)), shape=shape)
        self._from_items = by_user
        self._from_users = self.to_items.T.tocsr()

    def scores(self, histories: Sequence[Sequence[str]]) -> NDArray[np.floating]:
        """Scores of all items for several histories.

        An item of a history that no user has keeps its weight decay^age, so that it speaks for items like it.

        Returns:
            Shape (histories, items), 0 for items out of reach; the columns are those of `columns`. A row depends on
            its own history alone. The array is in column order, because callers read few of its values.
        """
        places: list[int] = []
        columns: list[int] = []
        weights: list[float] = []
        for place, history in enumerate(histories):
            for age, item in enumerate(reversed(history[-self.items_last :])):
                if (column := self.columns.get(item)) is not None:
                    places.append(place)
                    columns.append(column)
                    weights.append(self.decay**age)
        shape = (len(histories), len(self.columns))
        start = sparse.csr_matrix((weights, (places, columns)), shape=shape, dtype=self.to_users.dtype)
        once = (start @ self.to_users @ self.to_items).toarray()
        # Two steps reach most of the catalogue, so that the second is faster dense.
        users = self._from_items @ np.ascontiguousarray(once.T)
        reached: NDArray[np.floating] = (self._from_users @ users).T
        unknown = start.tocoo()
        own = self.users[unknown.col] == 0
        reached[unknown.row[own], unknown.col[own]] = unknown.data[own]
        return reached
