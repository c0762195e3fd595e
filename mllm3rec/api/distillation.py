"""Distil traits ahead of time: MOTE over every candidate of some cases, into the trait store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluate.protocol.cases import Cases, load_cases
from evaluate.ranker_factory import RankerFactory
from mllm3rec.api.options import budget_of
from programs.lm.backends import UnparsableError
from programs.lm.ledger import Ledger
from programs.lm.model_options import Model, ModelOptions
from programs.mote import MOTE
from programs.runtime.events import OnEvent, Progress, ignore
from programs.runtime.interrupts import map_in_threads
from signatures.rows import Usage
from signatures.types import Traits


@dataclass(frozen=True)
class Distillation:
    """What distilling gave.

    Attributes:
        items: Distinct items.
        traits: Phrases that are traits.
        refused: Phrases that validation refused.
        unparsable: Items none of whose answers could be read.
        usage: By role.
    """

    items: int
    traits: int
    refused: int
    unparsable: int
    usage: Mapping[str, Usage]


def distill(
    cases: Cases | str | Path,
    *,
    preset: str = "local",
    mote: Model | None = None,
    workers: int = 1,
    ledger: Path | None = None,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    on_event: OnEvent = ignore,
) -> Distillation:
    """Distil the traits of every candidate; those in the trait store already are not asked for again.

    Args:
        preset, mote: MOTE's model.
        workers: Items distilled at the same time.
        ledger: File that gets every call; its calls count for the budget.

    Raises:
        BudgetExceededError: before a call that would pass the budget; what was distilled is kept.
        InputError: if MOTE's model cannot be asked.
    """
    cases = cases if isinstance(cases, Cases) else load_cases(cases)
    options = ModelOptions(preset, mote=mote)
    calls = Ledger(ledger, budget_of(budget_usd, max_calls))
    factory = RankerFactory.create(cases.dataset, {}, options.roles(), calls, given=options.given)
    module = MOTE(factory.backends_of(), factory.traits_of())
    wanted = list(dict.fromkeys(item_id for case in cases for item_id in case.candidates))
    phrases, refused, unparsable = 0, 0, 0

    def distilled(item_id: str) -> Traits | None:
        try:
            traits: Traits = module(item=cases.dataset.item(item_id)).traits
        except UnparsableError:
            return None
        return traits

    for done, traits in enumerate(map_in_threads(distilled, wanted, workers, calls.stop), start=1):
        if traits is None:
            unparsable += 1
        else:
            phrases += len(traits.phrases)
            refused += len(traits.dropped)
        on_event(Progress("items distilled", done, len(wanted), calls.total()))
    calls.close()
    return Distillation(len(wanted), phrases, refused, unparsable, calls.by_role())
