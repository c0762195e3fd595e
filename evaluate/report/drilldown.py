"""Data of single users for the page's scripts: lists, ranks, scores, profiles and reasons, small enough for one file.

Tables average over all draws and seeds. The drill-down shows one run of each ranker, with the first draw and seed. It
has the ranks of all users and whole rows of the first users; rankers with a language model get more whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluate.report.pseudonyms import pseudonym, without_ids
from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.record import ProtocolRecord, RunRecord
from programs.mope import HISTORY_ITEMS
from signatures.rows import Case, Ranking, Status
from signatures.types import Item

LM_USERS, OTHER_USERS = 150, 60
"""Most users with whole rows in a run, with and without a language model."""

LM_BYTES, OTHER_BYTES = 7000, 400
"""Typical bytes per row: most of them are a language model's traits and reasons."""

ROOM = 3_000_000
"""Most bytes of all rows in a report; if there are many runs, each gets fewer users."""

SHOWN_PARTS = ("prior", "mar", "fused")

TITLE_CHARACTERS = 140

HISTORY_SHOWN = 30

RANK_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

JsonObject = dict[str, object]


@dataclass
class _Items:
    """Items by number, each written once."""

    catalogue: Mapping[str, Item]
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, item_id: str) -> int:
        return self.numbers.setdefault(item_id, len(self.numbers))

    def written(self) -> list[list[str]]:
        """Title and most specific category of every numbered item."""
        return [_item(self.catalogue.get(item_id), item_id) for item_id in self.numbers]


def _item(item: Item | None, item_id: str) -> list[str]:
    if item is None:
        return [item_id, ""]
    deepest: tuple[str, ...] = max(item.categories, key=len, default=())
    return [_cut(item.title or item.keywords or item_id), _cut(" > ".join(deepest[-2:]))]


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= TITLE_CHARACTERS else flat[: TITLE_CHARACTERS - 1] + "…"


def shown_run(group: RankerRuns) -> RunRecord:
    """The one run of a ranker that the drill-down shows."""
    return min(group.runs, key=lambda run: (run.draw, -1 if run.seed is None else run.seed))


def users_per_run(all_groups: Iterable[Sequence[RankerRuns]]) -> tuple[int, int]:
    """Numbers of users with whole rows in each run with and without a language model."""
    shown = [group for groups in all_groups for group in groups if shown_run(group).rows]
    wanted = sum(LM_USERS * LM_BYTES if group.uses_lm else OTHER_USERS * OTHER_BYTES for group in shown)
    scale = min(1.0, ROOM / max(1, wanted))
    return max(1, int(LM_USERS * scale)), max(1, int(OTHER_USERS * scale))


def drilldown(protocol: ProtocolRecord, groups: Sequence[RankerRuns], detailed: tuple[int, int]) -> JsonObject:
    """Data of one protocol.

    Args:
        detailed: Result of `users_per_run`.
    """
    # A draw of which fewer users are ranked has the first of them.
    first = max(protocol.cases.values(), key=len).cases
    number = {case.user_id: i for i, case in enumerate(first)}
    items = _Items(protocol.catalogue)
    runs, wanted = [], {}
    for group in groups:
        run = shown_run(group)
        rows: dict[str, JsonObject] = {}
        traits: dict[tuple[str, ...], int] = {}
        for case in _detailed(protocol.cases[run.draw].cases, run, detailed[0] if group.uses_lm else detailed[1]):
            rows[str(number[case.user_id])] = _row(case, run.rows[case.user_id], traits)
            wanted[run.draw, case.user_id] = case
        runs.append(
            {
                "label": group.label,
                "draw": run.draw,
                "seed": run.seed,
                "uses_lm": group.uses_lm,
                "asked": _asked(run, number),
                "ranks": packed([run.ranks.get(case.user_id, 0) for case in first]),
                "unparsable": [
                    number[user] for user, row in run.rows.items() if row.status is Status.UNPARSABLE and user in number
                ],
                "traits": [list(phrases) for phrases in traits],
                "rows": rows,
            }
        )
    lists: dict[str, dict[str, JsonObject]] = {}
    for (draw, user), case in wanted.items():
        lists.setdefault(str(draw), {})[str(number[user])] = _case(case, items)
    return {
        "size": groups[0].size if groups else 0,
        "users": [pseudonym(case.user_id) for case in first],
        "lengths": [len(case.history) for case in first],
        "runs": runs,
        "lists": lists,
        "items": items.written(),
    }


