"""Dated price tables of models; the price of a model that is not listed is unknown, not zero."""

from __future__ import annotations

import datetime
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from programs.runtime.config_file import read_toml
from programs.runtime.environment import environment
from programs.runtime.errors import InputError


class Price(BaseModel):
    """Dollars per million tokens, or dollars per hour of a machine.

    Attributes:
        input, output: Dollars per million tokens; both are needed unless the price is one per hour.
        cached: Price of prompt tokens served from the provider's cache; `input` where None.
        usd_per_hour: Dollars per hour of one's own machine that runs the model. A call costs its seconds at this
            price; n simultaneous calls count n machines, so the sum is exact for sequential calls and an upper bound
            otherwise.
        retired: Day the provider stopped serving the model, or None.
        source: Where the price was read.
        dated: Day it was read, or None if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(default=0.0, ge=0)
    output: float = Field(default=0.0, ge=0)
    cached: float | None = Field(default=None, ge=0)
    usd_per_hour: float | None = Field(default=None, ge=0)
    retired: datetime.date | None = None
    source: str = ""
    dated: datetime.date | None = None

    @model_validator(mode="after")
    def _of_one_kind(self) -> Price:
        of_tokens = {"input", "output", "cached"} & self.model_fields_set
        if self.usd_per_hour is None and not {"input", "output"} <= of_tokens:
            raise ValueError("give input and output (dollars per million tokens), or usd_per_hour")
        if self.usd_per_hour is not None and of_tokens:
            raise ValueError("give either token prices or usd_per_hour, not both")
        return self

    def usd(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0, seconds: float = 0.0) -> float:
        """Dollars of one call.

        Args:
            tokens_cached: Those of `tokens_in` that came from the provider's cache.
            seconds: Duration of the call, without the wait before it was sent; used for a price per hour only.

        >>> Price(input=2.0, output=8.0, cached=0.5).usd(1_000_000, 500_000, tokens_cached=400_000)
        5.4
        >>> Price(usd_per_hour=0.50).usd(1_000_000, 500_000, seconds=1800.0)
        0.25
        """
        if self.usd_per_hour is not None:
            return self.usd_per_hour * seconds / 3600
        cached = self.input if self.cached is None else self.cached
        return ((tokens_in - tokens_cached) * self.input + tokens_cached * cached + tokens_out * self.output) / 1e6


class PriceTable(BaseModel):
    """A dated price list, by model string.

    Attributes:
        dated: Day of the list.
        source: Where its prices were read; a price may name its own source instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dated: datetime.date
    source: str = ""
    models: dict[str, Price]

    def under(self, other: PriceTable) -> PriceTable:
        """This table with the prices of `other` in place of its own, model by model; the date stays this table's."""
        return self.model_copy(update={"models": self.models | other.models})


def read_prices(path: Path) -> PriceTable:
    """Read a price file: `dated`, `[models]` with one price each, and a source for the file or each price.

    Raises:
        InputError: naming file and field, if it is not a price file or a price has no source.
    """
    return _sourced(read_toml(path, PriceTable), path)


def _sourced(table: PriceTable, path: Path) -> PriceTable:
    models = {}
    for model, price in table.models.items():
        source = price.source or table.source
        if not source:
            raise InputError(f"{path}: models.{model}.source: missing: write where the price was read")
        models[model] = price.model_copy(update={"source": source, "dated": price.dated or table.dated})
    return table.model_copy(update={"models": models})


@cache
def shipped_prices() -> PriceTable:
    """The table that ships with this package (`programs/lm/prices.toml`)."""
    text = files("programs.lm").joinpath("prices.toml").read_text("utf-8")
    return _sourced(PriceTable.model_validate(tomllib.loads(text)), Path("prices.toml"))


def price_table(path: Path | None = None) -> PriceTable:
    """The shipped table under the user's own prices, where there are any.

    Args:
        path: The user's file; None for the one named by MLLM3REC_PRICES.

    Raises:
        InputError: naming file and field, if the user's file cannot be used.
    """
    own = path or environment().prices
    return shipped_prices() if own is None else shipped_prices().under(read_prices(own))
