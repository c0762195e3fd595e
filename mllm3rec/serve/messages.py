"""Request and answer schemas of the service, as pydantic models; the OpenAPI page is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

MOST_PURCHASES = 200
"""Longest history of a request; programs read the newest ten, the prior the newest twenty."""

ItemId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
FreeText = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]

AnsweredBy = Literal["program", "prior"]
Why = Literal[
    "deadline", "budget", "busy", "backend", "unparsable", "refused", "error", "unknown", "none_left", "prior"
]
"""Why the prior answered: the deadline passed; the dollars of a minute or a day are spent; too many users are asked
about at the time; a model's server fails; its answers could not be read; it refuses this text; a fault of the service;
nothing of the history is known; the user has all items, so the list is empty; or the service was started with the prior
alone."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class HistoryEntry(_Strict):
    """One purchase: the id of an item of the catalogue, or a free text.

    Attributes:
        rating: 0 to 5, where known.
        timestamp: Unix seconds, where known.
    """

    item: ItemId | None = None
    text: FreeText | None = None
    rating: float | None = Field(default=None, ge=0, le=5)
    timestamp: int | None = Field(default=None, ge=0, le=2**40)

    @model_validator(mode="after")
    def _one(self) -> HistoryEntry:
        if (self.item is None) == (self.text is None):
            raise ValueError("give either `item` (an id) or `text`")
        return self


def _entry(given: object) -> object:
    return {"item": given} if isinstance(given, str) else given


History = Annotated[list[Annotated[HistoryEntry, BeforeValidator(_entry)]], Field(max_length=MOST_PURCHASES)]
"""Entries, oldest first; a string is the id of an item."""


class _OfUser(_Strict):
    user: ItemId | None = Field(default=None, description="Id of a user of the dataset, in place of `history`.")
    history: History | None = Field(
        default=None, description="Entries, oldest first; a string is the id of an item. May be empty."
    )
    metadata: dict[ItemId, Annotated[str, StringConstraints(max_length=200)]] | None = Field(
        default=None, max_length=20, description="Facts about the user, such as age and region."
    )

    @model_validator(mode="after")
    def _one_source(self) -> _OfUser:
        if (self.user is None) == (self.history is None):
            raise ValueError("give either `user` or `history`")
        return self


class _OfItem(_Strict):
    item: ItemId | None = Field(default=None, description="Id of an item of the catalogue.")
    text: FreeText | None = Field(default=None, description="Free text of an item, in place of its id.")

    @model_validator(mode="after")
    def _one_item(self) -> _OfItem:
        if (self.item is None) == (self.text is None):
            raise ValueError("give either `item` (an id) or `text`")
        return self


class RecommendRequest(_OfUser):
    """Whom to recommend to, and how many items."""

    k: int = Field(default=5, ge=1, le=90, description="Number of items; at most the candidates of the service.")
    explain: bool = Field(default=False, description="Whether each item gets a reason, checked by the judge.")


class ProfileRequest(_OfUser):
    """Whose profile to make."""


class TraitsRequest(_OfItem):
    """Which item's traits to make."""


class ExplainRequest(_OfUser, _OfItem):
    """Which item to explain, and to whom."""


class ServedBy(BaseModel):
    """What made an answer; part of every answer.

    Attributes:
        program: Name of the program.
        artifact: SHA-256 of the compiled program, or null.
        versions: Of this package and DSPy.
        seconds: From request to answer.
        usd: What the calls of this answer cost; null where no priced call was made.
        calls, cache_hits: Calls that were sent, and answers that were stored before.
    """

    program: str
    artifact: str | None
    versions: dict[str, str]
    seconds: float = 0.0
    usd: float | None = None
    calls: int = 0
    cache_hits: int = 0


class RecommendedItem(BaseModel):
    """One item of the answer; see `mllm3rec.Recommendation`."""

    item_id: str
    title: str
    score: float | None = None
    prior_rank: int | None = None
    mar_rank: int | None = None
    traits: list[str] = []
    reason: str = ""
    reason_checked: bool = False


class MotivationAnswer(BaseModel):
    """One motivation of a profile, with the titles of the purchases it is based on."""

    dimension: str
    description: str
    strength: str
    evidence: list[str]


class RecommendAnswer(ServedBy):
    """Items, best first.

    Attributes:
        answered_by: `prior` if the program could not answer; `why` then says why.
        unknown_items: Ids of the history that are not in the catalogue; they were left out.
    """

    items: list[RecommendedItem]
    answered_by: AnsweredBy
    why: Why | None = None
    motivations: list[MotivationAnswer] = []
    unknown_items: list[str] = []


class ProfileAnswer(ServedBy):
    """The motivations of a user, strongest first."""

    motivations: list[MotivationAnswer]
    needs: list[str] = []
    unknown_items: list[str] = []


class TraitsAnswer(ServedBy):
    """The traits of an item."""

    item_id: str
    traits: list[str]


class ExplainAnswer(ServedBy):
    """Why an item would be recommended to a user.

    Attributes:
        reason: From traits and motivations alone; empty if none was given.
        reason_checked: Whether the judge found it faithful to them.
    """

    item_id: str
    title: str
    reason: str
    reason_checked: bool
    traits: list[str]
    motivations: list[MotivationAnswer]
    unknown_items: list[str] = []


class Health(BaseModel):
    """State of the service.

    Attributes:
        since: Unix seconds when this program began to answer.
        reload_error: In a word or two why the last new artifact was not taken, or null; the log says more.
    """

    status: Literal["ok"] = "ok"
    program: str
    artifact: str | None
    versions: dict[str, str]
    since: float
    reload_error: str | None = None


class ReloadAnswer(BaseModel):
    """Result of a reload: whether another program answers now."""

    changed: bool
    artifact: str | None


class ProblemAnswer(BaseModel):
    """An error: what was wrong, and what to do."""

    error: str
