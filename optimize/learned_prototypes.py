"""Prototypes learned from training lists: vectors that start at the definitions and are fitted by gradient.

A training list is a user's last training purchase among random items, to be found from the purchases before it. So
no dev or test user's target is used, and the number of lists is the number of users.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from programs.motivation_encoder import LEANING_ITEMS, texts_of
from programs.prior.encoders import Encoder
from programs.prior.scorers import Histories
from programs.prototypes import Prototype, Prototypes, directions
from signatures.rows import seed_of
from signatures.types import Item

SAMPLED_NEGATIVES = 29
PENALTIES = (1e-5, 3e-5, 1e-4, 3e-4)
"""Strengths with which vectors are held at their start; that with the least loss on lists set aside is used."""

FEWEST_LISTS = 20
_SET_ASIDE = 5
_ITERATIONS = 60
_DIGITS = 4
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingLists:
    """Lists of items by their rows in a matrix of vectors.

    Attributes:
        histories: Mean over the last purchases of each user, as a sparse matrix of shape (lists, items).
        candidates: Matrix of the candidates, the purchase first, shape (lists, 1 + negatives).
    """

    histories: sparse.csr_matrix
    candidates: NDArray[np.intp]

    def part(self, chosen: NDArray[np.bool_]) -> TrainingLists:
        """Some of the lists."""
        return TrainingLists(self.histories[chosen], self.candidates[chosen])


def training_lists(histories: Histories, rows: Mapping[str, int], seed: int) -> TrainingLists:
    """One list for every user with two purchases of items that have a row; negatives are other items, drawn evenly."""
    draw = random.Random(seed_of("training lists", seed))  # noqa: S311 - reproducible, no secret
    pasts, candidates = [], []
    size = max(rows.values(), default=-1) + 1
    for user in sorted(histories):
        own = [rows[item] for item in histories[user] if item in rows]
        if len(own) < 2 or size < len(set(own)) + SAMPLED_NEGATIVES:
            continue
        drawn = draw.sample(range(size), SAMPLED_NEGATIVES + len(set(own)))
        candidates.append([own[-1], *[row for row in drawn if row not in set(own)][:SAMPLED_NEGATIVES]])
        pasts.append(own[:-1][-LEANING_ITEMS:])
    return TrainingLists(
        mean_of_rows(pasts, size), np.array(candidates, dtype=np.intp).reshape(-1, 1 + SAMPLED_NEGATIVES)
    )


def mean_of_rows(groups: Sequence[Sequence[int]], size: int) -> sparse.csr_matrix:
    """A sparse matrix of shape (groups, size) whose product with vectors gives the mean vector of each group."""
    lengths = [len(own) for own in groups]
    values = np.repeat([1 / max(1, n) for n in lengths], lengths)
    flat = np.array([row for own in groups for row in own], dtype=np.intp)
    return sparse.csr_matrix((values, flat, np.concatenate([[0], np.cumsum(lengths)])), shape=(len(groups), size))


def learn_prototypes(
    start: Prototypes, encoder: Encoder, catalogue: Mapping[str, Item], histories: Histories, seed: int
) -> Prototypes | None:
    """Fit the vectors so that purchases come before random items; None with too few training lists.

    The score of item i for a user with mean purchase u is sum over dimensions of (p . u)(p . i), with vectors taken
    less their mean over the catalogue; the loss is the cross-entropy of the purchase among its list, plus a penalty on
    the distance from the start.
    """
    texts = texts_of(catalogue)
    place = {text: row for row, text in enumerate(texts)}
    rows = {item_id: place[item.text] for item_id, item in catalogue.items() if item.text}
    lists = training_lists(histories, rows, seed)
    if len(lists.candidates) < FEWEST_LISTS:
        return None
    vectors = encoder.encode(texts).astype(float)
    centre = vectors.mean(axis=0)
    centred = vectors - centre
    first = directions(start, encoder) - centre
    first = first * (_scale(centred, first) / np.linalg.norm(first, axis=1, keepdims=True))
    aside = np.arange(len(lists.candidates)) % _SET_ASIDE == 0
    fitted = [(_fit(first, centred, lists.part(~aside), penalty), penalty) for penalty in PENALTIES]
    _, penalty = min(fitted, key=lambda one: _loss(one[0], centred, lists.part(aside))[0])
    learned = _fit(first, centred, lists, penalty)
    spread = (centred @ learned.T).std(axis=0)
    return Prototypes(
        prototypes=tuple(
            Prototype(dimension=one.dimension, label="learned", vector=_short(vector), weight=_short([weight])[0])
            # An item's standard score has lost the length of the vector, which says how much the dimension counts.
            for one, vector, weight in zip(start.prototypes, learned, spread / spread.mean(), strict=True)
        ),
        encoder=encoder.name,
    )


def _scale(centred: Matrix, first: Matrix) -> float:
    """Length of the vectors at the start: scores of items then vary by about 1."""
    unit = first / np.linalg.norm(first, axis=1, keepdims=True)
    return float(1 / np.sqrt(np.mean((centred @ unit.T) ** 2) * np.sqrt(len(first)) + 1e-12))


def _fit(first: Matrix, centred: Matrix, lists: TrainingLists, penalty: float) -> Matrix:
    def value(flat: Matrix) -> tuple[float, Matrix]:
        own = flat.reshape(first.shape)
        loss, gradient = _loss(own, centred, lists)
        moved = own - first
        return loss + penalty * float((moved**2).sum()), (gradient + 2 * penalty * moved).ravel()

    found = minimize(value, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    fitted: Matrix = found.x.reshape(first.shape)
    return fitted


def _loss(own: Matrix, centred: Matrix, lists: TrainingLists) -> tuple[float, Matrix]:
    """Mean cross-entropy of the purchases, in nats, and its gradient in the vectors."""
    n = len(lists.candidates)
    leanings = centred @ own.T
    users = lists.histories @ leanings
    shown = leanings[lists.candidates]
    scores = np.einsum("nk,nck->nc", users, shown)
    scores -= scores.max(axis=1, keepdims=True)
    powers = np.exp(scores)
    totals = powers.sum(axis=1)
    loss = float(np.mean(np.log(totals) - scores[:, 0]))
    errors = powers / totals[:, None] / n
    errors[:, 0] -= 1 / n
    # By the item's leanings: sum of error * user over the lists it is in; by the user's: sum of error * item.
    placed = sparse.csr_matrix(
        (errors.ravel(), lists.candidates.ravel(), np.arange(n + 1) * lists.candidates.shape[1]),
        shape=(n, len(centred)),
    )
    by_item = placed.T @ users + lists.histories.T @ (placed @ leanings)
    gradient: Matrix = by_item.T @ centred
    return loss, gradient


def _short(values: NDArray[np.float64] | list[float]) -> tuple[float, ...]:
    """Values with four digits: what an artifact keeps."""
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
