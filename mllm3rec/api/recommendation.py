"""Recommendations: what a program chose for one user, why, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from programs.explain import reason_warnings
from programs.mope import HISTORY_ITEMS
from signatures.rows import Case, Ranking, Status, Usage
from signatures.types import Item, Profile, Rationale


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        score: The fused score; comparable within one list only.
        traits: What MOTE says of the item.
        reason: Why it was chosen, empty where none was asked for.
        reason_checked: Whether the judge found the reason faithful to profile and traits.
        warning: What is suspicious about the reason: repeated for another item, or copied from the prompt.
    """

    item_id: str
    title: str
    score: float
    traits: tuple[str, ...] = ()
    reason: str = ""
    reason_checked: bool = False
    warning: str = ""


@dataclass(frozen=True)
class Recommendations:
    """The items for one user, best first.

    Attributes:
        user: User id; `you` for a history that was given.
        items: The recommended items.
        profile: What MOPE found, with the evidence each motivation rests on; None without MOPE.
        evidence: Titles of the purchases that each motivation of the profile rests on.
        filtered: Reasons that failed their check; their items moved down.
        usage: What the calls took.
        status: `ok`, or `unparsable` where no answer could be read and the prior decided alone.
        error: What went wrong, or None.
    """

    user: str
    items: tuple[Recommendation, ...]
    profile: Profile | None
    evidence: tuple[tuple[str, ...], ...]
    filtered: tuple[Rationale, ...]
    usage: Usage
    status: Status
    error: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Recommendation:
        return self.items[index]

    def to_frame(self) -> pd.DataFrame:
        """One row per item: rank, item_id, title, score, traits, reason, reason_checked, warning."""
        rows = [{"rank": rank} | vars(item) for rank, item in enumerate(self.items, start=1)]
        return pd.DataFrame(rows).set_index("rank")


def recommendations(ranking: Ranking, case: Case, items: Mapping[str, Item], k: int) -> Recommendations:
    """The first k items of a ranking, with what is known of them.

    Args:
        items: Catalogue, items of the history included.
    """
    traits = {found.item_id: found.phrases for found in ranking.traits}
    reasons = {reason.item_id: reason for reason in ranking.rationales}
    warnings = reason_warnings(ranking.rationales)
    scores = dict(zip(case.candidates, ranking.scores.get("fused", ()), strict=False))
    chosen = []
    for item_id in ranking.order[:k]:
        reason = reasons.get(item_id)
        chosen.append(
            Recommendation(
                item_id=item_id,
                title=items[item_id].title or items[item_id].keywords or item_id,
                score=scores.get(item_id, float("nan")),
                traits=traits.get(item_id, ()),
                reason=reason.text if reason else "",
                reason_checked=reason is not None and reason.verdict.faithful,
                warning=warnings.get(item_id, ""),
            )
        )
    shown = [items[event.item_id].title for event in case.history if event.item_id in items][-HISTORY_ITEMS:]
    motivations = ranking.profile.motivations if ranking.profile else ()
    return Recommendations(
        user=case.user_id,
        items=tuple(chosen),
        profile=ranking.profile,
        evidence=tuple(tuple(shown[n - 1] for n in motivation.evidence) for motivation in motivations),
        filtered=tuple(reason for reason in ranking.rationales if not reason.verdict.faithful),
        usage=ranking.usage,
        status=ranking.status,
        error=ranking.error,
    )
