"""Forecast of a compile: upper bounds of calls, tokens, dollars and seconds per phase, from a few measured calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from evaluate.runs.costs import known_sum
from optimize.candidates import kind_of
from optimize.scoring import ScoredProgram
from optimize.settings import CompileSettings
from programs.lm.ledger import Budget, Ledger
from programs.lm.prices import PriceTable
from programs.lm.roles import ROLE_NAMES
from signatures.rows import Case, Usage

COMPILE_SAMPLE = 2
FINALS = "finals"


class PerCall(BaseModel):
    """Mean of one role's measured calls; `usd` and `seconds` are None if unknown."""

    model_config = ConfigDict(frozen=True)

    tokens: float
    usd: float | None
    seconds: float | None


class MeasuredCompile(BaseModel):
    """Measured work for a few users.

    Attributes:
        ranking: Calls per user for a ranking, by role, without MOTE.
        profiles: Calls of MOPE per user for the profiles of the objective.
        calls: Means of one call, by role.
    """

    model_config = ConfigDict(frozen=True)

    ranking: dict[str, float]
    profiles: float
    calls: dict[str, PerCall]


class Phase(BaseModel):
    """Upper bounds for one phase of a compile, without savings by cache hits, pruned trials and shared prompts.

    `usd` is None if a model has no known price, `seconds` if every measured call was a cache hit.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    calls: int
    tokens: int
    usd: float | None
    seconds: float | None

    def deducted_from(self, budget: Budget) -> Budget:
        """What is left of a budget after this phase; an unknown price counts as 0."""
        return budget.minus(self.usd or 0.0, self.calls)


def measure_compile(program: ScoredProgram, cases: Sequence[Case], ledger: Ledger) -> MeasuredCompile:
    """Score the first `COMPILE_SAMPLE` users with the uncompiled program."""
    sample = cases[:COMPILE_SAMPLE]
    paid_before = ledger.by_role()
    with ledger.standalone_usage() as all_usage:
        for case in sample:
            program(case=case)
    ranking: dict[str, float] = {}
    for case in sample:
        with ledger.standalone_usage() as ranking_usage:
            program.program.rank(case.blinded())
        for role, usage in ranking_usage.items():
            if role != "mote":
                ranking[role] = ranking.get(role, 0.0) + usage.calls / len(sample)
    calls = {}
    for role, usage in all_usage.items():
        paid, before = ledger.by_role().get(role, Usage()), paid_before.get(role, Usage())
        sent = paid.calls - before.calls
        calls[role] = PerCall(
            tokens=(usage.tokens_in + usage.tokens_out) / usage.calls,
            usd=None if usage.usd is None else usage.usd / usage.calls,
            seconds=(paid.seconds - before.seconds) / sent if sent else None,
        )
    # The profiles of other users are those of users of the search: each interaction is profiled once.
    profiles = float(program.interactions) if "mope" in all_usage else 0.0
    return MeasuredCompile(ranking=ranking, profiles=profiles, calls=calls)


def upper_bound(measured: Sequence[MeasuredCompile], price_ratios: Mapping[str, float | None]) -> MeasuredCompile:
    """The maximum over several programs, with the most expensive models of each role.

    Args:
        measured: One per program.
        price_ratios: See `most_expensive`.
    """
    calls: dict[str, PerCall] = {}
    for role in dict.fromkeys(role for program in measured for role in program.calls):
        means = [program.calls[role] for program in measured if role in program.calls]
        ratio = price_ratios.get(role, 1.0)
        calls[role] = PerCall(
            tokens=max(mean.tokens for mean in means),
            usd=_known_max([None if mean.usd is None or ratio is None else mean.usd * ratio for mean in means]),
            seconds=_known_max([mean.seconds for mean in means]),
        )
    roles = dict.fromkeys(role for program in measured for role in program.ranking)
    return MeasuredCompile(
        ranking={role: max(program.ranking.get(role, 0.0) for program in measured) for role in roles},
        profiles=max(program.profiles for program in measured),
        calls=calls,
    )


def most_expensive(settings: CompileSettings, prices: PriceTable) -> dict[str, float | None]:
    """By role, the price of the most expensive model of the search relative to the role's own; None if unknown."""
    return {
        role: _price_ratio(settings.roles.of(role).model, settings.space.models.get(role, ()), prices)
        for role in ROLE_NAMES
    }


