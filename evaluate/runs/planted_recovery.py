"""How well profiles recover planted motivations: possible only where the truth is known, as in the demo store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from programs.runtime.errors import InputError
from signatures.schema import CONSUMER, MotivationSchema
from signatures.types import Profile


@dataclass(frozen=True)
class Recovery:
    """Shares from 0 to 1 over `n` shoppers, each beside its expectation under chance.

    Chance is a profile of the same size whose dimensions are drawn uniformly, without repetition, from the
    schema. With s of D dimensions in the profile it holds any given dimension with probability s/D.

    Attributes:
        n: Shoppers with a profile.
        primary_found: Share of shoppers whose primary motivation is in their profile.
        precision: Mean share of a profile's dimensions that were planted; an empty profile counts 0.
        recall: Mean share of the planted dimensions that are in the profile.
    """

    n: int
    primary_found: float
    precision: float
    recall: float
    chance_primary_found: float
    chance_precision: float
    chance_recall: float


def recovery(
    profiles: Mapping[str, Profile], truth: Mapping[str, Sequence[str]], schema: MotivationSchema = CONSUMER
) -> Recovery:
    """Compare profiles with the planted truth, shopper by shopper.

    Args:
        profiles: At least one profile by user id. A dimension counts once, however often a profile names it.
        truth: Planted dimensions by user id, primary first. Shoppers without a profile are left out.
        schema: Where the dimensions of both come from.

    Raises:
        InputError: if there is no profile, a profile has no truth, or a dimension is not in the schema.

    >>> from signatures.types import Motivation
    >>> found = Motivation(dimension="value", description="spends little", strength="strong", evidence=(1,))
    >>> result = recovery({"u": Profile(motivations=(found,))}, {"u": ("value", "learning")})
    >>> result.primary_found, result.precision, result.recall, round(result.chance_recall, 4)
    (1.0, 1.0, 0.5, 0.0909)
    """
    if not profiles:
        raise InputError("no profiles to compare with the planted motivations: give at least one")
    size = len(schema.names)
    totals = [Fraction(0)] * 6
    for user_id, profile in profiles.items():
        if not truth.get(user_id):
            raise InputError(f"user {user_id!r} has a profile but no planted motivations: leave the user out")
        found = {m.dimension for m in profile.motivations}
        planted = set(truth[user_id])
        unknown = sorted((found | planted).difference(schema.names))
        if unknown:
            raise InputError(
                f"user {user_id!r}: {', '.join(unknown)} is not in schema {schema.name!r}: "
                "use the schema the profiles were made with"
            )
        hits = len(found & planted)
        share = Fraction(len(found), size)
        figures = (
            Fraction(truth[user_id][0] in found),
            Fraction(hits, len(found)) if found else Fraction(0),
            Fraction(hits, len(planted)),
            share,
            Fraction(len(planted), size) if found else Fraction(0),
            share,
        )
        totals = [total + figure for total, figure in zip(totals, figures, strict=True)]
    n = len(profiles)
    return Recovery(n, *(float(total / n) for total in totals))
