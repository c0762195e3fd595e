"""What a token costs, from a dated file. A model that is not in it has no known price, which is not zero."""

from __future__ import annotations

import datetime
import tomllib
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field


class Price(BaseModel):
    """Dollars per million tokens.

    Attributes:
        cached: Price of prompt tokens served from the provider's cache; `input` where None.
        retired: Day the provider stopped serving the model, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    retired: datetime.date | None = None

    def usd(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> float:
        """Dollars of one call; `tokens_cached` are those of `tokens_in` that came from the cache.

        >>> Price(input=2.0, output=8.0, cached=0.5).usd(1_000_000, 500_000, tokens_cached=400_000)
        5.4
        """
        cached = self.input if self.cached is None else self.cached
        return ((tokens_in - tokens_cached) * self.input + tokens_cached * cached + tokens_out * self.output) / 1e6


class PriceTable(BaseModel):
    """The dated price list: model string as a role names it, to price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dated: datetime.date
    models: dict[str, Price]


@cache
def price_table() -> PriceTable:
    """The table that ships with this package (`programs/lm/prices.toml`)."""
    return PriceTable.model_validate(tomllib.loads(files("programs.lm").joinpath("prices.toml").read_text("utf-8")))