def _price_ratio(own: str, models: Sequence[str], prices: PriceTable) -> float | None:
    if not models:
        return 1.0
    price = prices.of(own)
    if price is None or not price.input or not price.output:
        return None
    ratios = []
    for model in models:
        other = prices.of(model)
        # A price per hour does not tell the price of the same tokens on another model.
        if other is None or other.usd_per_hour is not None:
            return None
        ratios.append(max(other.input / price.input, other.output / price.output))
    return max(ratios)


@dataclass(frozen=True)
class FinalUsers:
    """Users of the final round whom no trial scores, the items to distil for them, and whether labels are drawn."""

    users: int = 0
    items: int = 0
    drawn: bool = True


def forecast_compile(
    measured: MeasuredCompile,
    settings: CompileSettings,
    users: tuple[int, int],
    items: tuple[int, int],
    pools: Mapping[str, int],
    finals: FinalUsers = FinalUsers(),
) -> list[Phase]:
    """Upper bounds by phase.

    Args:
        users: Number of users in the search, and held out.
        items: Number of items that need traits after MOTE's prompt changed, for each of the two.
        pools: Number of predictors of each pool; each proposal is counted as one call of MAR's model with twice its
            tokens.
        finals: Users of the final round.
    """
    kinds = Counter(map(kind_of, pools))
    proposals = sum(pools.values()) * (settings.recipe.wordings + settings.recipe.reflections) + kinds["mope"]
    mote_changes = _mote_changes(measured, settings, users[0], items[0])
    per_user = {**measured.ranking, "mope": measured.ranking.get("mope", 0.0) + measured.profiles}
    scoring = {role: calls * users[0] for role, calls in per_user.items()}
    programs, trials = len(settings.space.families), settings.trials
    finals_calls = {}
    if settings.finalists:
        finals_calls[FINALS] = _final_calls(measured, settings, users[0], finals, mote_changes)
    calls_by_phase = {
        "pools": {role: calls * programs for role, calls in scoring.items()}
        | {"mote": float(items[0] * kinds["mote"]), "proposer": float(proposals)},
        "search": {role: calls * (trials - 1) for role, calls in scoring.items()}
        | {"mote": float(items[0] * mote_changes)},
        **finals_calls,
        "held-out": {role: calls * 2 * users[1] for role, calls in per_user.items()}
        | {"mote": items[1] * (2.0 if mote_changes else 1.0)},
    }
    return [_phase(name, measured, calls) for name, calls in calls_by_phase.items()]


def _final_calls(
    measured: MeasuredCompile, settings: CompileSettings, searched: int, finals: FinalUsers, mote_changes: int
) -> dict[str, float]:
    """Calls of the final round: new users, and for each further draw MAR's question again; profiles stay the same."""
    programs = settings.finalists + 1
    calls = {role: calls * finals.users * programs for role, calls in measured.ranking.items()}
    calls["mope"] = calls.get("mope", 0.0) + measured.profiles * finals.users * programs
    if finals.drawn:
        again = measured.ranking.get("mar", 0.0) * (settings.draws - 1) * (searched + finals.users)
        calls["mar"] = calls.get("mar", 0.0) + again * programs
    return {**calls, "mote": float(finals.items * (programs if mote_changes else 1))}


