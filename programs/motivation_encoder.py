"""Motivations from a sentence encoder: MOPE, MOTE and MAR without a language model, the row every model has to beat.

The text of an item is compared with the definitions of the schema's dimensions. What remains, after the mean and
spread over the catalogue are removed, says which motivations the item answers more than other items do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import dspy
import numpy as np
from numpy.typing import NDArray

from programs.mar import Alignments, Candidate, UserView
from programs.mope import DESCRIPTION_CHARACTERS, HISTORY_ITEMS, Purchase, as_purchases
from programs.prior.encoders import Encoder
from programs.runtime.nocopy import NoCopy
from signatures.schema import MotivationSchema
from signatures.types import Alignment, Item, Motivation, Profile, Strength, Traits

LEANING_ITEMS = 20
"""Number of last items of a history that count, as in the prior."""

SHOWN_MOTIVATIONS, SHOWN_TRAITS = 3, 2

Leanings = NDArray[np.float64]
"""How much more than other items an item answers each dimension of the schema, a unit vector of shape (dimensions,)."""


class MotivationEncoder:
    """Leanings of items: standard scores over the catalogue of the cosines with `name: definition` of each dimension.

    Args:
        encoder: Sentence encoder.
        schema: The dimensions.
        catalogue: Items by id; those with a text give mean and spread.
    """

    def __init__(self, encoder: Encoder, schema: MotivationSchema, catalogue: Mapping[str, Item]) -> None:
        self.encoder = encoder
        self.schema = schema
        self.catalogue = catalogue

    @cached_property
    def _definitions(self) -> NDArray[np.floating]:
        return self.encoder.encode([f"{one.name}: {one.definition}" for one in self.schema.dimensions])

    @cached_property
    def _known(self) -> tuple[dict[str, Leanings], Leanings, Leanings]:
        """Leanings by text, and mean and spread of the cosines over the catalogue."""
        texts = list(dict.fromkeys(item.text for item in self.catalogue.values() if item.text))
        if not texts:
            nothing = np.zeros(len(self.schema.dimensions))
            return {}, nothing, nothing + 1
        cosines = (self.encoder.encode(texts) @ self._definitions.T).astype(float)
        mean, spread = cosines.mean(axis=0), cosines.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        return dict(zip(texts, _unit((cosines - mean) / spread), strict=True)), mean, spread

    def of(self, item: Item) -> Leanings:
        """The leanings of an item, in the catalogue or not; zeros without a text."""
        known, mean, spread = self._known
        if not item.text:
            return np.zeros(len(mean))
        if item.text not in known:
            cosines = (self.encoder.encode([item.text]) @ self._definitions.T).astype(float)
            known[item.text] = _unit((cosines - mean) / spread)[0]
        return known[item.text]


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
