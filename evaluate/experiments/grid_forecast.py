"""Forecast of a comparison's calls, dollars and time from a few measured users, for each mix alone and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluate.experiments.grid import Mix
from evaluate.runs.costs import MOTE_ROLE, known_sum
from programs.lm.ledger import Ledger
from programs.program import MLLM3Rec, head_of
from signatures.rows import Case, Usage, seed_of

MIX_SAMPLE = 5


class Work(BaseModel):
    """Expected work; cache hits count as paid.

    `usd` is None if a model has no known price, `seconds` if the time of a call is not known.
    """

    model_config = ConfigDict(frozen=True)

    calls: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    usd: float | None = 0.0
    seconds: float | None = 0.0

    def times(self, n: float) -> Work:
        """The work multiplied by n."""
        return Work(
            calls=n * self.calls,
            tokens_in=n * self.tokens_in,
            tokens_out=n * self.tokens_out,
            usd=None if self.usd is None else n * self.usd,
            seconds=None if self.seconds is None else n * self.seconds,
        )

    def plus(self, other: Work) -> Work:
        """The sum; dollars and seconds are unknown if those of one part are."""
        return Work(
            calls=self.calls + other.calls,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            usd=known_sum([self.usd, other.usd]),
            seconds=known_sum([self.seconds, other.seconds]),
        )


class MeasuredMix(BaseModel):
    """Measured work of a mix on a few users.

    Attributes:
        per_user: Work per user by role, without MOTE.
        per_product: Work of MOTE per item.
    """

    model_config = ConfigDict(frozen=True)

    per_user: dict[str, Work]
    per_product: Work


class MixForecast(BaseModel):
    """Expected work of one mix: alone, and after the mixes before it."""

    model_config = ConfigDict(frozen=True)

    label: str
    alone: Work
    marginal: Work


class SearchForecast(BaseModel):
    """Upper bound of the work of a search, whose mixes are not known before: each is chosen by the results so far.

    Attributes:
        mixes: Number of mixes that it tries.
    """

    model_config = ConfigDict(frozen=True)

    mixes: int
    most: Work

    @classmethod
    def of(cls, search: int, found: Sequence[MixForecast]) -> Self:
        """The bound for so many of the mixes: the dearest without what they share, and no more than all of them."""
        tried = min(search, len(found))
        bounds = {}
        for name in Work.model_fields:
            alone = [getattr(mix.alone, name) for mix in found]
            together = known_sum([getattr(mix.marginal, name) for mix in found])
            unknown = together is None or None in alone
            bounds[name] = None if unknown else min(sum(sorted(alone, reverse=True)[:tried]), together)
        return cls(mixes=tried, most=Work.model_validate(bounds))


class GridForecast(BaseModel):
    """Expected work of a comparison.

    Attributes:
        search: Of a search of the grid; None where all mixes are run.
    """

    model_config = ConfigDict(frozen=True)

    mixes: tuple[MixForecast, ...]
    search: SearchForecast | None = None


def sample_of(cases: Sequence[Case], k: int = MIX_SAMPLE) -> list[Case]:
    """k cases whose history lengths represent all cases, because the cost of a prompt grows with the history."""
    ordered = sorted(cases, key=lambda case: len(case.history))
    positions = np.linspace(0, len(ordered) - 1, 2 * min(k, len(ordered)) + 1)[1::2]
    return [ordered[int(position + 0.5)] for position in positions]


def shown_of(cases: Sequence[Case], program: MLLM3Rec) -> list[str]:
    """Items that MOTE distils for these cases (the head of each list), with repetitions."""
    shown: list[str] = []
    for case in cases:
        prior = np.asarray(program.prior.value.scores(case.item_ids, case.candidates), dtype=float)
        shown += [case.candidates[i] for i in head_of(prior, program.fusion.head, seed_of("ties", case.user_id))]
    return shown


def measure_mix(program: MLLM3Rec, cases: Sequence[Case], ledger: Ledger) -> MeasuredMix:
    """Rank a few cases and average their work; the answers are cached and not paid again.

    Raises:
        BudgetExceededError: before a call that might exceed the ledger's budget.
    """
    with ledger.standalone_usage() as spent:
        # Without a profile MOTE is not called.
        profiled = [case for case in cases if program(case=case, ask_all=True).ranking.traits]
    # The usage counts an item each time it was shown; only the first time was a call, the rest is from the trait store.
    shown = len(shown_of(profiled, program))
    return MeasuredMix(
        per_user={role: work_of(usage).times(1 / len(cases)) for role, usage in spent.items() if role != MOTE_ROLE},
        per_product=work_of(spent[MOTE_ROLE]).times(1 / shown) if shown else Work(),
    )


def work_of(usage: Usage) -> Work:
    """Calls that were made, as work."""
    return Work.model_validate(usage.model_dump(include=set(Work.model_fields)))


def forecast_grid(
    mixes: Sequence[Mix], measured: Mapping[str, MeasuredMix], users: int, products: int
) -> list[MixForecast]:
    """Expected work of every mix, in their order.

    Mixes with the same backend for MOPE share its answers, likewise for MOTE; those of MAR and the judge depend on the
    whole mix.

    Args:
        measured: By label.
        users: Number of cases.
        products: Number of distinct items in them.
    """
    out = []
    done: set[tuple[str, str]] = set()
    for mix in mixes:
        parts = {role: work.times(users) for role, work in measured[mix.label].per_user.items()}
        parts[MOTE_ROLE] = measured[mix.label].per_product.times(products)
        alone, marginal = Work(), Work()
        for role, work in parts.items():
            alone = alone.plus(work)
            shared = (role, getattr(mix, role)) if role in ("mope", MOTE_ROLE) else (role, mix.label)
            if shared not in done:
                marginal = marginal.plus(work)
                done.add(shared)
        out.append(MixForecast(label=mix.label, alone=alone, marginal=marginal))
    return out
