"""Validated data types shared by all modules: items, interactions, profiles, traits, alignments, rationales.

Model outputs are lists, never open dictionaries: see docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Strength = Literal["weak", "moderate", "strong"]

LIKED_ABOVE = 3.0
"""A rating has to be above this to count as liked (paper, section 4.1)."""

REFUSED_BY_PROVIDER = "refused by the provider"
"""Reason in `Traits.dropped`."""


class Item(BaseModel):
    """An item of the catalogue, described by its seller. Every text in it is untrusted input.

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
    def category(self) -> tuple[str, ...]:
        """The most specific category path, root first; empty where there is none."""
        return max(self.categories, key=len, default=())

    @property
    def display_title(self) -> str:
        """The title, or the keywords where there is none; empty where both are missing."""
        return self.title or self.keywords or ""

    @property
    def text(self) -> str:
        """t_i of eq. 2: title, most specific category path, brand, price and description, one line each where known."""
        facts = [self.display_title, " > ".join(self.category)]
        if self.brand:
            facts.append(f"Brand: {self.brand}")
        if self.price is not None:
            facts.append(f"Price: {self.price:.2f}")
        facts.append(self.description)
        return "\n".join(f for f in facts if f)


class Interaction(BaseModel):
    """(i_j, r_j) of eq. 1: an item and the signal left on it.

    Attributes:
        rating: 0 to 5 where the data has ratings, else None.
        timestamp: Unix seconds, or None where unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    rating: float | None = None
    timestamp: int | None = None

    @property
    def liked(self) -> bool:
        """Whether it counts as liked: so does one without a rating."""
        return self.rating is None or self.rating > LIKED_ABOVE


def with_items(events: Iterable[Interaction], items: Mapping[str, Item]) -> list[tuple[Item, Interaction]]:
    """Interactions with their items, in the same order; those with items that are not in the catalogue are left out."""
    return [(items[event.item_id], event) for event in events if event.item_id in items]


class Motivation(BaseModel):
    """One f_i : d_i of eq. 4, with the purchases it rests on.

    Attributes:
        dimension: A name of the motivational schema.
        description: What the user wants, in a short phrase that would also fit other items.
        strength: How much of the history supports it.
        evidence: 1-based positions in the history shown to the model; never empty in a validated profile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: str
    description: str
    strength: Strength
    evidence: tuple[int, ...]


class Need(BaseModel):
    """A kind of thing that the motivations of a user lead to next; beyond the paper, for the programs `needs`.

    Attributes:
        phrase: A kind of thing, in a few words, never a product.
        evidence: As of `Motivation`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phrase: str
    evidence: tuple[int, ...]


class Profile(BaseModel):
    """m_u of eq. 3 and 6: the motivations of one user, strongest first.

    Attributes:
        needs: What the user may want next, most likely first; empty in the paper's own form.
        dropped: What the model wrote and validation refused as an order, each as `reason: description`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    motivations: tuple[Motivation, ...] = ()
    needs: tuple[Need, ...] = Field(default=(), exclude_if=lambda needs: not needs)
    dropped: tuple[str, ...] = Field(default=(), exclude_if=lambda dropped: not dropped)

    @property
    def phrases(self) -> tuple[str, ...]:
        """The descriptions of the motivations, then the needs."""
        return (*(m.description for m in self.motivations), *(need.phrase for need in self.needs))

    def render(self) -> str:
        """One line per motivation and need, as MAR reads it. Without evidence: MAR must not see the history."""
        lines = [f"- {m.dimension} ({m.strength}): {m.description}" for m in self.motivations]
        return "\n".join([*lines, *(f"- may want next: {need.phrase}" for need in self.needs)])


class Traits(BaseModel):
    """T_i of eq. 7: the validated traits of one item.

    Attributes:
        occasions, users: When it is used, and by whom; empty in the paper's own form.
        dropped: Phrases the model wrote and validation refused, each as `reason: phrase`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    phrases: tuple[str, ...] = ()
    occasions: tuple[str, ...] = Field(default=(), exclude_if=lambda phrases: not phrases)
    users: tuple[str, ...] = Field(default=(), exclude_if=lambda phrases: not phrases)
    dropped: tuple[str, ...] = ()

    @property
    def all_phrases(self) -> tuple[str, ...]:
        """The traits, then occasions and users."""
        return (*self.phrases, *self.occasions, *self.users)

    @property
    def refused_by_provider(self) -> bool:
        """Whether the provider refused the item's text, so that there are no phrases."""
        return any(reason.startswith(REFUSED_BY_PROVIDER) for reason in self.dropped)

    def render(self) -> str:
        """The phrases on one line, as MAR reads them."""
        parts = [*self.phrases]
        parts += [f"for {', '.join(self.users)}"] if self.users else []
        parts += [f"when: {', '.join(self.occasions)}"] if self.occasions else []
        return "; ".join(parts)


class Alignment(BaseModel):
    """Score(u, i) of eq. 8 for one candidate.

    Attributes:
        score: Higher is better; comparable within one user and one `source` only.
        source: `logprobs` (expected rating over the rating tokens, or log-probability of a label), `integer` (the
            rating as written), `rank` (from the rank in a list), `label` (1 for the label as written), `cosine`,
            `relevance` (as a reranker gave it), `likelihood` (log-probability of the traits, less that for nobody), or
            `tuned` (logit of yes less logit of no).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    score: float
    source: Literal["logprobs", "integer", "rank", "label", "cosine", "relevance", "likelihood", "tuned"]


class Verdict(BaseModel):
    """Result of the faithfulness check of a rationale (paper, section 3.3.3)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    faithful: bool
    why: str = ""


class Rationale(BaseModel):
    """Why an item is recommended, and whether the judge found the reason faithful.

    Attributes:
        unparsable: Answers of the explainer and the judge that could not be parsed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    text: str
    verdict: Verdict
    unparsable: int = 0