def _mote_changes(measured: MeasuredCompile, settings: CompileSettings, users: int, items: int) -> int:
    """Most trials with a new prompt of MOTE, which makes all traits again (see `Search.period`)."""
    if "mote" not in {*settings.modules, *settings.space.models, *settings.space.temperatures}:
        return 0
    calls = sum(measured.ranking.values()) * users
    period = max(1, math.ceil(items / calls)) if calls else 1
    return math.ceil((settings.trials - 1) / period)


def finals_phase(phases: Sequence[Phase]) -> Phase:
    """The final round; nothing if there is none."""
    nothing = Phase(name=FINALS, calls=0, tokens=0, usd=0.0, seconds=0.0)
    return next((phase for phase in phases if phase.name == FINALS), nothing)


def held_out_phase(phases: Sequence[Phase]) -> Phase:
    """The check of the winner on held-out users."""
    return next(phase for phase in phases if phase.name == "held-out")


def check_unpaid(phases: Sequence[Phase], budget: Budget) -> str | None:
    """Why a budget is too small for the held-out check; None if it is enough, or 0 (for cache hits only)."""
    check, least = held_out_phase(phases), total_phase([phase for phase in phases if phase.name != "search"])
    for limit, alone, needed, shown in (
        (budget.usd, check.usd, least.usd, _dollars),
        (budget.calls, check.calls, least.calls, _calls),
    ):
        if limit and alone is not None and needed is not None and alone >= limit:
            return (
                f"the budget of {shown(limit)} is too small: the held-out check alone takes up to {shown(alone)}; "
                f"give at least {shown(needed)}, or fewer dev users"
            )
    return None


def search_is_paid(phases: Sequence[Phase], budget: Budget) -> bool:
    """Whether a budget pays for the candidates and half of the search."""
    pools, search = (next(phase for phase in phases if phase.name == name) for name in ("pools", "search"))
    return all(
        limit is None or first is None or rest is None or limit >= first + rest / 2
        for limit, first, rest in ((budget.usd, pools.usd, search.usd), (budget.calls, pools.calls, search.calls))
    )


def search_unpaid(phases: Sequence[Phase], budget: Budget) -> str | None:
    """Why a budget may end the search early, or None."""
    whole = total_phase(phases)
    for limit, most, shown in ((budget.usd, whole.usd, _dollars), (budget.calls, whole.calls, _calls)):
        if limit is not None and most is not None and most > limit:
            return f"the budget of {shown(limit)} may end the search early: all of it takes up to {shown(most)}"
    return None


def _dollars(usd: float) -> str:
    return f"${usd:.2f}" if usd >= 0.1 else f"${usd:.4f}"


def _calls(calls: float) -> str:
    return f"{calls:,.0f} calls"


def total_phase(phases: Sequence[Phase]) -> Phase:
    """The sum of phases; unknown if a part is unknown."""
    return Phase(
        name="in all",
        calls=sum(phase.calls for phase in phases),
        tokens=sum(phase.tokens for phase in phases),
        usd=known_sum(phase.usd for phase in phases),
        seconds=known_sum(phase.seconds for phase in phases),
    )


def _phase(name: str, measured: MeasuredCompile, calls: Mapping[str, float]) -> Phase:
    mar = measured.calls.get("mar") or next(iter(measured.calls.values()), PerCall(tokens=0, usd=None, seconds=None))
    doubled = PerCall(
        tokens=2 * mar.tokens,
        usd=_times(2, mar.usd),
        seconds=_times(2, mar.seconds),
    )
    per_call = {"proposer": doubled} | measured.calls
    known = {role: n for role, n in calls.items() if role in per_call and n}
    return Phase(
        name=name,
        calls=round(sum(known.values())),
        tokens=round(sum(n * per_call[role].tokens for role, n in known.items())),
        usd=known_sum(_times(n, per_call[role].usd) for role, n in known.items()),
        seconds=known_sum(_times(n, per_call[role].seconds) for role, n in known.items()),
    )


def _times(n: float, value: float | None) -> float | None:
    return None if value is None else n * value


def _known_max(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
