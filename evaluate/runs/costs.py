"""Costs of a run: billed and stand-alone dollars and seconds, per role, user, user-item pair and population."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from programs.lm.ledger import Call, by_role
from signatures.rows import Cost, Usage

MOTE_ROLE = "mote"
"""The role whose work is per item, not per user."""


class RoleCost(BaseModel):
    """Calls of one role in one run.

    Attributes:
        calls: Answers, cache hits included.
        stored: Cache hits among them.
        failed: Calls sent but not answered.
        interrupted: Calls that were in flight when the run was killed.
        usd: Stand-alone dollars, cache hits counted as paid; None if a price is unknown.
        billed_usd: Dollars really paid, those that may have been billed for interrupted and failed calls included; None
            if a price is unknown, 0 if nothing was sent.
        seconds: Service time of all answers; a cache hit counts what it took when it was made.
        p50, p95: Quantiles of the seconds of calls really sent; None without any.
    """

    model_config = ConfigDict(frozen=True)

    role: str
    model: str
    calls: int = Field(ge=0)
    stored: int = Field(ge=0)
    failed: int = Field(ge=0)
    interrupted: int = Field(default=0, ge=0, exclude_if=lambda calls: not calls)
    tokens_in: int = Field(ge=0)
    tokens_out: int = Field(ge=0)
    tokens_cached: int = Field(ge=0)
    tokens_written: int = Field(default=0, ge=0, exclude_if=lambda tokens: not tokens)
    usd: float | None
    billed_usd: float | None
    seconds: float
    p50: float | None
    p95: float | None


class MixCost(BaseModel):
    """Costs of a run, and projections to more users.

    Attributes:
        users: Users ranked.
        pairs: User-item pairs scored: the unit of the paper's Table 7.
        products: Distinct items among the candidates.
        roles: Costs by role.
        per_user: Dollars of MOPE, MAR and the judge for one user.
        per_product: Dollars of MOTE for one item.
        per_pair: Dollars for one user-item pair: MOPE and MAR shared by the list, MOTE for the item.
        per_thousand: Dollars for 1,000 users on items distilled before.
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
        """Stand-alone dollars of the whole run; None if unknown."""
        return known_sum(role.usd for role in self.roles)

    @property
    def billed_usd(self) -> float | None:
        """Dollars really paid; None if unknown."""
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
    """Costs of a run from its ledger.

    Args:
        users: Number of users ranked.
        pairs: Number of their candidates, all users together.
        products: Number of distinct items distilled for them.
        population_users, catalogue: Number of users and items of the whole dataset.
    """
    needed = _once_each(calls)
    roles = tuple(_role(role, [c for c in needed if c.role == role]) for role in dict.fromkeys(c.role for c in needed))
    user_usd = known_sum(role.usd for role in roles if role.role != MOTE_ROLE)
    mote_usd = known_sum(role.usd for role in roles if role.role == MOTE_ROLE)
    per_user = None if user_usd is None or not users else user_usd / users
    if any(role.role == MOTE_ROLE for role in roles):
        per_product = None if mote_usd is None or not products else mote_usd / products
    else:
        per_product = 0.0  # A program without MOTE.
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


def stand_alone_usage(calls: Sequence[Call]) -> dict[str, Usage]:
    """Usage by role as if there had been no cache hits, and no failures and kills whose calls had to be sent again."""
    answered = (call for call in _once_each(calls) if not (call.failed or call.in_flight))
    return by_role(call.model_copy(update={"hit": False}) for call in answered)


def _once_each(calls: Sequence[Call]) -> list[Call]:
    """The calls without repeated cache hits: those with the role and `about` of an earlier call.

    The traits of an item count once, however often they are taken from the store.
    """
    seen: set[tuple[str, str]] = set()
    out = []
    for call in calls:
        key = (call.role, call.about)
        if not (call.hit and call.about and key in seen):
            out.append(call)
        if not (call.failed or call.in_flight):
            seen.add(key)
    return out


def _role(role: str, calls: Sequence[Call]) -> RoleCost:
    interrupted = [call for call in calls if call.in_flight]
    failed = [call for call in calls if call.failed]
    answered = [call for call in calls if not (call.failed or call.in_flight)]
    sent = [call for call in answered if not call.hit]
    seconds = [call.seconds for call in sent]
    return RoleCost(
        role=role,
        model=", ".join(dict.fromkeys(call.model for call in calls)),
        calls=len(answered),
        stored=len(answered) - len(sent),
        failed=len(failed),
        interrupted=len(interrupted),
        tokens_in=sum(call.tokens_in for call in answered),
        tokens_out=sum(call.tokens_out for call in answered),
        tokens_cached=sum(call.tokens_cached for call in answered),
        tokens_written=sum(call.tokens_written for call in answered),
        usd=known_sum(call.usd for call in answered),
        billed_usd=known_sum(call.usd for call in [*sent, *interrupted, *(c for c in failed if c.usd is not None)]),
        seconds=sum(call.seconds for call in answered),
        p50=float(np.quantile(seconds, 0.5)) if seconds else None,
        p95=float(np.quantile(seconds, 0.95)) if seconds else None,
    )
