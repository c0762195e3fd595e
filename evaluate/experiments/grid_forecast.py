"""What a comparison will take, from a few measured users: each mix alone, and with the work mixes share done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluate.experiments.grid import Mix
from evaluate.runs.costs import MOTE_ROLE
from programs.lm.ledger import Ledger
from programs.program import MLLM3Rec, head_of
from signatures.rows import Case, Cost, Usage

MIX_SAMPLE = 5


class Work(BaseModel):
    """Expected work. `usd` is None where a model has no price; stored answers are counted as if they were paid."""

    model_config = ConfigDict(frozen=True)

    calls: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    usd: float | None = 0.0
    seconds: float = 0.0

    def times(self, n: float) -> Work:
        """n times the work."""
        return Work(
            calls=n * self.calls,
            tokens_in=n * self.tokens_in,
            tokens_out=n * self.tokens_out,
            usd=None if self.usd is None else n * self.usd,
            seconds=n * self.seconds,
        )

    def plus(self, other: Work) -> Work:
        """Both; dollars are unknown where one of them is."""
        return Work(
            calls=self.calls + other.calls,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            usd=Cost.of([self.usd, other.usd]).usd,
            seconds=self.seconds + other.seconds,
        )


class MeasuredMix(BaseModel):
    """What a few users took.

    Attributes:
        per_user: By role, MOTE left out.
        per_product: Of MOTE.
    """

    model_config = ConfigDict(frozen=True)

    per_user: dict[str, Work]
    per_product: Work


class MixForecast(BaseModel):
    """Expected work of one mix: by itself, and after the mixes before it."""

    model_config = ConfigDict(frozen=True)

    label: str
    alone: Work
    marginal: Work


def sample_of(cases: Sequence[Case], k: int = MIX_SAMPLE) -> list[Case]:
    """k cases whose histories are as long as those of all: what a prompt costs grows with them."""
    ordered = sorted(cases, key=lambda case: len(case.history))
    places = np.linspace(0, len(ordered) - 1, 2 * min(k, len(ordered)) + 1)[1::2]
    return [ordered[int(place + 0.5)] for place in places]


def shown_of(cases: Sequence[Case], program: MLLM3Rec) -> list[str]:
    """Products that MOTE is asked about for these cases, one entry a case: candidates, or the prior's first ones."""
    shown: list[str] = []
    for case in cases:
        history = [event.item_id for event in case.history]
        prior = np.asarray(program.prior.value.scores(history, case.candidates), dtype=float)
        shown += [case.candidates[i] for i in head_of(prior, program.fusion.head)]
    return shown


def measure_mix(program: MLLM3Rec, cases: Sequence[Case], ledger: Ledger) -> MeasuredMix:
    """Rank a few cases and divide what they took; the answers are stored, so nothing of it is paid again.

    Raises:
        BudgetExceededError: before a call that might pass the ledger's budget.
    """
    with ledger.standalone_usage() as spent:
        # Of a shopper without a profile no product is asked.
        profiled = [case for case in cases if program.rank(case.blinded()).traits]
    # The sum holds a product as often as it was shown, from the store all but once.
    shown = len(shown_of(profiled, program))
    return MeasuredMix(
        per_user={role: _work(usage).times(1 / len(cases)) for role, usage in spent.items() if role != MOTE_ROLE},
        per_product=_work(spent[MOTE_ROLE]).times(1 / shown) if shown else Work(),
    )


def _work(usage: Usage) -> Work:
    return Work(
        calls=usage.calls,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        usd=usage.usd,
        seconds=usage.seconds,
    )


def forecast_grid(
    mixes: Sequence[Mix], measured: Mapping[str, MeasuredMix], users: int, products: int
) -> list[MixForecast]:
    """Expected work of every mix, in their order.

    A mix shares MOPE's answers with mixes of the same MOPE backend, MOTE's with those of the same MOTE backend; MAR's
    and the judge's depend on the whole mix.

    Args:
        measured: By label.
        users: Cases in all.
        products: Distinct products in all.
    """
    out = []
    done: set[tuple[str, str]] = set()
    for mix in mixes:
        found = measured[mix.label]
        parts = {role: work.times(users) for role, work in found.per_user.items()}
        parts[MOTE_ROLE] = found.per_product.times(products)
        alone, marginal = Work(), Work()
        for role, work in parts.items():
            alone = alone.plus(work)
            shared = (role, getattr(mix, role)) if role in ("mope", MOTE_ROLE) else (role, mix.label)
            if shared not in done:
                marginal = marginal.plus(work)
                done.add(shared)
        out.append(MixForecast(label=mix.label, alone=alone, marginal=marginal))
    return out
