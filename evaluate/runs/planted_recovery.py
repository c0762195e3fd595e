"""Recovery of planted motivations by profiles; possible where the truth is known, as in the demo store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from evaluate.stats.intervals import bootstrap_mean
from programs.runtime.errors import InputError
from signatures.schema import CONSUMER, MotivationSchema
from signatures.types import Profile


@dataclass(frozen=True)
class Recovery:
    """Shares from 0 to 1 over `n` users, each with its expectation under chance.

    Chance is a profile of the same size whose dimensions are drawn uniformly, without repetition, from the
    schema. With s of D dimensions in the profile it holds any given dimension with probability s/D.

    Attributes:
        n: Users with a profile.
        primary_found: Share of users whose primary motivation is in their profile.
        precision: Mean share of a profile's dimensions that were planted; an empty profile counts 0.
        recall: Mean share of the planted dimensions that are in the profile.
        above_chance_low, above_chance_high: 95% interval of `primary_found` less its chance, over users.
    """

    n: int
    primary_found: float
    precision: float
    recall: float
    chance_primary_found: float
    chance_precision: float
    chance_recall: float
    above_chance_low: float
    above_chance_high: float


def recovery(
    profiles: Mapping[str, Profile], truth: Mapping[str, Sequence[str]], schema: MotivationSchema = CONSUMER
) -> Recovery:
    """Compare the profiles of users with their planted motivations.

    Args:
        profiles: At least one profile by user id; a repeated dimension counts once.
        truth: Planted dimensions by user id, primary first. Users without a profile are left out.
        schema: The schema of both.

    Raises:
        InputError: if there is no profile, a profile has no truth, or a dimension is not in the schema.

    >>> from signatures.types import Motivation
    >>> inferred = Motivation(dimension="value", description="spends little", strength="strong", evidence=(1,))
    >>> result = recovery({"u": Profile(motivations=(inferred,))}, {"u": ("value", "learning")})
    >>> result.primary_found, result.precision, result.recall, round(result.chance_recall, 4)
    (1.0, 1.0, 0.5, 0.0909)
    """
    if not profiles:
        raise InputError("no profiles to compare with the planted motivations: give at least one")
    size = len(schema.names)
    totals = [Fraction(0)] * 6
    above_chance = []
    for user_id, profile in profiles.items():
        if not truth.get(user_id):
            raise InputError(f"user {user_id!r} has a profile but no planted motivations: leave the user out")
        inferred = {m.dimension for m in profile.motivations}
        planted = set(truth[user_id])
        unknown = sorted((inferred | planted).difference(schema.names))
        if unknown:
            raise InputError(
                f"user {user_id!r}: {', '.join(unknown)} is not in schema {schema.name!r}: "
                "use the schema the profiles were made with"
            )
        hits = len(inferred & planted)
        share = Fraction(len(inferred), size)
        figures = (
            Fraction(truth[user_id][0] in inferred),
            Fraction(hits, len(inferred)) if inferred else Fraction(0),
            Fraction(hits, len(planted)),
            share,
            Fraction(len(planted), size) if inferred else Fraction(0),
            share,
        )
        totals = [total + figure for total, figure in zip(totals, figures, strict=True)]
        above_chance.append(float(figures[0] - figures[3]))
    n = len(profiles)
    interval = bootstrap_mean(above_chance, seed=0)
    return Recovery(n, *(*(float(total / n) for total in totals), interval.low, interval.high))
