"""Base class of trained baselines (settings with a `fit` method), and their training data."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.protocol.protocol import EvaluationProtocol
from programs.motivation_encoder import MotivationEncoder
from programs.prior.scorers import ContentSimilarity, Histories, Training, histories_of
from programs.ranker import Ranker, ranking_from_scores
from programs.runtime.errors import InputError
from signatures.rows import Case, Ranking
from signatures.schema import MotivationSchema
from signatures.types import Item

LARGEST_SEED = 2**31 - 1
"""The libraries of the baselines take seeds from 0 to this."""


@dataclass(frozen=True)
class TrainingData:
    """Everything that a baseline may be fitted on.

    Attributes:
        interactions: Interactions by user before the user's target, oldest first; users without any are ignored.
        items: The catalogue, including items without users.
        metadata: z_u by user; users without any are absent.
        content: Similarity of item texts, for `learned`.
        motivations: Leanings of items, for `learned`, and the encoder of texts; None without a sentence encoder.
        protocol: The protocol whose cases are to be ranked, for rankers that learn from lists of the same shape; None:
            warm users and uniform negatives.
        traits: Gives MOTE's traits as a text by item, for the items whose traits are stored; asks no model.
    """

    interactions: Training
    items: Mapping[str, Item]
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    content: ContentSimilarity = field(default_factory=lambda: ContentSimilarity({}))
    protocol: EvaluationProtocol | None = None
    motivations: MotivationEncoder | None = None
    traits: Callable[[], Mapping[str, str]] | None = None

    def __post_init__(self) -> None:
        if not any(self.interactions.values()):
            raise InputError("no user has a history: a baseline cannot be fitted")

    @cached_property
    def histories(self) -> Histories:
        """Item ids by user, oldest first."""
        return histories_of(self.interactions)

    @cached_property
    def sha256(self) -> str:
        """Hash of interactions, item texts and metadata: equal training data have equal ones."""
        parts = (
            [(user, [(e.item_id, e.rating, e.timestamp) for e in es]) for user, es in self.interactions.items()],
            [(item.item_id, item.text) for item in self.items.values()],
            [(user, sorted(values.items())) for user, values in self.metadata.items()],
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Baseline(BaseModel, ABC):
    """Settings of a trained baseline; `fit` returns the ranker. Studies record the settings as JSON.

    A fit is reproducible for the same training data, settings, seed and machine. It runs on one thread, but for what is
    computed by numpy (HFT, item codes, text vectors' principal components), whose last digits depend on its threads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    """Its name for `--ranker`, and the name of its score vector."""

    reads: ClassVar[frozenset[str]] = frozenset()
    """Options of an evaluation that it reads, beside the training seed (`evaluate.ranker_choice.OptionsRead`)."""

    fit_version: ClassVar[int] = 1
    """Raised when code changes what the same settings are fitted to, so that kept fits of older code are not used."""

    @classmethod
    @abstractmethod
    def grid(cls) -> tuple[Self, ...]:
        """Settings to try when tuning, the default first."""

    @abstractmethod
    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> Ranker:
        """Fit to training data.

        Args:
            seed: From 0 to `LARGEST_SEED`; decides initial values, sampling and order.
            fitting: Where the fit is kept, by those that take long.

        Raises:
            MissingExtraError: if its library is not installed.
        """

    @property
    def reads_traits(self) -> bool:
        """Whether a fit reads the stored traits of items (`TrainingData.traits`)."""
        return False

    def part_versions(self) -> tuple[int, ...]:
        """Versions of the fits that this one is made of, always in the same order."""
        return ()

    @property
    def fit_versions(self) -> list[int]:
        """Its own `fit_version`, and those of its parts, which older folders' names lack: left out while all are 1."""
        parts = self.part_versions()
        return [self.fit_version, *(parts if set(parts) - {1} else ())]

    def environment(self) -> dict[str, str]:
        """What decides a fit besides settings, seed and training data, such as the device; for manifests.

        Empty for a baseline that is fitted alike everywhere.
        """
        return {}

    def hardware(self) -> dict[str, str]:
        """Device of a fit, and number format where it has one of its own."""
        found = self.environment()
        return {"device": "cpu"} | {name: found[name] for name in ("device", "dtype") if name in found}

    def configuration(self, seed: int, schema: MotivationSchema) -> dict[str, Any]:
        """What decides its rankings besides the data and the stored traits that it reads, for the run's manifest.

        Args:
            schema: Of `TrainingData.motivations`; recorded by those that read leanings.
        """
        found = self.environment()
        own = {"seed": seed, "settings": self.model_dump(mode="json"), "fit_versions": self.fit_versions}
        return own | ({"environment": found} if found else {})

    def fit_folder(self, training: TrainingData, seed: int, fitting: Fitting) -> Path | None:
        """The folder of this fit, None if fits are not kept.

        Its name holds a hash of versions, settings, seed and training data, so that another protocol or run finds the
        same fit.
        """
        if fitting.root is None:
            return None
        found = self.environment()
        own = [*self.fit_versions, self.model_dump(mode="json"), seed, training.sha256, found]
        decides = json.dumps(own, sort_keys=True)
        return fitting.root / f"{self.name}-{hashlib.sha256(decides.encode()).hexdigest()[:16]}"


def unknown_below(scores: ArrayLike, indices: Sequence[int], n: int) -> NDArray[np.float64]:
    """Scores of n candidates of which a model can score only some: the others tie below all of these.

    Every baseline that cannot score cold items follows this rule.

    Args:
        scores: m finite scores.
        indices: Their m indices among the candidates, from 0 to n - 1.

    >>> unknown_below([0.5, -2.0], [2, 0], 4).tolist()
    [-2.0, -3.0, 0.5, -3.0]
    """
    known = np.asarray(scores, dtype=float)
    out = np.full(n, known.min() - 1.0 if known.size else 0.0)
    out[list(indices)] = known
    return out


def rank_by_rows(
    case: Case, rows: Mapping[str, int], scores_of: Callable[[NDArray[np.int64]], ArrayLike], name: str
) -> Ranking:
    """The ranking of a model that scores items by their rows; candidates without a row tie below, see `unknown_below`.

    Args:
        rows: Row by item id.
        scores_of: Gives the scores of m rows, shape (m,).
        name: Name of the score vector.
    """
    known = {index: rows[item] for index, item in enumerate(case.candidates) if item in rows}
    found = scores_of(np.fromiter(known.values(), dtype=np.int64))
    scores = unknown_below(found, list(known), len(case.candidates))
    return ranking_from_scores(case, {name: scores.tolist()}, by=name)
