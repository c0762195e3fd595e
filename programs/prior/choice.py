"""Choice of the prior's formula by name, and its record in manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from programs.prior.past_sales import PastSales
from programs.prior.prior import Prior
from programs.prior.prior_v2 import PriorV2
from programs.prior.scorers import ContentSimilarity, Training, histories_of
from programs.runtime.errors import InputError

PriorName = Literal["3", "3-sales", "2"]
"""`3`: `Prior`. `3-sales`: with the sales of the past 365 days for its popularity. `2`: `PriorV2`, of older runs."""

NEWEST: PriorName = "3"

UNRECORDED: PriorName = "2"
"""The formula of runs and artifacts whose manifest names none."""


def fit_prior(name: PriorName, training: Training, content: ContentSimilarity) -> Prior | PriorV2:
    """Fit the prior of that name to training data."""
    histories = histories_of(training)
    if name == "2":
        return PriorV2.fit(histories, content)
    return Prior.fit(histories, content, PastSales.fit(training) if name == "3-sales" else None)


def prior_name(value: object) -> PriorName:
    """The name of a formula, from a user or from a manifest.

    Raises:
        InputError: if there is no such formula.
    """
    for name in get_args(PriorName):
        if str(value) == name:
            found: PriorName = name
            return found
    raise InputError(f"no prior {value!s:.80}: choose one of {', '.join(get_args(PriorName))}")


def recorded(name: PriorName) -> int | str:
    """The value of a formula in manifests: a number for a version alone, as older ones have it."""
    return int(name) if name.isdigit() else name


def recorded_prior(configuration: Mapping[str, object]) -> PriorName:
    """The formula of a run, from the configuration in its manifest.

    Raises:
        InputError: if it is none that this version knows.
    """
    return prior_name(configuration.get("prior", UNRECORDED))
