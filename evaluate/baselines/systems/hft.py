"""HFT, hidden factors as hidden topics (McAuley and Leskovec, RecSys 2013): item factors explain item texts, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.factors import FactorRanker, Factors
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.item_features import words_of
from programs.runtime.errors import InputError
from programs.runtime.events import Progress
from signatures.types import Item

Vector = NDArray[np.float64]


class HFT(Baseline):
    """HFT over titles and categories: squared error of ratings, or of purchases, minus the likelihood of the texts.

    Items without users are scored by their text; those without a known word, either, are below all others.

    Memory: numbers of pairs and of words times `factors`, about half a gigabyte for 150,000 purchases beside the
    dataset. A fit takes a minute or two, so it is not kept.

    Attributes:
        implicit: Learn purchases, ones against sampled zeros; otherwise ratings, as published, which rank by how an
            item would be liked and not by whether it would be bought.
        factors: Number of factors, which is the number of topics.
        negatives: Zeros sampled per purchase, once per fit.
        text: Weight of the likelihood of the texts.
        penalty: L2 regularization of biases and factors.
        iterations: Most iterations of L-BFGS.
        patience: Iterations without a smaller error on the validation pairs before the fit stops.
        validation: Share of the pairs that is held out for validation.
        least_items: Fewest items of a word that is used.
    """

    name: ClassVar[str] = "hft"

    implicit: bool = True
    factors: int = Field(default=10, ge=1)
    negatives: int = Field(default=4, ge=1)
    text: float = Field(default=0.1, ge=0)
    penalty: float = Field(default=5.0, gt=0)
    iterations: int = Field(default=200, ge=1)
    patience: int = Field(default=20, ge=1)
    validation: float = Field(default=0.05, ge=0, lt=1)
    least_items: int = Field(default=5, ge=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(text=0.01), cls(text=1.0), cls(penalty=1.0), cls(factors=32))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> FactorRanker:
        """Fit; see `Baseline.fit`.

        Raises:
            InputError: if ratings are to be learnt and there are none.
        """
        rng = np.random.default_rng(seed)
        words, counts = _texts(training.items, self.least_items)
        with_users = dict.fromkeys(item for history in training.histories.values() for item in history)
        rows = {item: row for row, item in enumerate([*with_users, *(i for i in words if i not in with_users)])}
        users = {user: row for row, user in enumerate(training.histories)}
        if self.implicit:
            pairs = self._purchases(training, users, rows, len(with_users), rng)
        else:
            pairs = _ratings(training, users, rows)
        held = np.zeros(len(pairs.values), dtype=bool)
        held[rng.permutation(len(held))[: int(self.validation * len(held))]] = True
        shape = (len(rows), len(counts))
        places = [(rows[item], word, n) for item, own in words.items() for word, n in own.items()]
        documents, columns, numbers = np.array(places, dtype=np.int64).reshape(-1, 3).T
        texts = sparse.csr_array((numbers.astype(float), (documents, columns)), shape=shape)
        objective = _Objective(self, pairs.of(~held), (len(users), len(rows)), texts, np.log(counts))
        found = objective.parts(self._minimum(objective, pairs.of(held), rng, fitting))
        floats = [found[part].astype(np.float32) for part in ("users", "items", "item biases")]
        return FactorRanker(self.name, Factors(users, floats[0], rows, floats[1], floats[2]))

    def _purchases(
        self,
        training: TrainingData,
        users: Mapping[str, int],
        rows: Mapping[str, int],
        items: int,
        rng: np.random.Generator,
    ) -> _Pairs:
        """Every purchase once, and zeros among the items with users, none of which the user has."""
        own = {(users[user], rows[item]) for user, history in training.histories.items() for item in history}
        ones = np.array(sorted(own))
        zeros = np.stack(
            [np.repeat(ones[:, 0], self.negatives), rng.integers(items, size=len(ones) * self.negatives)], axis=1
        )
        zeros = zeros[[(user, item) not in own for user, item in zeros.tolist()]]
        both = np.concatenate([ones, zeros])
        return _Pairs(both[:, 0], both[:, 1], np.repeat([1.0, 0.0], [len(ones), len(zeros)]))

    def _minimum(self, objective: _Objective, held: _Pairs, rng: np.random.Generator, fitting: Fitting) -> Vector:
        """Parameters with the smallest error on the held-out pairs, or the smallest loss if none are."""
        task = f"fitting {self.name}"
        best, least, best_at, done = objective.start(rng), np.inf, 0, 0

        def seen(intermediate_result: object) -> None:
            nonlocal best, least, best_at, done
            at: Vector = intermediate_result.x  # type: ignore[attr-defined]
            value: float = intermediate_result.fun  # type: ignore[attr-defined]
            done += 1
            error = objective.error(at, held) if len(held.values) else value
            if error < least:
                best, least, best_at = at.copy(), error, done
            if done < self.iterations:
                fitting.on_event(
                    Progress(task, done, self.iterations, detail=f"loss {value:.1f}, dev error {error:.4f}")
                )
            if done - best_at >= self.patience:
                raise StopIteration

        fitting.on_event(Progress(task, 0, self.iterations))
        minimize(objective, best, jac=True, method="L-BFGS-B", callback=seen, options={"maxiter": self.iterations})
        fitting.on_event(Progress(task, self.iterations, self.iterations, detail=f"dev error {least:.4f}"))
        return best


@dataclass(frozen=True)
class _Pairs:
    """Users, items and what is to be predicted for them, each of shape (n,)."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    values: Vector

    def of(self, chosen: NDArray[np.bool_]) -> _Pairs:
        return _Pairs(self.users[chosen], self.items[chosen], self.values[chosen])


