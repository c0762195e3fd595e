"""Accuracy tables of a protocol: means with intervals, tested differences, bounds, and published results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from evaluate.paper.published import PublishedRow
from evaluate.protocol.nobody_first import NOBODY_FIRST, NobodyHasItFirst
from evaluate.report.pseudonyms import without_ids
from evaluate.report.ranker_runs import PART_LABELS, RankerRuns, cells_of, in_common, over_draws
from evaluate.report.record import ProtocolRecord, RunRecord
from evaluate.report.table import (
    BETTER,
    NONE,
    WORSE,
    Kind,
    Table,
    TableCell,
    TableRow,
    count_cell,
    difference_cell,
    estimate_cell,
    figure_cell,
    filled,
    probability_cell,
    table_row,
    word_cell,
)
from evaluate.stats.audit import AUDITED_METRICS, PAPER_LIST_SIZE, audit_ranks, audit_row
from evaluate.stats.intervals import bootstrap_mean
from evaluate.stats.metrics import chance
from evaluate.stats.significance import PairedComparison, compare_to, holm

SIGNIFICANT = 0.05
"""A corrected p below this gets a mark."""

Compared = Mapping[tuple[str, str], Mapping[str, PairedComparison]]
"""Comparisons by (label, component) and metric; the component is empty for the ranker's own order."""


def against(reference: RankerRuns | None, groups: Sequence[RankerRuns]) -> Compared:
    """Each ranker, and MAR alone if there is MAR, minus the reference, with Holm's correction over all of them.

    Only lists (same user, same draw) that both ranked count.
    """
    if reference is None:
        return {}
    sides = {(g.label, ""): g.cells for g in groups if g is not reference}
    sides |= {(g.label, "mar"): g.part("mar") for g in groups if "mar" in g.parts}
    return corrected({key: _paired(cells, reference.cells) for key, cells in sides.items()})


def pairs(groups: Sequence[RankerRuns], asked: Sequence[tuple[str, str]]) -> Compared:
    """The further pairs (a, b), a minus b, with Holm's correction over these alone; pairs without runs are left out."""
    by_label = {g.label: g for g in groups}
    return corrected(
        {(a, b): _paired(by_label[a].cells, by_label[b].cells) for a, b in asked if {a, b} <= by_label.keys()}
    )


def _paired(cells: pd.DataFrame, reference: pd.DataFrame) -> Mapping[str, PairedComparison]:
    mine, theirs = in_common(cells, reference)
    return compare_to(theirs, {"": mine}, seed=0)[""] if len(mine) else {}


def corrected(found: Compared) -> Compared:
    """The same comparisons with Holm's correction over all of them."""
    # Each pair has its own common lists, so it was tested alone; the correction over all pairs comes here.
    flat = {(key, metric): each for key, of in found.items() for metric, each in of.items()}
    after = holm({str(i): each.p for i, each in enumerate(flat.values())}).values()
    new = {at: each.model_copy(update={"p_holm": p}) for (at, each), p in zip(flat.items(), after, strict=True)}
    return {key: {metric: new[key, metric] for metric in of} for key, of in found.items()}


def main_table(
    groups: Sequence[RankerRuns], reference: str, compared: Compared, empty: Sequence[RunRecord] = ()
) -> Table:
    """One row per ranker, with its parts below it, one for chance, and in cold settings one for `NobodyHasItFirst`.

    Args:
        empty: Runs without a ranked user; they get rows without figures.
    """
    size = groups[0].size
    columns = ("ranker", *(f"{m}/{size}" for m in AUDITED_METRICS), "users", "draws", "seeds", "unresolved")
    rows = [row for group in groups for row in _ranker_rows(group, group.label == reference, compared, len(columns))]
    for run in empty:
        counts = (count_cell(0), NONE, NONE, count_cell(run.unresolved))
        rows.append(table_row(word_cell(run.ranker), *[NONE] * len(AUDITED_METRICS), *counts))
    rows += _nobody_first_row(groups, len(columns))
    floor = [figure_cell(chance(size)[m]) for m in AUDITED_METRICS]
    rows.append(filled([word_cell("chance (random order)"), *floor], len(columns), kind="chance"))
    fused = any(group.parts for group in groups)
    return Table("main", "Accuracy", _main_caption(size, reference, fused, bool(compared)), columns, tuple(rows))


