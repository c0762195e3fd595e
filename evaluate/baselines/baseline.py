"""What every trained baseline is: settings that can be fitted, and what a fit may see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from programs.prior.scorers import ContentSimilarity, Histories
from programs.ranker import Ranker
from programs.runtime.errors import InputError
from signatures.types import Item


@dataclass(frozen=True)
class TrainingData:
    """All that a fit may see.

    Attributes:
        histories: Item ids by user before every user's target, oldest first; users without any are ignored.
        items: The catalogue, items that nobody has included.
        metadata: z_u by user; users without any are absent.
        content: Similarity of item texts; only `learned` uses it.
    """

    histories: Histories
    items: Mapping[str, Item]
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    content: ContentSimilarity = field(default_factory=lambda: ContentSimilarity({}))

    def __post_init__(self) -> None:
        if not any(self.histories.values()):
            raise InputError("no user has a history: there is nothing to fit a baseline on")


class Baseline(BaseModel, ABC):
    """The settings of a trained ranker; `fit` makes the ranker. Its JSON is what a study records.

    A fit runs on one thread and is the same for the same material, settings, seed and machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    """What `--ranker` calls it, and the name of its score vector."""

    @classmethod
    @abstractmethod
    def grid(cls) -> tuple[Self, ...]:
        """The settings a tuner tries, the default first."""

    @abstractmethod
    def fit(self, material: TrainingData, seed: int) -> Ranker:
        """Train on the material.

        Args:
            seed: From 0 to 2**31 - 1; decides initial values, sampling and order.

        Raises:
            MissingExtraError: if the library it stands on is not installed.
        """


def unknown_below(scores: ArrayLike, places: Sequence[int], n: int) -> NDArray[np.float64]:
    """Scores of n candidates, of which a model knows only some: the others tie below every one it knows.

    The rule for cold items, for every baseline that has nothing to say about them.

    Args:
        scores: m finite scores.
        places: The m places they belong to, each from 0 to n - 1.

    >>> unknown_below([0.5, -2.0], [2, 0], 4).tolist()
    [-2.0, -3.0, 0.5, -3.0]
    """
    known = np.asarray(scores, dtype=float)
    out = np.full(n, known.min() - 1.0 if known.size else 0.0)
    out[list(places)] = known
    return out
