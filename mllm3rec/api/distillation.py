"""Make the traits of all candidates before they are ranked, and keep them in the trait store."""

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
    """Result of `distill`.

    Attributes:
        items: Number of distinct items.
        traits: Number of trait phrases.
        refused: Number of phrases that validation refused.
        unparsable: Number of items without a readable answer.
        refused_items: Number of items whose text the provider refused; they have no traits.
        usage: Calls, tokens and dollars by role.
    """

    items: int
    traits: int
    refused: int
    unparsable: int
    refused_items: int
    usage: Mapping[str, Usage]


def distill(
    cases: Cases | str | Path,
    *,
    preset: str = "local",
    timeout: float | None = None,
    max_tokens: int | None = None,
    retry_unparsable: bool = False,
    mote: Model | None = None,
    workers: int = 1,
    ledger: Path | None = None,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    on_event: OnEvent = ignore,
) -> Distillation:
    """Make the traits of all candidates. Items whose traits are in the trait store need no call.

    Args:
        preset, mote: Model of MOTE.
        timeout, max_tokens: Most seconds of one call, and most tokens of one answer.
        retry_unparsable: Whether to ask again where the stored answer is unreadable.
        workers: Number of items processed in parallel.
        ledger: File that records every call; calls already in it count against the budget.

    Raises:
        BudgetExceededError: before a call that might exceed the budget; finished traits are kept.
        InputError: if the model of MOTE cannot be used.
    """
    cases = cases if isinstance(cases, Cases) else load_cases(cases)
    options = ModelOptions(preset, mote=mote, timeout=timeout, max_tokens=max_tokens)
    calls = Ledger(ledger, budget_of(budget_usd, max_calls, max_minutes))
    factory = RankerFactory.create(cases.dataset, {}, options.roles(), calls, given=options.given, on_event=on_event)
    factory.backends_of().retry_unparsable = retry_unparsable
    module = MOTE(factory.backends_of(), factory.traits_of())
    wanted = list(dict.fromkeys(item_id for case in cases for item_id in case.candidates))
    phrases, refused, unparsable, refused_items = 0, 0, 0, 0

    def distilled(item_id: str) -> Traits | None:
        try:
            traits: Traits = module(item=cases.dataset.item(item_id)).traits
        except UnparsableError:
            return None
        return traits

    for done, traits in enumerate(map_in_threads(distilled, wanted, workers, calls.stop), start=1):
        if traits is None:
            unparsable += 1
        elif traits.refused_by_provider:
            refused_items += 1
        else:
            phrases += len(traits.phrases)
            refused += len(traits.dropped)
        on_event(Progress("items distilled", done, len(wanted), calls.total()))
    calls.close()
    return Distillation(len(wanted), phrases, refused, unparsable, refused_items, calls.by_role())