def _ranker_rows(group: RankerRuns, is_reference: bool, compared: Compared, width: int) -> list[TableRow]:
    counts = [len(group.users), group.draws, group.seeds, group.unresolved]
    label = f"{group.label} (reference)" if is_reference else group.label
    if not all(run.readable for run in group.runs):
        label += " (answers unparsable)"
    own = _estimates(group.users, compared.get((group.label, ""), {}))
    kind: Kind = "reference" if is_reference else ""
    rows = [table_row(word_cell(label), *own, *map(count_cell, counts), kind=kind)]
    for component in group.parts:
        frame = over_draws(group.part(component))
        cells = _estimates(frame, compared.get((group.label, component), {}))
        name = word_cell(f"{group.label}: {PART_LABELS[component]}")
        rows.append(filled([name, *cells, count_cell(len(frame))], width, kind="part"))
    return rows


def _nobody_first_row(groups: Sequence[RankerRuns], width: int) -> list[TableRow]:
    """The figures of `NobodyHasItFirst` on cold lists, unless the study has it as a ranker or ranks the catalogue."""
    frame = nobody_first_values(groups[0].protocol, groups[0].size)
    if frame is None or any(group.label == NOBODY_FIRST for group in groups):
        return []
    return [filled([word_cell(NOBODY_FIRST), *_estimates(frame, {}), count_cell(len(frame))], width, kind="chance")]


def nobody_first_values(protocol: ProtocolRecord, size: int) -> pd.DataFrame | None:
    """Metrics of `NobodyHasItFirst` by user on cold lists of that many candidates; None where there are none."""
    sampled = [cases for cases in protocol.cases.values() if len(cases[0].candidates) == size]
    if all(cases.protocol.setting == "warm" for cases in sampled):
        return None
    return over_draws(cells_of(nobody_first_ranks(protocol)))


def nobody_first_ranks(protocol: ProtocolRecord) -> dict[tuple[int, int | None], dict[str, int]]:
    """Ranks of the targets by `NobodyHasItFirst`, as a run of it gives them, by draw."""
    scorer = NobodyHasItFirst(protocol.popularity)
    ranks: dict[tuple[int, int | None], dict[str, int]] = {}
    for draw, cases in protocol.cases.items():
        ranks[draw, None] = {}
        for case in cases:
            scores = scorer.scores(case.item_ids, case.candidates)
            target = scores[case.candidates.index(str(case.target))]
            ranks[draw, None][case.user_id] = 1 + int((scores > target).sum())
    return ranks


def _main_caption(size: int, reference: str, fused: bool, tested: bool) -> str:
    sentences = [
        "Means over users with 95% intervals (bootstrap over users). A user's value is first averaged over draws of "
        f"negatives and over seeds. HR@5/{size} is the share of users whose held-out item is among the first 5 of "
        f"{size}; NDCG@5/{size} also rewards a higher rank. If rankers have different numbers of users, compare them "
        "only by the paired differences below."
    ]
    if fused:
        sentences.append(
            "The row of a ranker is its fused order. “Prior alone” and “MAR alone” rank the same users by one of the "
            "two scores that are fused."
        )
    if tested:
        sentences.append(
            f"{BETTER} means better and {WORSE} worse than {reference}: a paired test on common lists has "
            f"p < {SIGNIFICANT:g} after Holm's correction over all comparisons of this protocol."
        )
    return " ".join(sentences)


def _estimates(frame: pd.DataFrame, compared: Mapping[str, PairedComparison]) -> list[TableCell]:
    return [
        estimate_cell(bootstrap_mean(frame[m].to_numpy(), seed=0), _mark(compared[m]) if m in compared else "")
        for m in AUDITED_METRICS
    ]


def _mark(found: PairedComparison) -> str:
    if found.p_holm is None or found.p_holm >= SIGNIFICANT or not found.mean:
        return ""
    return BETTER if found.mean > 0 else WORSE


def difference_table(reference: str, size: int, compared: Compared) -> Table:
    """All rankers minus the reference."""
    names = {key: key[0] + (f": {PART_LABELS[key[1]]}" if key[1] else "") for key in compared}
    caption = (
        f"Mean over common users of a ranker minus {reference}, with 95% intervals; positive is better. "
        "Only lists that both ranked count. p is from a paired randomization test, with Holm's correction over the "
        "whole table, because some of many differences look large by chance. The interval is not corrected."
    )
    return compared_table("differences", f"Difference to {reference}", caption, "ranker", size, names, compared)


