"""Prices of models: the user's own, those that ship with the package, and those in LiteLLM's table, in this order.

The price of a model that none of them lists is unknown, not zero.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from programs.lm.listed_models import listed_names, listed_price
from programs.runtime.config_file import read_toml
from programs.runtime.environment import environment, using
from programs.runtime.errors import InputError

WARN_DAYS = 60
"""Days before a model's retirement from which on it is warned about."""


class Tariff(BaseModel):
    """Dollars per million tokens.

    Attributes:
        input, output: Of the prompt and the answer; thoughts of a reasoning model count as answer.
        cached: Of prompt tokens read from the provider's cache; `input` where None.
        cache_write: Of prompt tokens written to it; `input` where None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    cache_write: float | None = Field(default=None, ge=0)

    def usd(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0, tokens_written: int = 0) -> float:
        """Dollars of tokens; those read from the cache and written to it are among `tokens_in`."""
        cached = self.input if self.cached is None else self.cached
        write = self.input if self.cache_write is None else self.cache_write
        plain = tokens_in - tokens_cached - tokens_written
        return (plain * self.input + tokens_cached * cached + tokens_written * write + tokens_out * self.output) / 1e6

    @property
    def dearest_input(self) -> float:
        """The most that a prompt token may cost, written to the cache or not."""
        return max(self.input, self.cache_write or 0.0)


class LongContext(Tariff):
    """The prices of all tokens of a call with a long prompt.

    Attributes:
        above: Tokens of the prompt above which these prices hold.
        batch: The same in a batch; None where unknown.
    """

    above: int = Field(gt=0)
    batch: Tariff | None = None


class Price(BaseModel):
    """Dollars per million tokens, or dollars per hour of a machine.

    Attributes:
        input, output, cached, cache_write: See `Tariff`; input and output are needed unless the price is one per hour.
        batch: Prices in a batch; None where unknown, which is not zero.
        long_context: Prices of calls with a long prompt; None if they are the same.
        usd_per_hour: Dollars per hour of one's own machine that runs the model. A call costs its seconds at this
            price; n simultaneous calls count n machines, so the sum is exact for sequential calls and an upper bound
            otherwise.
        retired: Day on which the provider stops serving the model, or None.
        source: Where the price was read.
        dated: Day it was read, or None if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(default=0.0, ge=0)
    output: float = Field(default=0.0, ge=0)
    cached: float | None = Field(default=None, ge=0)
    cache_write: float | None = Field(default=None, ge=0)
    batch: Tariff | None = None
    long_context: LongContext | None = None
    usd_per_hour: float | None = Field(default=None, ge=0)
    retired: datetime.date | None = None
    source: str = ""
    dated: datetime.date | None = None

    @model_validator(mode="after")
    def _of_one_kind(self) -> Price:
        of_tokens = {"input", "output", "cached", "cache_write", "batch", "long_context"} & self.model_fields_set
        if self.usd_per_hour is None and not {"input", "output"} <= of_tokens:
            raise ValueError("give input and output (dollars per million tokens), or usd_per_hour")
        if self.usd_per_hour is not None and of_tokens:
            raise ValueError("give either token prices or usd_per_hour, not both")
        return self

    def usd(
        self,
        tokens_in: int,
        tokens_out: int,
        tokens_cached: int = 0,
        seconds: float = 0.0,
        tokens_written: int = 0,
        batch: bool = False,
    ) -> float:
        """Dollars of one call.

        Args:
            tokens_cached: Those of `tokens_in` that came from the provider's cache.
            seconds: Duration of the call, without the wait before it was sent; used for a price per hour only.
            tokens_written: Those of `tokens_in` that were written to the provider's cache.
            batch: Whether the call was a line of a batch.

        Raises:
            InputError: if the price in a batch is not known.

        >>> Price(input=2.0, output=8.0, cached=0.5).usd(1_000_000, 500_000, tokens_cached=400_000)
        5.4
        >>> Price(usd_per_hour=0.50).usd(1_000_000, 500_000, seconds=1800.0)
        0.25
        """
        if self.usd_per_hour is not None:
            return self.usd_per_hour * seconds / 3600
        return self._tariff(tokens_in, batch).usd(tokens_in, tokens_out, tokens_cached, tokens_written)

    def most_usd(self, tokens_in: int, tokens_out: int, seconds: float = 0.0, batch: bool = False) -> float:
        """The most dollars that a call with so many tokens may cost: all of its prompt may be a cache write."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour * seconds / 3600
        tariff = self._tariff(tokens_in, batch)
        return (tokens_in * tariff.dearest_input + tokens_out * tariff.output) / 1e6

    @property
    def standard(self) -> Tariff:
        """The prices of a call of its own with a prompt that is not long."""
        return Tariff(input=self.input, output=self.output, cached=self.cached, cache_write=self.cache_write)

    def in_batches(self) -> Price | None:
        """The price of a line of a batch, as the price of a call; None where it is unknown.

        >>> Price(input=2.0, output=8.0, batch=Tariff(input=1.0, output=4.0)).in_batches().usd(1_000_000, 500_000)
        3.0
        """
        if self.batch is None:
            return None
        long = self.long_context
        if long is not None:
            if long.batch is None:
                return None
            long = LongContext(above=long.above, **dict(long.batch))
        return self.model_copy(update={**dict(self.batch), "batch": self.batch, "long_context": long})

    def retires_within(self, days: int, today: datetime.date) -> bool:
        """Whether the model is retired, or will be in so many days."""
        return self.retired is not None and (self.retired - today).days <= days

    def _tariff(self, tokens_in: int, batch: bool) -> Tariff:
        long = self.long_context
        if long is not None and tokens_in > long.above:
            found = long.batch if batch else long
        else:
            found = self.batch if batch else self.standard
        if found is None:
            raise InputError("the price in a batch is not known; add `batch` to the price in a file for --prices")
        return found


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

    def of(self, model: str) -> Price | None:
        """The price of a model: this table's, else that of LiteLLM's table, else None."""
        return self.models.get(model) or _listed(model)

    def names(self) -> Iterable[str]:
        """Model strings with a price, LiteLLM's table included."""
        return dict.fromkeys([*self.models, *listed_names()])

    def under(self, other: PriceTable) -> PriceTable:
        """This table with the prices of `other` in place of its own, model by model; the date stays this table's."""
        return self.model_copy(update={"models": self.models | other.models})


class BatchPrices(PriceTable):
    """The prices of lines of batches in place of those of calls; a model without one has no known price."""

    def of(self, model: str) -> Price | None:
        """See `PriceTable.of`."""
        price = super().of(model)
        return None if price is None else price.in_batches()


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


@cache
def _listed(model: str) -> Price | None:
    fields = listed_price(model)
    return None if fields is None else Price.model_validate(fields)


@contextmanager
def use_prices(path: Path | None) -> Iterator[None]:
    """Use the user's prices of another file inside the block, in all threads; None leaves them as they are.

    Raises:
        InputError: naming file and field, if the file cannot be used.
    """
    if path is None:
        yield
        return
    with using("prices", str(path)):
        price_table()
        yield


def price_table(path: Path | None = None) -> PriceTable:
    """The shipped table under the user's own prices, where there are any.

    Args:
        path: The user's file; None for the one named by MLLM3REC_PRICES.

    Raises:
        InputError: naming file and field, if the user's file cannot be used.
    """
    own = path or environment().prices
    return shipped_prices() if own is None else shipped_prices().under(read_prices(own))
