"""Roles, backends and prices on a fake server, and what was asked and paid there."""

from __future__ import annotations

import datetime
from typing import Any

import dspy

from programs.lm.backends import Backends
from programs.lm.ledger import Ledger
from programs.lm.prices import Price, PriceTable
from programs.lm.roles import RoleConfig, Roles, local_roles
from signatures.mar import score_candidate
from signatures.mote import DistillTraits
from signatures.rows import Usage
from tests.support.fake_server import FakeOpenAI


def roles_on(server: FakeOpenAI, **settings: Any) -> Roles:
    """Every role on one server, as on a model of one's own; `settings` replace fields of all of them."""
    config = local_roles(server.model()).mope
    return Roles.all_on(RoleConfig.model_validate(config.model_dump() | settings))


def backends_on(
    server: FakeOpenAI, ledger: Ledger | None = None, prices: PriceTable | None = None, **settings: Any
) -> Backends:
    """The backends of these roles."""
    return Backends(roles_on(server, **settings), ledger, prices)


def prices_for(server: FakeOpenAI, price: Price) -> PriceTable:
    """A table with the price of the server's model."""
    return PriceTable(dated=datetime.date(2026, 1, 1), models={server.model(): price})


def distill(backends: Backends, product: str = "a cup", **options: Any) -> dspy.Prediction:
    """Ask for traits."""
    return backends.ask("mote", dspy.Predict(DistillTraits), product=product, **options)


def rate(backends: Backends, product: str = "a cup") -> dspy.Prediction:
    """Ask for a rating."""
    return backends.ask("mar", dspy.Predict(score_candidate("profile", "traits")), shopper="- value", product=product)


def served(server: FakeOpenAI) -> tuple[int, int, int]:
    """Calls, and tokens in and out, as the server counted them."""
    return len(server.bodies), server.tokens_in, server.tokens_out


def paid(usage: Usage) -> tuple[int, int, int]:
    """Calls, and tokens in and out, as the ledger counted them."""
    return usage.calls, usage.tokens_in, usage.tokens_out
