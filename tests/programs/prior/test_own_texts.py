"""Texts of a user's own give the scores of a prior that was fitted with them among the items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from programs.prior import approximate_scores, nearest
from programs.prior.approximate_scores import ApproximateScores
from programs.prior.prior import Prior
from programs.prior.retrieval import retriever_of
from programs.prior.scorers import ContentSimilarity, Scores, case_of

IDS = [f"i{n}" for n in range(120)]
OWN = ["a text", "another text", "a third"]
HISTORIES = (
    ["a text"],
    ["i1", "a text", "i2"],
    ["a text", "i3", "another text", "a text"],
    ["a third", *(f"i{n}" for n in range(30)), "a text"],  # the third is too old to count
    ["i5", "gone", "a third"],
    ["i5"],
)


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


class Shop:
    """Items in groups, users with histories, and texts that belong to the groups."""

    def __init__(self, items: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.ids = IDS[:items]
        centres = rng.normal(size=(5, 8))
        vectors = _unit(centres[rng.integers(5, size=items)] + self._noise(rng, items))
        self.vectors = dict(zip(self.ids, vectors, strict=True))
        self.own = dict(zip(OWN, _unit(centres[: len(OWN)] + self._noise(rng, len(OWN)) / 2), strict=True))
        # Somebody has an item that is not in the catalogue any more, of the name of a text.
        self.users = {f"u{n}": rng.choice(self.ids, size=4).tolist() for n in range(60)}
        self.users["u0"].append("a third")

    @staticmethod
    def _noise(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        return 0.7 * rng.normal(size=(n, 8))

    def beside(self) -> Prior:
        """Fitted to the catalogue, beside the texts of all users."""
        return Prior.fit(self.users, ContentSimilarity(self.vectors)).beside(self.own)

    def anew(self, history: Sequence[str]) -> Prior:
        """Fitted with the texts of one history among the items."""
        own = {item: self.own[item] for item in history if item in self.own}
        return Prior.fit(self.users, ContentSimilarity(self.vectors | own))


@pytest.mark.parametrize("items", [20, 120])  # fewer than the neighbours of an item, and more
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_and_lists_are_those_of_a_prior_fitted_with_them(items: int, seed: int) -> None:
    shop = Shop(items, seed)
    beside = shop.beside()
    together = retriever_of(Prior.fit(shop.users, ContentSimilarity(shop.vectors)), shop.ids).beside(shop.own)
    found = list(together.first(HISTORIES, 10))
    changed = 0
    for history, first in zip(HISTORIES, found, strict=True):
        anew = shop.anew(history)
        np.testing.assert_allclose(beside.scores(history, shop.ids), anew.scores(history, shop.ids), atol=1e-4)
        assert first == next(retriever_of(anew, shop.ids).first([history], 10))
        changed += not np.allclose(beside.scores(history, shop.ids), _without_walk(shop, history), atol=1e-4)
    assert changed == len(HISTORIES) - 1, "a text is more than its content similarity"


def _without_walk(shop: Shop, history: Sequence[str]) -> Scores:
    """What the texts have no part in but the similarity of contents."""
    content = ContentSimilarity(shop.vectors)
    plain = Prior.fit(shop.users, content)
    case_parts = plain.parts_of([case_of(history, shop.ids)])[0]
    return plain.combine(case_parts | {"content": content.beside(shop.own).scores(history, shop.ids)})


def test_what_was_fitted_stays_as_it_was() -> None:
    shop = Shop(60, 2)
    plain = retriever_of(Prior.fit(shop.users, ContentSimilarity(shop.vectors)), shop.ids)
    before = list(plain.first(HISTORIES, 10))
    assert list(plain.beside(shop.own).first(HISTORIES, 10)) != before
    assert list(plain.first(HISTORIES, 10)) == before


def test_in_a_large_catalogue_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "PROBES", 10**6)
    shop = Shop(120, 3)
    prior = Prior.fit(shop.users, ContentSimilarity(shop.vectors))
    exact = retriever_of(prior, shop.ids).beside(shop.own).first(HISTORIES, 10)
    for name in ("WALKED", "POPULAR"):
        monkeypatch.setattr(approximate_scores, name, 1000)
    found = ApproximateScores(prior, shop.ids).beside(shop.own).first(HISTORIES, 10)
    for one, other in zip(found, exact, strict=True):
        assert len(set(one) & set(other)) >= 9
