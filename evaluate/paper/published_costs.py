"""Recomputation of the paper's Table 7: the cost of our token counts at the prices of its models."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from evaluate.paper.published import COSTS
from evaluate.runs.costs import MOTE_ROLE, MixCost
from programs.lm.prices import Price, PriceTable

CHEAP, EXPENSIVE = "openai/gpt-3.5-turbo", "openai/gpt-4o"

DEPLOYMENTS: dict[str, dict[str, str]] = {
    "gpt-3.5-turbo": {"mope": CHEAP, "mote": CHEAP, "mar": CHEAP, "judge": CHEAP},
    "gpt-4-turbo": dict.fromkeys(("mope", "mote", "mar", "judge"), "openai/gpt-4-turbo"),
    "gpt-4o": dict.fromkeys(("mope", "mote", "mar", "judge"), EXPENSIVE),
    "4o & 3.5": {"mope": CHEAP, "mote": CHEAP, "mar": EXPENSIVE, "judge": EXPENSIVE},
}
"""Models by role of the deployments in Table 7, by their names there."""


class Recomputed(BaseModel):
    """Costs of one deployment.

    Attributes:
        per_pair: Dollars for one user-item pair: MOPE and MAR shared by the list, MOTE for the item.
        per_list: Dollars for one user's whole list, MOTE for every item included.
        published: Dollars "per user-item interaction" as printed, by dataset.
    """

    model_config = ConfigDict(frozen=True)

    deployment: str
    per_pair: float
    per_list: float
    published: dict[str, Decimal]


def recompute(cost: MixCost, prices: PriceTable) -> list[Recomputed]:
    """Price a run's tokens as Table 7's deployments would be billed, without discounts for cached tokens.

    Args:
        cost: Of a run with calls of MOPE, MOTE and MAR; tokens are counted by its own models' tokenizers.

    Returns:
        One per deployment; none if no user was ranked or no item distilled.
    """
    if not cost.users or not cost.products:
        return []
    out = []
    for deployment, models in DEPLOYMENTS.items():
        usd = {role: _usd(cost, role, prices.models[model]) for role, model in models.items()}
        per_item = usd.pop(MOTE_ROLE) / cost.products
        per_user = sum(usd.values()) / cost.users
        length = cost.pairs / cost.users
        published = {row.dataset: row.usd for row in COSTS if row.models == deployment}
        out.append(
            Recomputed(
                deployment=deployment,
                per_pair=per_user / length + per_item,
                per_list=per_user + length * per_item,
                published=published,
            )
        )
    return out


def _usd(cost: MixCost, role: str, price: Price) -> float:
    return sum(price.usd(row.tokens_in, row.tokens_out) for row in cost.roles if row.role == role)
