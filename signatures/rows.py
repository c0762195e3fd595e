"""Row schema: `Case` (what a ranker gets) and `Ranking` (what it returns), with usage, cost and status."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator

from signatures.types import Interaction, Profile, Rationale, Traits


class Case(BaseModel):
    """One user to rank for.

    Attributes:
        history: Interactions before the target, oldest first.
        candidates: Item ids in a seeded order; the target's position among them is random.
        target: The held-out item, one of `candidates`; None for a user without one, and in what a ranker is given (see
            `blinded`).
        metadata: z_u of eq. 6 (age, gender, region, ...), possibly empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: str
    history: tuple[Interaction, ...]
    candidates: tuple[str, ...]
    target: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _closed(self) -> Case:
        if len(set(self.candidates)) != len(self.candidates):
            raise ValueError(f"user {self.user_id!r:.200}: a candidate is listed twice")
        if self.target is not None and self.target not in self.candidates:
            raise ValueError(f"user {self.user_id!r:.200}: the target {self.target!r:.200} is not among the candidates")
        return self

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Item ids of the history, oldest first."""
        return tuple(interaction.item_id for interaction in self.history)

    def blinded(self) -> Case:
        """The case without its target: what a ranker is given, so that it cannot read the answer."""
        return self.model_copy(update={"target": None})


class Status(StrEnum):
    """How a case ended. Only `ok` and `unparsable` rows are scored; `failed` leaves the user unresolved."""

    OK = "ok"
    UNPARSABLE = "unparsable"
    FAILED = "failed"


class Usage(BaseModel):
    """What was really sent and paid for; answers from the response cache are counted in `cache_hits` alone.

    Dollars are None where no priced call was made: unknown is not zero.

    Attributes:
        interrupted: Those of `calls` that were in flight when a process was killed: their tokens and dollars are upper
            estimates.
        unpriced: Those of `calls` that were answered, or may have been, at an unknown price; written to no file.
        tokens_in: Tokens of prompts, of which the provider read `tokens_cached` from its cache and billed
            `tokens_written` as written to it.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    calls: int = 0
    interrupted: int = Field(default=0, exclude_if=lambda calls: not calls)
    unpriced: int = Field(default=0, exclude=True)
    cache_hits: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_written: int = Field(default=0, exclude_if=lambda tokens: not tokens)
    usd: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Cost:
    """A sum of dollars of which a part may be unknown: unknown is not zero.

    Attributes:
        known: The sum of what is known; None where nothing is.
        complete: Whether it is the whole sum.

    >>> Cost.of([0.5, None]), Cost.of([0.5, None]).usd, Cost.of([0.5, 0.25]).usd, Cost.of([]).usd
    (Cost(known=0.5, complete=False), None, 0.75, 0.0)
    """

    known: float | None
    complete: bool

    @classmethod
    def of(cls, parts: Iterable[float | None]) -> Cost:
        """Add up dollars, None where unknown."""
        known: float | None = None
        complete = True
        for part in parts:
            known = add_usd(known, part)
            complete = complete and part is not None
        return cls(known, complete)

    @property
    def usd(self) -> float | None:
        """The whole sum, 0 of no parts; None unless all of it is known."""
        return (self.known or 0.0) if self.complete else None


def add_usd(total: float | None, usd: float | None) -> float | None:
    """A running sum of known dollars: unknown ones leave it as it is, and it is None until one is known.

    >>> add_usd(None, 0.5), add_usd(0.5, None), add_usd(0.5, 0.25), add_usd(None, None)
    (0.5, 0.5, 0.75, None)
    """
    return total if usd is None else (total or 0.0) + usd


_SUMMED = (
    "calls", "interrupted", "unpriced", "cache_hits", "tokens_in", "tokens_out", "tokens_cached", "tokens_written",
    "seconds",
)  # fmt: skip


def total_usage(usages: Iterable[Usage]) -> Usage:
    """The sum of usages; dollars are None where none of them has any.

    >>> total_usage([Usage(calls=2, usd=0.5), Usage(calls=1)]).model_dump(include={"calls", "usd"})
    {'calls': 3, 'usd': 0.5}
    """
    total = Usage()
    for usage in usages:
        for name in _SUMMED:
            setattr(total, name, getattr(total, name) + getattr(usage, name))
        total.usd = add_usd(total.usd, usage.usd)
    return total


class Ranking(BaseModel):
    """The result of ranking one case; one row of a run's journal.

    Attributes:
        order: All candidates, best first; a permutation of `Case.candidates` unless `status` is `failed`.
        scores: Score vectors aligned with `Case.candidates`, by component (`prior`, `mar`, `fused`, ...).
            A component can be evaluated from its vector alone, so one run shows prior, MAR and fusion.
        score_source: How MAR's scores were computed (see `Alignment.source`), or None without a model.
        appended: Number of candidates the model left out; they follow in the prior's order.
        dropped: Number of labels the model wrote that name no candidate, or repeat one.
        unparsable: Number of model answers that could not be parsed, retries included.
        by_position: Mean score of MAR by position in the prompt, before calibration (`Alignments.by_position`).
        asked: Whether the models were asked about this user; if not, the prior alone ranks and there is no `mar`.
        victim: In rows of an attack run, the item whose text is edited in this user's list; else None.
    """

    # Infinite scores as JSON constants: written as null they could not be read back.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    user_id: str
    order: tuple[str, ...]
    scores: dict[str, list[float]] = Field(default_factory=dict)
    score_source: str | None = None
    appended: int = 0
    dropped: int = 0
    unparsable: int = 0
    profile: Profile | None = None
    traits: list[Traits] = Field(default_factory=list)
    rationales: list[Rationale] = Field(default_factory=list)
    usage: Usage = Field(default_factory=Usage)
    status: Status = Status.OK
    error: str | None = None
    by_position: list[float] = Field(default_factory=list, exclude_if=lambda means: not means)
    asked: bool = Field(default=True, exclude_if=lambda asked: asked)
    victim: str | None = Field(default=None, exclude_if=lambda victim: victim is None)

    @property
    def scored(self) -> bool:
        """Whether the row counts in metrics; if not, its calls failed and the user is unresolved."""
        return self.status is not Status.FAILED

    @property
    def unread(self) -> bool:
        """Whether an answer about this user could not be read, even if a repeated one could."""
        return bool(self.unparsable) or self.status is Status.UNPARSABLE


def seed_of(*parts: object) -> int:
    """A 64-bit seed that depends on the parts alone: the same on every machine and in every process.

    >>> seed_of("user", 0) == seed_of("user", 0) != seed_of("user", 1)
    True
    """
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
