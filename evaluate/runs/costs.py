"""What a mix costs: billed and stand-alone, per user, per user-item pair and for everybody; and how long it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from programs.lm.ledger import Call
from signatures.rows import Cost

MOTE_ROLE = "mote"
"""The one role whose work is per product, not per shopper."""


class RoleCost(BaseModel):
    """Calls of one role in one run.

    Attributes:
        calls: Answers there would have been without a store; `stored` of them came from it.
        failed: Sent and not answered.
        usd: As if every answer had been paid; None if the price of one of them is unknown.
        billed_usd: What was really paid; None likewise, 0 where nothing was sent.
        seconds: Service time of all answers, stored ones at what they took when they were made.
        p50, p95: Seconds of one answer really sent; None where none was.
    """

    model_config = ConfigDict(frozen=True)

    role: str
    model: str
    calls: int = Field(ge=0)
    stored: int = Field(ge=0)
    failed: int = Field(ge=0)
    tokens_in: int = Field(ge=0)
    tokens_out: int = Field(ge=0)
    tokens_cached: int = Field(ge=0)
    usd: float | None
    billed_usd: float | None
    seconds: float
    p50: float | None
    p95: float | None


class MixCost(BaseModel):
    """What a mix costs on a number of users, and beyond.

    Attributes:
        users: Users ranked.
        pairs: User-item pairs scored: the unit of the paper's Table 7.
        products: Distinct products among the candidates.
        roles: By role.
        per_user: Dollars of MOPE, MAR and the judge for one user; MOTE is paid once a product.
        per_product: Dollars of MOTE for one product.
        per_pair: Dollars for one user-item pair where nothing is shared: MOPE and MAR over the list, MOTE for the item.
        per_thousand: Dollars for 1,000 users over products distilled before.
        population: Dollars for every user of the dataset and its whole catalogue.
    """

    model_config = ConfigDict(frozen=True)

    users: int
    pairs: int
    products: int
    roles: tuple[RoleCost, ...]
    per_user: float | None
    per_product: float | None
    per_pair: float | None
    per_thousand: float | None
    population: float | None

    @property
    def usd(self) -> float | None:
        """Stand-alone dollars of the whole run; None where unknown."""
        return known_sum(role.usd for role in self.roles)

    @property
    def billed_usd(self) -> float | None:
        """Dollars really paid for this run; None where unknown."""
        return known_sum(role.billed_usd for role in self.roles)

    @property
    def seconds(self) -> float:
        """Stand-alone service time of the whole run."""
        return sum(role.seconds for role in self.roles)


def known_sum(parts: Iterable[float | None]) -> float | None:
    """The sum, or None if a part is unknown: unknown is not zero.

    >>> known_sum([0.5, 0.25]), known_sum([0.5, None]), known_sum([])
    (0.75, None, 0.0)
    """
    return Cost.of(parts).usd


def cost_of(
    calls: Sequence[Call], users: int, pairs: int, products: int, population_users: int, catalogue: int
) -> MixCost:
    """Add up a run's ledger.

    Args:
        users: Users the calls were made for.
        pairs: Candidates of all of them together.
        products: Distinct products distilled for them.
        population_users, catalogue: Users and products of the whole dataset.
    """
    needed = once_each(calls)
    roles = tuple(_role(role, [c for c in needed if c.role == role]) for role in dict.fromkeys(c.role for c in needed))
    shopper = known_sum(role.usd for role in roles if role.role != MOTE_ROLE)
    distilled = any(role.role == MOTE_ROLE for role in roles)
    product = known_sum(role.usd for role in roles if role.role == MOTE_ROLE)
    per_user = None if shopper is None or not users else shopper / users
    # A program without MOTE distils nothing, which is known to cost nothing.
    per_product = (0.0 if not distilled else None) if product is None or not products else product / products
    per_pair, population = None, None
    if per_user is not None and per_product is not None and pairs:
        per_pair = per_user * users / pairs + per_product
        population = per_user * population_users + per_product * catalogue
    return MixCost(
        users=users,
        pairs=pairs,
        products=products,
        roles=roles,
        per_user=per_user,
        per_product=per_product,
        per_pair=per_pair,
        per_thousand=None if per_user is None else 1000 * per_user,
        population=population,
    )


def once_each(calls: Sequence[Call]) -> list[Call]:
    """The calls without stored answers about what an earlier call of the same role was about already.

    A product that many users are shown is distilled once, however often its traits are taken from the store.
    """
    seen: set[tuple[str, str]] = set()
    out = []
    for call in calls:
        key = (call.role, call.about)
        if not (call.hit and call.about and key in seen):
            out.append(call)
        if not call.failed:
            seen.add(key)
    return out


def _role(role: str, calls: Sequence[Call]) -> RoleCost:
    answered = [call for call in calls if not call.failed]
    sent = [call for call in answered if not call.hit]
    seconds = [call.seconds for call in sent]
    return RoleCost(
        role=role,
        model=", ".join(dict.fromkeys(call.model for call in calls)),
        calls=len(answered),
        stored=len(answered) - len(sent),
        failed=len(calls) - len(answered),
        tokens_in=sum(call.tokens_in for call in answered),
        tokens_out=sum(call.tokens_out for call in answered),
        tokens_cached=sum(call.tokens_cached for call in answered),
        usd=known_sum(call.usd for call in answered),
        billed_usd=known_sum(call.usd for call in sent),
        seconds=sum(call.seconds for call in answered),
        p50=float(np.quantile(seconds, 0.5)) if seconds else None,
        p95=float(np.quantile(seconds, 0.95)) if seconds else None,
    )
