"""Prototypes of the dimensions of a motivational schema: what an item is compared with, by a sentence encoder.

A prototype is the mean vector of some texts (a definition, titles of items that stand for the dimension), or a vector
that was learned. They are to the program `encoder` what prompts are to the others: what a compile tunes.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from programs.prior.encoders import Encoder, normalised
from programs.runtime.errors import InputError
from signatures.schema import MotivationSchema

Directions = NDArray[np.float32]
"""What items are compared with, one row for each dimension, shape (dimensions, length of a vector)."""


LONGEST_TEXT = 500
"""Characters of one text of a prototype."""


class Prototype(BaseModel):
    """What one dimension is recognised by.

    Attributes:
        dimension: Its name in the schema.
        label: How it was made, for tables: `definition`, `examples-10`, `learned`, ...
        texts: Texts whose mean vector it is; empty for a learned one.
        vector: The learned vector; empty for one of texts.
        weight: How much the dimension counts; 0 leaves it out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dimension: str
    label: str = Field(max_length=40)
    texts: tuple[Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)], ...] = Field(default=(), max_length=1000)
    vector: tuple[float, ...] = Field(default=(), max_length=10_000)
    weight: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.texts) == bool(self.vector):
            raise ValueError(f"prototype of {self.dimension!r:.60}: give texts, or a learned vector")
        return self


class Prototypes(BaseModel):
    """A prototype for each dimension of a schema.

    Attributes:
        prototypes: In the schema's order.
        temperature: Of a softmax over an item's dimensions: a low one leaves the strongest dimension only. None: none.
        encoder: Name of the encoder that vectors were learned for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prototypes: tuple[Prototype, ...] = Field(min_length=2, max_length=1000)
    temperature: float | None = Field(default=None, gt=0)
    encoder: str = ""

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not any(one.weight > 0 for one in self.prototypes):
            raise ValueError("one of the prototypes needs a weight above 0")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        lengths = sorted({len(one.vector) for one in self.prototypes if one.vector})
        if len(lengths) > 1:
            raise ValueError(f"learned vectors must have one length, but there are {lengths[0]} and {lengths[-1]}")
        return self

    @classmethod
    def of_definitions(cls, schema: MotivationSchema) -> Self:
        """The schema's own text, `name: definition`: those of the program that was not compiled."""
        return cls(
            prototypes=tuple(
                Prototype(dimension=one.name, label="definition", texts=(f"{one.name}: {one.definition}",))
                for one in schema.dimensions
            )
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each dimension, shape (dimensions,)."""
        return np.array([one.weight for one in self.prototypes])

    def described(self) -> dict[str, str]:
        """How each dimension is recognised, in words, by its name."""
        kinds = {
            one.dimension: f"{one.label}, weight {one.weight:.3g}" if one.weight else "left out"
            for one in self.prototypes
        }
        return kinds | ({} if self.temperature is None else {"temperature": f"{self.temperature:g}"})

    def require(self, schema: MotivationSchema) -> None:
        """Check that they are those of a schema.

        Raises:
            InputError: if the dimensions differ.
        """
        own = tuple(one.dimension for one in self.prototypes)
        if own != schema.names:
            raise InputError(f"prototypes of {', '.join(own)[:200]} do not fit the schema {schema.name!r:.60}")


def directions(prototypes: Prototypes, encoder: Encoder) -> Directions:
    """The vectors to compare items with; all texts are encoded at once.

    Raises:
        InputError: if a vector was learned for another encoder, or has not the length of its vectors.
    """
    texts = [text for one in prototypes.prototypes for text in one.texts]
    # Without a text, one is encoded for the length of a vector.
    encoded = encoder.encode(texts or [prototypes.prototypes[0].dimension])
    ends = list(accumulate(len(one.texts) for one in prototypes.prototypes))
    rows = []
    for one, end in zip(prototypes.prototypes, ends, strict=True):
        if one.vector:
            if prototypes.encoder != encoder.name:
                raise InputError(
                    f"prototypes were learned for the encoder {prototypes.encoder!r:.80}, not for "
                    f"{encoder.name!r:.80}: choose that one with --encoder, or compile again"
                )
            if len(one.vector) != encoded.shape[1]:
                raise InputError(
                    f"the learned prototype of {one.dimension!r:.60} has {len(one.vector)} numbers, but the encoder "
                    f"{encoder.name!r:.80} makes {encoded.shape[1]}: compile again"
                )
            rows.append(np.array(one.vector, dtype=np.float32))
        elif len(one.texts) == 1:
            rows.append(encoded[end - 1])
        else:
            mean = encoded[end - len(one.texts) : end].mean(axis=0, keepdims=True)
            rows.append(normalised(mean)[0])
    return np.stack(rows)
