"""Motivations from a sentence encoder: MOPE, MOTE and MAR without a language model, the row every model has to beat.

The text of an item is compared with a prototype of each of the schema's dimensions, which is its definition unless the
program was compiled (`programs.prototypes`). What remains, after the mean and
spread over the catalogue are removed, says which motivations the item answers more than other items do.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property

import dspy
import numpy as np
from numpy.typing import NDArray

from programs.mar import Alignments, Candidate, UserView
from programs.mope import DESCRIPTION_CHARACTERS, HISTORY_ITEMS, Purchase, as_purchases
from programs.prior.encoders import Encoder
from programs.prototypes import Directions, Prototypes, directions
from programs.runtime.greenlets import off_loop
from programs.runtime.nocopy import NoCopy
from signatures.schema import MotivationSchema
from signatures.types import Alignment, Item, Motivation, Profile, Strength, Traits

LEANING_ITEMS = 20
"""Number of last items of a history that count, as in the prior."""

SHOWN_MOTIVATIONS, SHOWN_TRAITS = 3, 2

Leanings = NDArray[np.float64]
"""How much more than other items an item answers each dimension of the schema, a unit vector of shape (dimensions,)."""


class MotivationEncoder:
    """Leanings of items: standard scores over the catalogue of the cosines with the prototype of each dimension.

    Args:
        encoder: Sentence encoder.
        schema: The dimensions.
        catalogue: Items by id; those with a text give mean and spread.
        prototypes: Of a compiled program; None: the definitions of the schema.

    Raises:
        InputError: if the prototypes are not those of the schema's dimensions.
    """

    def __init__(
        self,
        encoder: Encoder,
        schema: MotivationSchema,
        catalogue: Mapping[str, Item],
        prototypes: Prototypes | None = None,
    ) -> None:
        self.encoder = encoder
        self.schema = schema
        self.catalogue = catalogue
        self.prototypes = prototypes or Prototypes.of_definitions(schema)
        self.prototypes.require(schema)
        self._first = threading.Lock()

    @cached_property
    def _directions(self) -> Directions:
        return directions(self.prototypes, self.encoder)

    @cached_property
    def _known(self) -> tuple[dict[str, Leanings], Leanings, Leanings]:
        """Leanings by text of the catalogue, and mean and spread of the cosines over it."""
        texts = texts_of(self.catalogue)
        if not texts:
            nothing = np.zeros(len(self.schema.dimensions))
            return {}, nothing, nothing + 1
        cosines = (self.encoder.encode(texts) @ self._directions.T).astype(float)
        mean, spread = mean_and_spread(cosines)
        return dict(zip(texts, self._leanings((cosines - mean) / spread), strict=True)), mean, spread

    def _leanings(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return leanings_of(scores, self.prototypes.weights, self.prototypes.temperature)

    def of(self, item: Item) -> Leanings:
        """The leanings of an item, in the catalogue or not; zeros without a text."""
        if "_known" not in self.__dict__:
            off_loop(self._embed_catalogue)
        known, mean, _ = self._known
        if not item.text:
            return np.zeros(len(mean))
        # Not kept: a service would remember every text that its callers send.
        return known[item.text] if item.text in known else off_loop(self._of_text, item.text)

    def _embed_catalogue(self) -> None:
        with self._first:  # once for all threads
            _ = self._known

    def _of_text(self, text: str) -> Leanings:
        _, mean, spread = self._known
        cosines = (self.encoder.encode([text]) @ self._directions.T).astype(float)
        own: Leanings = self._leanings((cosines - mean) / spread)[0]
        return own


def texts_of(catalogue: Mapping[str, Item]) -> list[str]:
    """The distinct texts of a catalogue, over which mean and spread are taken."""
    return list(dict.fromkeys(item.text for item in catalogue.values() if item.text))


def mean_and_spread(cosines: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column; 1 in place of a deviation of 0."""
    spread = cosines.std(axis=0)
    return cosines.mean(axis=0), np.where(spread > 0, spread, 1.0)


def leanings_of(
    scores: NDArray[np.float64], weights: NDArray[np.float64], temperature: float | None = None
) -> NDArray[np.float64]:
    """Leanings from standard scores, both of shape (items, dimensions); dimensions of weight 0 are 0.

    Args:
        weights: Shape (dimensions,).
        temperature: See `Prototypes`; what an even distribution would give is subtracted from the softmax.
    """
    weighed = scores * weights
    if temperature is not None:
        counted = weights > 0
        powers = np.exp((weighed - weighed.max(axis=1, keepdims=True)) / temperature) * counted
        weighed = (powers / powers.sum(axis=1, keepdims=True) - 1 / counted.sum()) * counted
    return _unit(weighed)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


class EncoderProfile(dspy.Module):
    """User view without a language model: the mean leanings of the last `LEANING_ITEMS` items."""

    def __init__(self, motivations: MotivationEncoder) -> None:
        super().__init__()
        self.motivations = NoCopy(motivations)

    def forward(
        self,
        history: Sequence[Purchase | Item | str],
        metadata: Mapping[str, str] | None = None,
        rollout: int | None = None,
    ) -> dspy.Prediction:
        """Like `MOPE.forward`, with `leanings` besides.

        The profile has the strongest dimensions that are above the average of the catalogue, described by their
        definitions; the evidence are the purchases that are above it, too.
        """
        own = np.array([self.motivations.value.of(item) for item, _ in as_purchases(history)][-LEANING_ITEMS:])
        dimensions = self.motivations.value.schema.dimensions
        leanings = own.mean(axis=0) if len(own) else np.zeros(len(dimensions))
        shown = own[-HISTORY_ITEMS:]
        strengths: tuple[Strength, ...] = ("strong", "moderate", "weak")
        found = [int(index) for index in np.argsort(-leanings, kind="stable") if leanings[index] > 0]
        found = [index for index in found if len(shown) and shown[:, index].max() > 0]
        profile = Profile(
            motivations=tuple(
                Motivation(
                    dimension=dimensions[index].name,
                    description=dimensions[index].definition[:DESCRIPTION_CHARACTERS].strip(),
                    strength=strength,
                    evidence=tuple(int(place) + 1 for place in np.flatnonzero(shown[:, index] > 0)),
                )
                for index, strength in zip(found, strengths[:SHOWN_MOTIVATIONS], strict=False)
            )
        )
        return dspy.Prediction(profile=profile, text=profile.render(), unparsable=0, leanings=tuple(leanings.tolist()))


class EncoderTraits(dspy.Module):
    """Item view without a language model: its leanings, and the names of the strongest dimensions as traits."""

    def __init__(self, motivations: MotivationEncoder) -> None:
        super().__init__()
        self.motivations = NoCopy(motivations)

    def forward(self, item: Item) -> dspy.Prediction:
        """Like `MOTE.forward`, with `leanings` besides."""
        leanings = self.motivations.value.of(item)
        names = self.motivations.value.schema.names
        strongest = [int(index) for index in np.argsort(-leanings, kind="stable")[:SHOWN_TRAITS] if leanings[index] > 0]
        traits = Traits(item_id=item.item_id, phrases=tuple(names[index] for index in strongest))
        return dspy.Prediction(traits=traits, text=traits.render(), unparsable=0, leanings=tuple(leanings.tolist()))


class LeaningsMatch(dspy.Module):
    """Aligner without a language model: the dot product of the leanings of user and item."""

    def forward(self, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """See `Aligner`; every candidate has a score."""
        own = np.array(user.leanings)
        return Alignments(
            alignments=[
                Alignment(item_id=one.item_id, score=float(own @ np.array(one.leanings)), source="cosine")
                for one in candidates
            ]
        )
