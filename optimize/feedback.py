"""Feedback of a reflective optimizer: what came of a program for one user, and for a batch of users, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from programs.ranker import order_by_score
from signatures.rows import Case, Ranking, seed_of
from signatures.types import Profile

REFLECTED_USERS = 15
"""Users of one reflection: enough to tell what goes wrong for many from what goes wrong for one."""

FIRST_PLACES = 5
"""Number of first places that the feedback counts: the cutoff of the goal."""
_THIRDS = ("first", "middle", "last")


@dataclass(frozen=True)
class Outcome:
    """What came of a program for one user.

    Attributes:
        size: Number of candidates.
        rank: 1-based rank of the target in the final order.
        mar_rank: 1-based rank of the target by MAR's scores alone.
        place, places: 1-based position of the target in MAR's prompt, and the number of candidates there; None where
            the prompt holds no list, or not the target.
        named: Whether MAR scored the target itself.
        text: The outcome in words.
        quoted: What `text` quotes of profile and traits; an instruction may not copy it.
    """

    size: int
    rank: int
    mar_rank: int
    place: int | None
    places: int | None
    named: bool
    text: str
    quoted: tuple[str, ...] = ()


def outcome_of(
    case: Case,
    ranking: Ranking,
    rank: int,
    mar_rank: int,
    coherence: float | None,
    mar: Sequence[float | None],
    shown: Sequence[int | None],
) -> Outcome:
    """The outcome for one user.

    Args:
        rank, mar_rank: Ranks of the target, 1-based.
        coherence: See `ObjectiveWeights`.
        mar: MAR's own scores, None for a candidate without one.
        shown: 1-based positions in MAR's prompt, None for a candidate that is not in it.
    """
    assert case.target is not None  # noqa: S101 - scored before
    size, target = len(case.candidates), case.candidates.index(case.target)
    place = shown[target] if shown else None
    places = max((one for one in shown if one is not None), default=None)
    named = mar[target] is not None
    lines = [
        f"The product this shopper chose next is ranked {rank} of {size}; by motivations and traits alone "
        f"{mar_rank} of {size}."
    ]
    if place is not None:
        lines.append(f"In the list that the model read it stood at place {place} of {places}.")
    if not named and any(score is not None for score in mar):
        lines.append("The answer left it out.")
    lines.append(_profile(ranking.profile, bool(ranking.error)))
    quoted = [motivation.description for motivation in ranking.profile.motivations] if ranking.profile else []
    traits = {own.item_id: own.render() for own in ranking.traits}
    if case.target in traits:
        quoted.append(traits[case.target])
        lines.append(f"The chosen product's traits speak of: {traits[case.target] or 'nothing usable'}.")
    if mar_rank > 1:
        best = order_by_score(case.candidates, ranking.scores["mar"], tie_seed=seed_of("ties", case.user_id))[0]
        first = shown[case.candidates.index(best)] if shown else None
        if traits.get(best):
            where = "" if first is None else f", from place {first}"
            lines.append(f"Put first instead was a product of these traits{where}: {traits[best]}.")
            quoted.append(traits[best])
    if coherence is not None and coherence <= 0:
        lines.append(
            "Profiles of this shopper's single purchases resemble strangers' as much as each other: too generic."
        )
    if ranking.unparsable:
        lines.append(f"{ranking.unparsable} answers could not be parsed.")
    return Outcome(size, rank, mar_rank, place, places, named, " ".join(lines), tuple(quoted))


def _profile(profile: Profile | None, failed: bool) -> str:
    if profile is None:
        return "No profile could be read from the answer." if failed else "No profile was asked for."
    return "The profile stresses: " + "; ".join(f"{m.dimension} ({m.description})" for m in profile.motivations) + "."


def batch_feedback(outcomes: Sequence[Outcome]) -> str:
    """What came of a program for several users: first the figures over all of them, then each of them.

    >>> some = [Outcome(9, 2, 1, 3, 9, True, "Good."), Outcome(9, 8, 7, 8, 9, False, "Bad.")]
    >>> print(batch_feedback(some))
    Over 2 shoppers: by motivations and traits alone the chosen product is first for 1, among the first 5 for 1; in the final order it is among the first 5 for 1. Its mean rank, where it was shown in the first third of the list: 1.0 (1 shoppers); last: 7.0 (1 shoppers). The answer left it out for 1.
    1. Good.
    2. Bad.
    """  # noqa: E501 - one line of a prompt
    return "\n".join([figures(outcomes), *(f"{number}. {one.text}" for number, one in enumerate(outcomes, start=1))])


def figures(outcomes: Sequence[Outcome]) -> str:
    """The figures over several users, in one line."""
    by_third: dict[str, list[int]] = {}
    for one in outcomes:
        if one.place is not None and one.places:
            by_third.setdefault(_THIRDS[3 * (one.place - 1) // one.places], []).append(one.mar_rank)
    told = (
        f"Over {len(outcomes)} shoppers: by motivations and traits alone the chosen product is first for "
        f"{sum(one.mar_rank == 1 for one in outcomes)}, among the first {FIRST_PLACES} for "
        f"{sum(one.mar_rank <= FIRST_PLACES for one in outcomes)}; in the final order it is among the first "
        f"{FIRST_PLACES} for {sum(one.rank <= FIRST_PLACES for one in outcomes)}."
    )
    parts = [
        f"{third}: {mean(by_third[third]):.1f} ({len(by_third[third])} shoppers)"
        for third in _THIRDS
        if third in by_third
    ]
    if parts:
        parts[0] = parts[0].replace(":", " third of the list:", 1)
        told += f" Its mean rank, where it was shown in the {'; '.join(parts)}."
    if left_out := sum(not one.named for one in outcomes):
        told += f" The answer left it out for {left_out}."
    return told
