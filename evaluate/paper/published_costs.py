"""The paper's Table 7 from our token counts: what the measured prompts would cost at its models' prices."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from evaluate.paper.published import COSTS
from evaluate.runs.costs import MOTE_ROLE, MixCost
from programs.lm.prices import Price, PriceTable

CHEAP, DEAR = "openai/gpt-3.5-turbo", "openai/gpt-4o"

DEPLOYMENTS: dict[str, dict[str, str]] = {
    "gpt-3.5-turbo": {"mope": CHEAP, "mote": CHEAP, "mar": CHEAP, "judge": CHEAP},
    "gpt-4-turbo": dict.fromkeys(("mope", "mote", "mar", "judge"), "openai/gpt-4-turbo"),
    "gpt-4o": dict.fromkeys(("mope", "mote", "mar", "judge"), DEAR),
    "4o & 3.5": {"mope": CHEAP, "mote": CHEAP, "mar": DEAR, "judge": DEAR},
}
"""The deployments of Table 7, by the name they have there."""


class Recomputed(BaseModel):
    """One deployment.

    Attributes:
        per_pair: Dollars for one user-item pair: MOPE and MAR shared by the list, MOTE for the item.
        per_list: Dollars for one user's whole list, every product distilled for it.
        published: Dollars "per user-item interaction" as printed, by dataset.
    """

    model_config = ConfigDict(frozen=True)

    deployment: str
    per_pair: float
    per_list: float
    published: dict[str, Decimal]


def recompute(cost: MixCost, prices: PriceTable) -> list[Recomputed]:
    """Price a run's tokens as Table 7's deployments would have been billed; provider-side caching is left out.

    Args:
        cost: Of a run in which MOPE, MOTE and MAR were all asked; the tokens are those of its models' tokenizers.

    Returns:
        One per deployment; none where nothing was ranked or nothing distilled.
    """
    if not cost.users or not cost.products:
        return []
    out = []
    for deployment, models in DEPLOYMENTS.items():
        shopper = sum(_usd(cost, role, prices.models[model]) for role, model in models.items() if role != MOTE_ROLE)
        product = _usd(cost, MOTE_ROLE, prices.models[models[MOTE_ROLE]]) / cost.products
        per_user = shopper / cost.users
        length = cost.pairs / cost.users
        published = {row.dataset: row.usd for row in COSTS if row.models == deployment}
        out.append(
            Recomputed(
                deployment=deployment,
                per_pair=per_user / length + product,
                per_list=per_user + length * product,
                published=published,
            )
        )
    return out


def _usd(cost: MixCost, role: str, price: Price) -> float:
    return sum(price.usd(one.tokens_in, one.tokens_out) for one in cost.roles if one.role == role)