def pair_table(asked: Sequence[tuple[str, str]], size: int, compared: Compared) -> Table:
    """The further pairs of the study; pairs that could not be tested have empty rows."""
    names = {pair: f"{pair[0]} − {pair[1]}" for pair in asked}
    caption = (
        "Further pairs of the study file: mean over common users, the first ranker minus the second. p has Holm's "
        "correction over this table alone."
    )
    return compared_table("pairs", "Further comparisons", caption, "pair", size, names, compared)


def compared_table(
    name: str, title: str, caption: str, first: str, size: int, names: Mapping[tuple[str, str], str], compared: Compared
) -> Table:
    """A row for each name: its comparison with every audited metric and p.

    Args:
        first: Head of the column of names.
        size: Length of the ranked lists.
        compared: A name without a comparison gets a row without figures.
    """
    columns = (first, "users", *(c for m in AUDITED_METRICS for c in (f"{m}/{size}", f"p of {m}")))
    rows = []
    for key, label in names.items():
        found = compared.get(key, {})
        if not found:
            rows.append(filled([word_cell(f"{label} (no list in common)")], len(columns)))
            continue
        cells = [cell for m in AUDITED_METRICS for cell in tested_cells(found[m])]
        rows.append(table_row(word_cell(label), count_cell(found[AUDITED_METRICS[0]].n), *cells))
    return Table(name, title, caption, columns, tuple(rows))


def tested_cells(found: PairedComparison) -> list[TableCell]:
    """A difference with its mark, and its p, corrected if it was corrected."""
    p = found.p if found.p_holm is None else found.p_holm
    return [difference_cell(found, _mark(found)), probability_cell(p)]


def bounds_table(groups: Sequence[RankerRuns]) -> Table | None:
    """Bounds of the means over resolved and unresolved cases; None if every case was resolved."""
    unresolved = [group for group in groups if group.unresolved]
    if not unresolved:
        return None
    size = unresolved[0].size
    rows = []
    for group in unresolved:
        found = group.bounds()
        cells = [figure_cell(end) for m in AUDITED_METRICS for b in [found[group.sized(m)]] for end in (b.low, b.high)]
        rows.append(table_row(word_cell(group.label), *cells, count_cell(group.resolved), count_cell(group.unresolved)))
    caption = (
        "An unresolved case has no result, because a call failed or the run was stopped. It is not a miss. The lower "
        "figure is the mean if all unresolved cases were misses, the higher one if all were at rank 1. Over all draws "
        "and seeds."
    )
    ends = (f"{m}/{size} {end}" for m in AUDITED_METRICS for end in ("at least", "at most"))
    columns = ("ranker", *ends, "ranked", "unresolved")
    return Table("bounds", "Bounds with unresolved cases", caption, columns, tuple(rows))


def published_metric_table(rows: Sequence[PublishedRow]) -> Table:
    """Published results of the paper, each with its audit."""
    out = []
    for published in rows:
        finding = audit_row(published.row)
        figures = published.row.figures
        cells = [TableCell(str(figures[m]), float(figures[m])) if m in figures else NONE for m in AUDITED_METRICS]
        if finding.impossible:
            verdict = f"impossible: {finding.violations[0]}"
        else:
            verdict = "; ".join(finding.notes) or "possible"
        out.append(
            table_row(
                word_cell(published.label),
                *cells,
                word_cell(verdict),
                kind="impossible" if finding.impossible else "published",
            )
        )
    size = PAPER_LIST_SIZE
    caption = (
        f"As published for lists of {size}; not measured here. Users and negatives differ, and perhaps the "
        "protocol, so these rows cannot be compared with the rows above. “Impossible” rows contradict an identity that "
        "holds for every ranking, by more than rounding can explain."
    )
    columns = ("method", *(f"{m}/{size}" for m in AUDITED_METRICS), "audit")
    return Table("published", "Published results", caption, columns, tuple(out))


def audit_lines(groups: Sequence[RankerRuns]) -> list[str]:
    """Audit of our own ranks: one line if all runs pass, else one line per violation."""
    runs = [(group, run) for group in groups for run in group.runs]
    broken = []
    for group, run in runs:
        finding = audit_ranks(run.ranks, method=group.label, list_size=group.size)
        broken += [
            f"{group.label}, draw {run.draw}, seed {run.seed}: {without_ids(str(violation))}"
            for violation in finding.violations
        ]
    if broken:
        return broken
    n = len(runs)
    return [f"Audit of our own ranks: {'the run passes' if n == 1 else f'all {n} runs pass'}."]
