"""Recommendations for one user, with reasons, profile, warnings and usage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from programs.copies import Examples, one_reason, repeated_motivations, repeated_traits, repeats
from programs.explain import reason_warnings
from programs.mope import HISTORY_ITEMS
from signatures.rows import Case, Ranking, Status, Usage
from signatures.types import Item, Profile, Rationale, Traits, with_items


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        score: The fused score; only scores of the same list are comparable.
        prior_rank, mar_rank: Rank among the candidates by the prior alone and by MAR alone, 1 is best; None without
            scores.
        traits: Trait phrases from MOTE.
        reason: Why the item was recommended; empty if no reason was requested.
        reason_checked: Whether the judge found the reason faithful to profile and traits.
        warning: Traits or a reason copied from a demo in the prompt, or a reason that another item also has.
    """

    item_id: str
    title: str
    score: float
    traits: tuple[str, ...] = ()
    reason: str = ""
    reason_checked: bool = False
    warning: str = ""
    prior_rank: int | None = None
    mar_rank: int | None = None


@dataclass(frozen=True)
class Recommendations:
    """The items for one user, best first.

    Attributes:
        user: User id, or `you` for a given history.
        profile: The profile from MOPE; None without MOPE.
        evidence: For each motivation of the profile, the titles of the purchases it is based on.
        history: Titles of the purchases that the profile was made from, oldest first. The evidence of a motivation
            counts them from 1.
        filtered: Reasons that failed the check; their items moved down.
        usage: Calls, tokens and dollars.
        status: `ok`, or `unparsable` if no answer could be read and the prior alone ranked the items.
        error: What went wrong, or None.
        warnings: Sentences about copied motivations or traits, and about equal ratings or reasons.
    """

    user: str
    items: tuple[Recommendation, ...]
    profile: Profile | None
    evidence: tuple[tuple[str, ...], ...]
    filtered: tuple[Rationale, ...]
    usage: Usage
    status: Status
    error: str | None = None
    warnings: tuple[str, ...] = ()
    history: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Recommendation:
        return self.items[index]

    def to_frame(self) -> pd.DataFrame:
        """One row per item: rank, item_id, and the attributes of `Recommendation`."""
        rows = [{"rank": rank} | vars(item) for rank, item in enumerate(self.items, start=1)]
        return pd.DataFrame(rows).set_index("rank")


def recommendations(
    ranking: Ranking, case: Case, items: Mapping[str, Item], k: int, examples: Examples
) -> Recommendations:
    """The first k items of a ranking as `Recommendations`.

    Args:
        items: The catalogue and the items of the history, by id.
        examples: Demos in the prompts that the ranking was made with.
    """
    traits = {found.item_id: found for found in ranking.traits}
    reasons = {reason.item_id: reason for reason in ranking.rationales}
    suspicious = reason_warnings(ranking.rationales, examples.reasons)
    scores = dict(zip(case.candidates, ranking.scores.get("fused", ()), strict=False))
    by_prior, by_mar = (_places(case, ranking.scores.get(name, ())) for name in ("prior", "mar"))
    if ranking.status is not Status.OK:
        by_mar = {}
    chosen = []
    for item_id in ranking.order[:k]:
        reason = reasons.get(item_id)
        own = traits.get(item_id, Traits(item_id=item_id))
        copied = repeated_traits([own], examples).most
        warnings = ["traits copied from a demo in the prompt"] * copied + [suspicious.get(item_id, "")]
        chosen.append(
            Recommendation(
                item_id=item_id,
                title=items[item_id].title or items[item_id].keywords or item_id,
                score=scores.get(item_id, float("nan")),
                traits=own.all_phrases,
                reason=reason.text if reason else "",
                reason_checked=reason is not None and reason.verdict.faithful,
                warning="; ".join(filter(None, warnings)),
                prior_rank=by_prior.get(item_id),
                mar_rank=by_mar.get(item_id),
            )
        )
    shown = [item.title for item, _ in with_items(case.history, items)][-HISTORY_ITEMS:]
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
        warnings=tuple(_warnings(ranking.profile, chosen, examples)),
        history=tuple(shown),
    )


def _places(case: Case, scores: Sequence[float]) -> dict[str, int]:
    return {
        item_id: 1 + sum(other > score for other in scores)
        for item_id, score in zip(case.candidates, scores, strict=False)
    }


def _warnings(profile: Profile | None, chosen: Sequence[Recommendation], examples: Examples) -> Iterator[str]:
    motivations = repeated_motivations([profile] if profile else [], examples)
    if motivations.repeated:
        yield f"{motivations} motivations repeat the demos in MOPE's prompt" + (
            ": the profile says nothing about this user" if motivations.most else ""
        )
    traits = repeated_traits([Traits(item_id=item.item_id, phrases=item.traits) for item in chosen], examples)
    if traits.repeated:
        yield f"{traits} traits repeat the demos in MOTE's prompt" + (
            ": they say nothing about these items" if traits.most else ""
        )
    if len(chosen) > 1 and all(item.mar_rank == 1 for item in chosen):
        yield "MAR rates these items equally, so their order is the prior's"
    reasons = [item.reason for item in chosen if item.reason]
    if one_reason(reasons):
        source = ", copied from a demo in the prompt" if repeats(reasons[0], examples.reasons) else ""
        yield f"all {len(reasons)} items have the same reason{source}: it does not explain them"
