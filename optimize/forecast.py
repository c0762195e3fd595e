"""What a compile will take, forecast from a handful of measured calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from optimize.scoring import ScoredProgram
from programs.lm.ledger import Ledger
from signatures.rows import Case, Cost, Usage

COMPILE_SAMPLE = 2


class PerCall(BaseModel):
    """Mean of one role's measured calls; `usd` and `seconds` are None where unknown."""

    model_config = ConfigDict(frozen=True)

    tokens: float
    usd: float | None
    seconds: float | None


class MeasuredCompile(BaseModel):
    """What a few shoppers took.

    Attributes:
        ranking: Calls per shopper and role for a ranking, MOTE's left out.
        profiles: MOPE's calls per shopper for the profiles of the objective.
        calls: What one call takes, by role.
    """

    model_config = ConfigDict(frozen=True)

    ranking: dict[str, float]
    profiles: float
    calls: dict[str, PerCall]


class Phase(BaseModel):
    """An upper bound for one part of a compile: stored answers, pruning and shared prompts make it less.

    `usd` is None where a model has no price, `seconds` where every measured call came from the store.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    calls: int
    tokens: int
    usd: float | None
    seconds: float | None


def measure_compile(judged: ScoredProgram, cases: Sequence[Case], ledger: Ledger) -> MeasuredCompile:
    """Score the first `COMPILE_SAMPLE` shoppers with the uncompiled program."""
    sample = cases[:COMPILE_SAMPLE]
    paid_before = ledger.by_role()
    with ledger.standalone_usage() as everything:
        for case in sample:
            judged(case=case)
    n = len(sample)
    ranking: dict[str, float] = {}
    for case in sample:
        with ledger.standalone_usage() as roles:
            judged.program.rank(case.blinded())
        for role, usage in roles.items():
            if role != "mote":
                ranking[role] = ranking.get(role, 0.0) + usage.calls / n
    calls = {}
    for role, usage in everything.items():
        paid, before = ledger.by_role().get(role, Usage()), paid_before.get(role, Usage())
        sent = paid.calls - before.calls
        calls[role] = PerCall(
            tokens=(usage.tokens_in + usage.tokens_out) / usage.calls,
            usd=None if usage.usd is None else usage.usd / usage.calls,
            seconds=(paid.seconds - before.seconds) / sent if sent else None,
        )
    # Strangers' profiles are those of other shoppers of the ring: each interaction is profiled once.
    profiles = float(judged.interactions) if "mope" in everything else 0.0
    return MeasuredCompile(ranking=ranking, profiles=profiles, calls=calls)


def upper_bound(measured: Sequence[MeasuredCompile], ratios: Mapping[str, float | None]) -> MeasuredCompile:
    """The most that any of several programs takes, at the dearest of the models a role may get.

    Args:
        measured: One per ranking family.
        ratios: By role, how many times as dear as the measured model; None where a price is unknown.
    """
    calls: dict[str, PerCall] = {}
    for role in dict.fromkeys(role for one in measured for role in one.calls):
        found = [one.calls[role] for one in measured if role in one.calls]
        ratio = ratios.get(role, 1.0)
        calls[role] = PerCall(
            tokens=max(call.tokens for call in found),
            usd=_most([None if call.usd is None or ratio is None else call.usd * ratio for call in found]),
            seconds=_most([call.seconds for call in found]),
        )
    roles = dict.fromkeys(role for one in measured for role in one.ranking)
    return MeasuredCompile(
        ranking={role: max(one.ranking.get(role, 0.0) for one in measured) for role in roles},
        profiles=max(one.profiles for one in measured),
        calls=calls,
    )


def _most(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def forecast_compile(
    measured: MeasuredCompile,
    shoppers: tuple[int, int],
    products: tuple[int, int],
    trials: int,
    mote_changes: int,
    proposals: int,
    families: int = 1,
) -> list[Phase]:
    """Upper bounds by phase.

    Args:
        shoppers: Of the search, and held out.
        products: Distinct candidates of the two.
        trials: Programs scored on the shoppers of the search, the uncompiled one included.
        mote_changes: How many of them may have another MOTE prompt, which distils every candidate again.
        proposals: Instructions asked for; each is counted as one call of MAR's model with twice its tokens.
        families: Ranking families; demonstrations are bootstrapped for each.
    """
    shopper = {**measured.ranking, "mope": measured.ranking.get("mope", 0.0) + measured.profiles}
    n, m = shoppers
    once = {role: calls * n for role, calls in shopper.items()}
    return [
        _phase(
            "pools",
            measured,
            {
                **{role: calls * families for role, calls in once.items()},
                "mote": float(products[0]),
                "proposer": float(proposals),
            },
        ),
        _phase(
            "search",
            measured,
            {**{role: calls * (trials - 1) for role, calls in once.items()}, "mote": float(products[0] * mote_changes)},
        ),
        _phase(
            "held-out",
            measured,
            {
                **{role: calls * 2 * m for role, calls in shopper.items()},
                "mote": products[1] * (2.0 if mote_changes else 1.0),
            },
        ),
    ]


def in_all(phases: Sequence[Phase]) -> Phase:
    """The sum; unknown where a part of it is."""
    seconds = [p.seconds for p in phases if p.seconds is not None]
    return Phase(
        name="in all",
        calls=sum(p.calls for p in phases),
        tokens=sum(p.tokens for p in phases),
        usd=Cost.of(p.usd for p in phases).usd,
        seconds=sum(seconds) if len(seconds) == len(phases) else None,
    )


def _phase(name: str, measured: MeasuredCompile, calls: dict[str, float]) -> Phase:
    mar = measured.calls.get("mar") or next(iter(measured.calls.values()), PerCall(tokens=0, usd=None, seconds=None))
    doubled = PerCall(
        tokens=2 * mar.tokens,
        usd=None if mar.usd is None else 2 * mar.usd,
        seconds=None if mar.seconds is None else 2 * mar.seconds,
    )
    per = {"proposer": doubled} | measured.calls
    known = {role: n for role, n in calls.items() if role in per and n}
    usd = [(n, per[role].usd) for role, n in known.items()]
    seconds = [per[role].seconds for role in known]
    return Phase(
        name=name,
        calls=round(sum(known.values())),
        tokens=round(sum(n * per[role].tokens for role, n in known.items())),
        usd=Cost.of(None if price is None else n * price for n, price in usd).usd,
        seconds=None if None in seconds else sum(n * (per[role].seconds or 0.0) for role, n in known.items()),
    )
