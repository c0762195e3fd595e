"""The motivational schema M: the closed list of dimensions a motivation may belong to (paper, section 3.1.1)."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Dimension(BaseModel):
    """One dimension of a motivational schema.

    Attributes:
        name: Lower-case identifier, unique in its schema.
        definition: One line that explains to readers, and to the model, what belongs here.
        kind: Kind of motive (paper, section 3.1.3).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    definition: str = Field(min_length=1, max_length=160)
    kind: Literal["functional", "emotional", "ethical"]

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        if not re.fullmatch(r"[a-z][a-z_]{1,39}", self.name):
            raise ValueError(f"dimension name {self.name!r:.60}: use 2 to 40 lower-case letters and underscores")
        if "\n" in self.definition:
            raise ValueError(f"dimension {self.name!r:.60}: the definition must be one line")
        return self


class MotivationSchema(BaseModel):
    """A named, ordered set of at least two dimensions; every motivation has one of them.

    Raises:
        pydantic.ValidationError: on duplicate or malformed dimension names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dimensions: tuple[Dimension, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        twice = sorted(name for name, times in Counter(self.names).items() if times > 1)
        if twice:
            raise ValueError(f"schema {self.name!r:.60}: dimension defined twice: {', '.join(twice)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Dimension names in the schema's order."""
        return tuple(d.name for d in self.dimensions)

    def glossary(self) -> str:
        """One line per dimension, `name: definition`, as it stands in a prompt."""
        return "\n".join(f"- {d.name}: {d.definition}" for d in self.dimensions)


def _dimension(name: str, kind: Literal["functional", "emotional", "ethical"], definition: str) -> Dimension:
    return Dimension(name=name, kind=kind, definition=definition)


CONSUMER = MotivationSchema(
    name="consumer",
    dimensions=(
        _dimension("functionality", "functional", "wants a job done well: performance, features, fitness for a task"),
        _dimension("convenience", "functional", "wants to save time or effort: easy to use, carry, clean or set up"),
        _dimension("durability", "functional", "wants things that last and need no early replacement"),
        _dimension("value", "functional", "wants much for the money: thrift, bundles, sensible spending"),
        _dimension("wellbeing", "functional", "wants health, safety, comfort or care of the body"),
        _dimension("learning", "functional", "wants to grow a skill, knowledge or a child's development"),
        _dimension("aesthetics", "emotional", "wants beauty, style, scent, or a certain look"),
        _dimension("enjoyment", "emotional", "wants fun, play, relaxation or sensory pleasure"),
        _dimension("belonging", "emotional", "buys for others or to be with others: gifts, family, friends, fans"),
        _dimension("identity", "emotional", "wants to express who they are: status, fandom, collecting, craft pride"),
        _dimension("sustainability", "ethical", "cares for environment, animals or fair making"),
    ),
)
"""The default schema: eleven functional, emotional and ethical motives of consumer goods."""
