"""Costs of MOPE, MOTE and MAR at today's prices, from measured tokens: direct and in batches, cached and not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from evaluate.paper.published import COSTS
from evaluate.paper.published_costs import DEPLOYMENTS
from evaluate.runs.costs import MOTE_ROLE
from programs.lm.prices import Price, PriceTable, Tariff

LIST = 30
"""Candidates of the user's list that was measured."""

CURRENT = (
    "openai/gpt-6-luna",
    "openai/gpt-6.1-terra",
    "openai/gpt-6.1-sol",
    "anthropic/claude-haiku-5-5",
    "anthropic/claude-sonnet-5-5",
    "anthropic/claude-opus-5-5",
    "gemini/gemini-3.5-flash-lite",
    "gemini/gemini-3.8-flash",
    "groq/openai/gpt-oss-20b",
    "groq/openai/gpt-oss-120b",
    "together_ai/Qwen/Qwen3.5-9B",
)
"""Models of late 2026, small and large, of the providers that are used most."""


class MeasuredTokens(BaseModel):
    """Tokens of one role: for one user, or with MOTE for one item.

    Attributes:
        shared: Share of `tokens_in` that the prompts of all users or items begin with: what a provider may cache.
    """

    model_config = ConfigDict(frozen=True)

    tokens_in: int
    tokens_out: int
    shared: float


MEASURED: Mapping[str, MeasuredTokens] = MappingProxyType(
    {
        "mope": MeasuredTokens(tokens_in=1968, tokens_out=150, shared=0.754),
        "mar": MeasuredTokens(tokens_in=786, tokens_out=235, shared=0.379),
        MOTE_ROLE: MeasuredTokens(tokens_in=470, tokens_out=21, shared=0.92),
    }
)
"""`listwise` with lists of 30 for warm users of Toys, adapter `compact` (docs/results.md, "The paper's Table 7")."""


class Dollars(BaseModel):
    """Dollars by the way of asking; None where no price is known.

    Attributes:
        direct, batch: Nothing read from the provider's cache.
        direct_cached, batch_cached: All that the prompts share read from it.
    """

    model_config = ConfigDict(frozen=True)

    direct: float
    direct_cached: float | None
    batch: float | None
    batch_cached: float | None

    def times(self, count: float) -> Dollars:
        """The same for `count` users or items."""
        cached, batch, both = (
            None if usd is None else count * usd for usd in (self.direct_cached, self.batch, self.batch_cached)
        )
        return Dollars(direct=count * self.direct, direct_cached=cached, batch=batch, batch_cached=both)


class CurrentCost(BaseModel):
    """Costs of one model in every role.

    Attributes:
        per_thousand_users: MOPE and MAR for 1,000 users.
        per_million_items: MOTE for a million items.
        per_list: MOPE, MAR and MOTE for one user whose 30 candidates are distilled for that user alone, asked directly:
            what the paper's Table 7 prints.
        price: With source and date.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    per_thousand_users: Dollars
    per_million_items: Dollars
    per_list: float
    price: Price


class PaperCost(BaseModel):
    """A deployment of the paper's Table 7.

    Attributes:
        per_thousand_users, per_million_items, per_list: As in `CurrentCost`, asked directly.
        published: Dollars "per user-item interaction" as printed, by dataset.
    """

    model_config = ConfigDict(frozen=True)

    deployment: str
    per_thousand_users: float
    per_million_items: float
    per_list: float
    published: dict[str, Decimal]


def current_costs(prices: PriceTable, models: Sequence[str] = CURRENT) -> list[CurrentCost]:
    """Costs of the models that have a price for each token; others are left out."""
    known = {model: price for model in models if (price := prices.of(model)) is not None}
    return [_cost(model, price) for model, price in known.items() if price.usd_per_hour is None]


def paper_costs(prices: PriceTable) -> list[PaperCost]:
    """The deployments of Table 7 with the same tokens."""
    out = []
    for deployment, models in DEPLOYMENTS.items():
        usd = {role: _usd((role,), prices.models[models[role]].standard) for role in MEASURED}
        per_user = usd["mope"] + usd["mar"]
        out.append(
            PaperCost(
                deployment=deployment,
                per_thousand_users=1e3 * per_user,
                per_million_items=1e6 * usd[MOTE_ROLE],
                per_list=per_user + LIST * usd[MOTE_ROLE],
                published={row.dataset: row.usd for row in COSTS if row.models == deployment},
            )
        )
    return out


def _cost(model: str, price: Price) -> CurrentCost:
    standard = price.standard
    per_user, per_item = (_dollars(roles, standard, price.batch) for roles in (("mope", "mar"), (MOTE_ROLE,)))
    return CurrentCost(
        model=model,
        per_thousand_users=per_user.times(1e3),
        per_million_items=per_item.times(1e6),
        per_list=_usd(("mope", "mar"), standard) + LIST * _usd((MOTE_ROLE,), standard),
        price=price,
    )


def _dollars(roles: Sequence[str], standard: Tariff, batch: Tariff | None) -> Dollars:
    def cached(tariff: Tariff | None) -> float | None:
        return None if tariff is None or tariff.cached is None else _usd(roles, tariff, cached=True)

    return Dollars(
        direct=_usd(roles, standard),
        direct_cached=cached(standard),
        batch=None if batch is None else _usd(roles, batch),
        batch_cached=cached(batch),
    )


def _usd(roles: Sequence[str], tariff: Tariff, cached: bool = False) -> float:
    """Dollars of the measured tokens of roles."""
    total = 0.0
    for role in roles:
        tokens = MEASURED[role]
        read = round(tokens.shared * tokens.tokens_in) if cached else 0
        total += tariff.usd(tokens.tokens_in, tokens.tokens_out, read)
    return total
