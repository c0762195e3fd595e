"""What flows between the modules, as validated types. Lists, never open dictionaries: see docs/decisions.md."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Strength = Literal["weak", "moderate", "strong"]


class Item(BaseModel):
    """A product as its seller describes it. Every text in it is untrusted input.

    Attributes:
        item_id: Catalogue identifier, unique in a dataset.
        categories: Category paths, root first.
        price: In the catalogue's currency, or None where unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str = Field(min_length=1)
    title: str = ""
    description: str = ""
    categories: tuple[tuple[str, ...], ...] = ()
    brand: str | None = None
    price: float | None = None
    keywords: str | None = None

    @classmethod
    def from_text(cls, text: str) -> Item:
        """An item known by a free text alone, which is its id as well."""
        return cls(item_id=text, title=text)

    @property
    def text(self) -> str:
        """t_i of eq. 2: title, most specific category path, brand, price and description, one line each where known."""
        deepest: tuple[str, ...] = max(self.categories, key=len, default=())
        facts = [self.title or self.keywords or "", " > ".join(deepest)]
        if self.brand:
            facts.append(f"Brand: {self.brand}")
        if self.price is not None:
            facts.append(f"Price: {self.price:.2f}")
        facts.append(self.description)
        return "\n".join(f for f in facts if f)


class Interaction(BaseModel):
    """(i_j, r_j) of eq. 1: an item and the signal left on it.

    Attributes:
        rating: 1 to 5 where the data has ratings, else None.
        timestamp: Unix seconds, or None where unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    rating: float | None = None
    timestamp: int | None = None


class Motivation(BaseModel):
    """One f_i : d_i of eq. 4, with the purchases it rests on.

    Attributes:
        dimension: A name of the motivational schema.
        description: What the shopper wants, in a short phrase that transfers to other products.
        strength: How much of the history speaks for it.
        evidence: 1-based positions in the history shown to the model; never empty in a validated profile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: str
    description: str
    strength: Strength
    evidence: tuple[int, ...]


class Profile(BaseModel):
    """m_u of eq. 3 and 6: the motivations of one shopper, strongest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    motivations: tuple[Motivation, ...] = ()

    def render(self) -> str:
        """One line per motivation, as MAR reads it. Without evidence: MAR must not see the history."""
        return "\n".join(f"- {m.dimension} ({m.strength}): {m.description}" for m in self.motivations)


class Traits(BaseModel):
    """T_i of eq. 7: the validated traits of one item.

    Attributes:
        dropped: Phrases the model wrote and validation refused, each as `reason: phrase`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    phrases: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def render(self) -> str:
        """The phrases on one line, as MAR reads them."""
        return "; ".join(self.phrases)


class Alignment(BaseModel):
    """Score(u, i) of eq. 8 for one candidate.

    Attributes:
        score: Higher is better; comparable within one shopper and one `source` only.
        source: `logprobs` (expected rating over the rating tokens), `integer` (the rating as written),
            `rank` (place in a list) or `cosine`.
        mass: Probability the rating tokens held together (0 to 1); None unless `source` is `logprobs`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    score: float
    source: Literal["logprobs", "integer", "rank", "cosine"]
    mass: float | None = None


class Verdict(BaseModel):
    """What the re-check of a rationale said (paper, section 3.3.3)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    faithful: bool
    why: str = ""


class Rationale(BaseModel):
    """Why an item was chosen, and whether the reason survived its re-check.

    Attributes:
        unparsable: Answers of the explainer and the judge that could not be parsed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    text: str
    verdict: Verdict
    unparsable: int = 0
