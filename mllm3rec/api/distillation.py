"""Make the traits of all candidates before they are ranked, and keep them in the trait store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluate.protocol.cases import Cases
from evaluate.ranker_factory import RankerFactory
from mllm3rec.api.options import budget_of
from mllm3rec.api.sessions import closing_calls, read_cases
from programs.batch.via import Via, batch_run
from programs.lm.backends import UnparsableError
from programs.lm.ledger import Ledger
from programs.lm.model_options import Model, ModelOptions
from programs.lm.pending import GivenUpError, PendingCall
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
        failed: Number of items about which batches left the question open; the same call asks again.
        usage: Calls, tokens and dollars by role.
    """

    items: int
    traits: int
    refused: int
    unparsable: int
    refused_items: int
    failed: int = 0
    usage: Mapping[str, Usage] = field(default_factory=dict)


def distill(
    cases: Cases | str | Path,
    *,
    preset: str | None = None,
    timeout: float | None = None,
    max_tokens: int | None = None,
    retry_unparsable: bool = False,
    mote: Model | None = None,
    workers: int = 1,
    via: Via = "calls",
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
        retry_unparsable: Whether to ask again where the stored answer is unparsable.
        workers: Number of items processed in parallel.
        via: See `evaluate`.
        ledger: File that records every call; calls already in it count against the budget.

    Raises:
        BudgetExceededError: before a call or a batch that might exceed the budget; finished traits are kept.
        InputError: if the model of MOTE cannot be used.
        WaveWritten: after questions were written to the file `via`.
    """
    cases = read_cases(cases)
    options = ModelOptions(preset, mote=mote, timeout=timeout, max_tokens=max_tokens)
    calls = Ledger(ledger, budget_of(budget_usd, max_calls, max_minutes))
    batch = batch_run(via, calls, retry_unparsable, on_event)
    factory = RankerFactory.create(
        cases.dataset,
        {},
        options.roles(),
        calls,
        given=options.given,
        batch=batch,
        retry_unparsable=retry_unparsable,
        on_event=on_event,
    )
    module = MOTE(factory.backends_of(), factory.traits_of())
    wanted = list(dict.fromkeys(item_id for case in cases for item_id in case.candidates))

    def distilled(item_id: str) -> Traits | UnparsableError | GivenUpError | PendingCall:
        try:
            traits: Traits = module(item=cases.dataset.item(item_id)).traits
        except (UnparsableError, GivenUpError, PendingCall) as outcome:
            return outcome
        return traits

    def wave() -> Distillation:
        outcomes = []
        for outcome in map_in_threads(distilled, wanted, workers, calls.stop):
            if not isinstance(outcome, PendingCall):
                outcomes.append(outcome)
                on_event(Progress("items distilled", len(outcomes), len(wanted), calls.total()))
        return _counted(outcomes, len(wanted))

    with closing_calls(calls, batch):
        found = wave() if batch is None else batch.until_answered(wave)
    return replace(found, usage=calls.by_role())


def _counted(outcomes: Sequence[Traits | UnparsableError | GivenUpError], items: int) -> Distillation:
    traits = [outcome for outcome in outcomes if isinstance(outcome, Traits)]
    accepted = [one for one in traits if not one.refused_by_provider]
    return Distillation(
        items,
        traits=sum(len(one.phrases) for one in accepted),
        refused=sum(len(one.dropped) for one in accepted),
        unparsable=sum(isinstance(outcome, UnparsableError) for outcome in outcomes),
        refused_items=len(traits) - len(accepted),
        failed=sum(isinstance(outcome, GivenUpError) for outcome in outcomes),
    )