def _asked(run: RunRecord, number: Mapping[str, int]) -> int:
    """Number of first users that the run had to rank; it may be smaller for rankers with a language model.

    Users among them without a rank are unresolved.
    """
    cases = len(run.ranks) + run.unresolved
    return max(cases, max(number[user] for user in run.ranks) + 1)


def packed(ranks: Sequence[int]) -> str | list[int]:
    """Ranks of all users, one character each if lists are short enough; 0 is unresolved.

    >>> packed([0, 9, 10, 36])
    '09Aa'
    """
    if max(ranks, default=0) >= len(RANK_DIGITS):
        return list(ranks)
    return "".join(RANK_DIGITS[rank] for rank in ranks)


def _detailed(cases: Sequence[Case], run: RunRecord, users: int) -> list[Case]:
    """The cases of the first users that have a row."""
    return [case for case in cases[:users] if case.user_id in run.rows]


def _case(case: Case, items: _Items) -> JsonObject:
    """History (item, rating) and candidates; models saw only the last `HISTORY_ITEMS` of the history."""
    history = [[items.number(event.item_id), event.rating] for event in case.history[-HISTORY_SHOWN:]]
    return {
        "history": history,
        "unshown": max(0, len(history) - HISTORY_ITEMS),
        "earlier": len(case.history) - len(history),
        "candidates": [items.number(item_id) for item_id in case.candidates],
        "target": None if case.target is None else case.candidates.index(case.target),
        "metadata": dict(case.metadata),
    }


def _row(case: Case, row: Ranking, traits: dict[tuple[str, ...], int]) -> JsonObject:
    """A ranker's row, aligned with the candidates; empty fields are left out."""
    index = {item_id: i for i, item_id in enumerate(case.candidates)}
    out: JsonObject = {
        "order": [index[item_id] for item_id in row.order if item_id in index],
        "scores": {name: [_short(score) for score in row.scores[name]] for name in _components(row)},
    }
    if row.status is not Status.OK:
        out["status"] = row.status.value
    if row.error:
        out["error"] = _cut(without_ids(row.error))
    for name in ("appended", "dropped", "unparsable", "score_source"):
        if getattr(row, name):
            out[name] = getattr(row, name)
    if row.profile is not None:
        motivations = [[m.dimension, m.strength, m.description, list(m.evidence)] for m in row.profile.motivations]
        needs = [["may want next", "", need.phrase, list(need.evidence)] for need in row.profile.needs]
        out["profile"] = motivations + needs
    numbered = {t.item_id: traits.setdefault(t.all_phrases, len(traits)) for t in row.traits if t.item_id in index}
    if numbered:
        out["traits"] = [numbered.get(item_id, -1) for item_id in case.candidates]
    reasons = [
        [index[r.item_id], r.text, r.verdict.faithful, r.verdict.why] for r in row.rationales if r.item_id in index
    ]
    if reasons:
        out["reasons"] = reasons
    return out


def _components(row: Ranking) -> list[str]:
    """The parts of a fused row; all scores of any other row."""
    return [name for name in SHOWN_PARTS if name in row.scores] if "fused" in row.scores else list(row.scores)


def _short(score: float) -> float | None:
    """Four digits of a score; None for NaN and infinity, which JSON does not have."""
    return float(f"{score:.4g}") if math.isfinite(score) else None