def _ratings(training: TrainingData, users: Mapping[str, int], rows: Mapping[str, int]) -> _Pairs:
    """The newest rating of every pair that has one."""
    newest = {
        (users[user], rows[event.item_id]): event.rating
        for user, events in training.interactions.items()
        for event in events
        if event.rating is not None
    }
    if not newest:
        raise InputError("the ranker 'hft' is to learn ratings, and there are none: fit it with implicit=true")
    both = np.array(list(newest))
    return _Pairs(both[:, 0], both[:, 1], np.array(list(newest.values()), dtype=float))


def _texts(items: Mapping[str, Item], least_items: int) -> tuple[dict[str, Counter[int]], Vector]:
    """How often each word is in the title and category of every item with a word, and in the whole catalogue."""
    found = {
        item_id: Counter(words_of(" ".join([item.display_title, *item.category]))) for item_id, item in items.items()
    }
    holders = Counter(word for own in found.values() for word in own)
    columns = {word: column for column, word in enumerate(w for w, n in holders.items() if n >= least_items)}
    words = {
        item: Counter({columns[word]: n for word, n in own.items() if word in columns}) for item, own in found.items()
    }
    totals = np.zeros(len(columns))
    for own in words.values():
        for column, n in own.items():
            totals[column] += n
    return {item: own for item, own in words.items() if own}, totals


class _Objective:
    """The loss of all parameters and its gradient.

    sum (alpha + b_u + b_i + g_u . g_i - y)^2 - text * sum n_iw log sum_k theta_ik phi_kw + penalty * (|b|^2 + |g|^2),
    with theta_i = softmax(kappa g_i) and phi_k = softmax(psi_k + log frequency of the words). The topic of a word is
    summed over, in place of being sampled as published, so that one smooth function is minimised.
    """

    def __init__(
        self, settings: HFT, pairs: _Pairs, shape: tuple[int, int], texts: sparse.csr_array, background: Vector
    ) -> None:
        users, items = shape
        k = settings.factors
        self.settings, self.pairs, self.texts, self.background = settings, pairs, texts.tocoo(), background
        self.shape = shape
        self.layout = {
            "mean": (1,),
            "user biases": (users,),
            "item biases": (items,),
            "users": (users, k),
            "items": (items, k),
            "kappa": (1,),
            "words": (k, len(background)),
        }

    def start(self, rng: np.random.Generator) -> Vector:
        """Parameters to begin with: small random factors."""
        size = sum(int(np.prod(shape)) for shape in self.layout.values())
        at = np.zeros(size)
        parts = self.parts(at)
        parts["mean"][:] = self.pairs.values.mean()
        parts["kappa"][:] = 1.0
        for part in ("users", "items"):
            parts[part][:] = 0.1 * rng.standard_normal(self.layout[part])
        return at

    def parts(self, at: Vector) -> dict[str, Vector]:
        """The parameters by name: views."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.layout.values()])
        pieces = np.split(at, ends[:-1])
        return {name: piece.reshape(self.layout[name]) for name, piece in zip(self.layout, pieces, strict=True)}

    def error(self, at: Vector, pairs: _Pairs) -> float:
        """Mean squared error on some pairs."""
        return float(np.mean(self._residuals(self.parts(at), pairs) ** 2))

    def _residuals(self, own: Mapping[str, Vector], pairs: _Pairs) -> Vector:
        products = np.einsum("nk,nk->n", own["users"][pairs.users], own["items"][pairs.items])
        biases = own["user biases"][pairs.users] + own["item biases"][pairs.items]
        return own["mean"][0] + biases + products - pairs.values

    def __call__(self, at: Vector) -> tuple[float, Vector]:
        """The loss, and its gradient."""
        own, pairs, penalty = self.parts(at), self.pairs, self.settings.penalty
        gradient = np.zeros_like(at)
        slopes = self.parts(gradient)
        residuals = self._residuals(own, pairs)
        loss = float(residuals @ residuals)
        errors = sparse.csr_array((2 * residuals, (pairs.users, pairs.items)), shape=self.shape)
        slopes["mean"][:] = 2 * residuals.sum()
        slopes["user biases"] += np.bincount(pairs.users, 2 * residuals, self.shape[0])
        slopes["item biases"] += np.bincount(pairs.items, 2 * residuals, self.shape[1])
        slopes["users"] += np.asarray(errors @ own["items"])
        slopes["items"] += np.asarray(errors.T @ own["users"])
        for part in ("user biases", "item biases", "users", "items"):
            loss += penalty * float(np.sum(own[part] ** 2))
            slopes[part] += 2 * penalty * own[part]
        return loss + (self._add_texts(own, slopes) if self.texts.nnz else 0.0), gradient

    def _add_texts(self, own: Mapping[str, Vector], slopes: Mapping[str, Vector]) -> float:
        """Minus the weighted log-likelihood of the texts; adds its gradient to `slopes`."""
        kappa, weight = own["kappa"][0], self.settings.text
        topics = softmax(kappa * own["items"], axis=1)
        words = np.exp(log_softmax(own["words"] + self.background, axis=1))
        rows, columns = self.texts.coords
        likely = np.einsum("nk,nk->n", topics[rows], words.T[columns])
        shares = sparse.csr_array((self.texts.data / likely, (rows, columns)), shape=self.texts.shape)
        # Expected numbers of words of each topic, by item and by word.
        by_item, by_word = topics * (shares @ words.T), words * (shares.T @ topics).T
        towards = by_item - by_item.sum(axis=1, keepdims=True) * topics
        slopes["items"][:] -= weight * kappa * towards
        slopes["kappa"][:] -= weight * float(np.sum(towards * own["items"]))
        slopes["words"][:] -= weight * (by_word - by_word.sum(axis=1, keepdims=True) * words)
        return -weight * float(self.texts.data @ np.log(likely))
