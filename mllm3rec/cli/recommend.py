"""`mllm3rec recommend`: products from the whole catalogue for one shopper, with reasons that were checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mllm3rec.cli.console import emit, out, say
from mllm3rec.cli.settings import (
    BudgetUsd,
    Json,
    LedgerFile,
    MaxCalls,
    ModelOption,
    ModelOptions,
    Preset,
    RoleOption,
    SchemaFile,
    Weight,
    open_dataset,
    open_ledger,
    workshop,
)
from mllm3rec.resolve import choose
from programs.mope import HISTORY_ITEMS
from programs.prior.retrieval import retrieve
from programs.program import DEFAULT_WEIGHT, Fusion
from programs.runtime.errors import InputError
from signatures.rows import Case, Status


@dataclass(frozen=True)
class Recommended:
    """One recommended product, and whether its reason passed the check."""

    item_id: str
    title: str
    traits: tuple[str, ...]
    reason: str
    reason_checked: bool


def recommend(
    dataset: Annotated[str, typer.Argument(help="A dataset directory, or `demo`.")],
    user: Annotated[str, typer.Option(help="Whose history to start from.")],
    k: Annotated[int, typer.Option(min=1, help="How many products.")] = 5,
    candidates: Annotated[int, typer.Option(min=1, max=90, help="Retrieved by the prior for MAR to judge.")] = 30,
    ranker: Annotated[str, typer.Option(help="Which program or artifact ranks.")] = "pointwise",
    preset: Preset = "local",
    model: ModelOption = None,
    mope: RoleOption = None,
    mote: RoleOption = None,
    mar: RoleOption = None,
    judge: RoleOption = None,
    weight: Weight = DEFAULT_WEIGHT,
    schema: SchemaFile = None,
    calls: LedgerFile = None,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    as_json: Json = False,
) -> None:
    """Profile a shopper, retrieve candidates with the prior, align, explain, check, and show the first K."""
    data = open_dataset(dataset)
    if user not in data.sequences:
        raise InputError(f"no user {user!r} in {dataset} ({len(data.sequences)} users)")
    history = data.sequences[user]
    # Nothing is held out here: the fit sees every purchase there is, this shopper's own included.
    histories = {u: tuple(i.item_id for i in events) for u, events in data.sequences.items()}
    ledger = open_ledger(calls, budget_usd, max_calls)
    options = ModelOptions(preset, model, mope, mote, mar, judge)
    chosen = choose(ranker, options, Fusion(weight=weight), schema)
    shop = workshop(data, histories, chosen.roles, ledger, chosen.schema, chosen.fusion, explain=k)
    program = chosen.build(shop)
    seen = [interaction.item_id for interaction in history]
    retrieved = retrieve(shop.prior, seen, list(data.items), candidates)
    say(f"{len(retrieved)} candidates of {len(data.items)} products retrieved by the prior; asking the models")
    case = Case(user_id=user, history=history, candidates=retrieved, metadata=data.metadata.get(user, {}))
    with ledger.usage_of_case() as usage:
        ranking = program.rank(case)
    traits = {t.item_id: t.phrases for t in ranking.traits}
    reasons = {r.item_id: r for r in ranking.rationales}
    picked = [
        Recommended(
            item_id=item_id,
            title=data.items[item_id].title or data.items[item_id].keywords or "",
            traits=traits.get(item_id, ()),
            reason=reasons[item_id].text if item_id in reasons else "",
            reason_checked=item_id in reasons and reasons[item_id].verdict.faithful,
        )
        for item_id in ranking.order[:k]
    ]
    filtered = [r for r in ranking.rationales if not r.verdict.faithful]
    shown = history[-HISTORY_ITEMS:]
    profile = [
        m.model_dump() | {"purchases": [data.items[shown[n - 1].item_id].title for n in m.evidence]}
        for m in (ranking.profile.motivations if ranking.profile else ())
    ]
    if as_json:
        emit(
            {
                "user": user,
                "profile": profile,
                "recommendations": [asdict(entry) for entry in picked],
                "filtered": [r.model_dump() for r in filtered],
                "status": ranking.status,
                "usage": usage.model_dump(),
            }
        )
        raise typer.Exit(0 if ranking.status is Status.OK else 1)
    table = Table("motivation", "description", "strength", "rests on", title=f"Profile of {user}", title_justify="left")
    for motive in profile:
        table.add_row(
            motive["dimension"], Text(motive["description"]), motive["strength"], Text("\n".join(motive["purchases"]))
        )
    out.print(table)
    table = Table("", "product", "traits", "reason", "checked", title=f"Top {k}", title_justify="left", show_lines=True)
    for place, entry in enumerate(picked, start=1):
        table.add_row(
            str(place),
            Text(f"{entry.title}\n{entry.item_id}"),
            Text("\n".join(entry.traits)),
            Text(entry.reason or "-"),
            "yes" if entry.reason_checked else "no",
        )
    out.print(table)
    out.print(f"{len(filtered)} products were filtered because their reason did not hold")
    out.print(f"{usage.calls} calls, {usage.cache_hits} from the store, {usage.seconds:.0f} s")
    if ranking.status is not Status.OK:
        raise InputError(f"the models gave no answer that could be read, the prior decided alone: {ranking.error}")
