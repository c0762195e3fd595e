"""Accuracy tables of a protocol: means with intervals, tested differences, bounds, and published rows as context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from evaluate.paper.published import PublishedRow
from evaluate.report.pseudonyms import without_ids
from evaluate.report.ranker_runs import PART_LABELS, RankerRuns, in_common, over_draws
from evaluate.report.record import RunRecord
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
    """Every other ranker, and MAR alone where there is MAR, minus the reference, corrected over all of it.

    Only lists that both ranked count: same user, same draw.
    """
    if reference is None:
        return {}
    sides = {(g.label, ""): g.cells for g in groups if g is not reference}
    sides |= {(g.label, "mar"): g.part("mar") for g in groups if "mar" in g.parts}
    return _corrected({key: _paired(cells, reference.cells) for key, cells in sides.items()})


def pairs(groups: Sequence[RankerRuns], asked: Sequence[tuple[str, str]]) -> Compared:
    """The further pairs (a, b), a minus b, corrected over these alone; pairs that did not run here are left out."""
    by_label = {g.label: g for g in groups}
    return _corrected(
        {(a, b): _paired(by_label[a].cells, by_label[b].cells) for a, b in asked if {a, b} <= by_label.keys()}
    )


def _paired(cells: pd.DataFrame, reference: pd.DataFrame) -> Mapping[str, PairedComparison]:
    mine, theirs = in_common(cells, reference)
    return compare_to(theirs, {"": mine}, seed=0)[""] if len(mine) else {}


def _corrected(found: Compared) -> Compared:
    # Each pair was compared on its own common lists, so the correction over the table comes afterwards.
    flat = {(key, metric): each for key, of in found.items() for metric, each in of.items()}
    corrected = holm({str(i): each.p for i, each in enumerate(flat.values())}).values()
    new = {at: each.model_copy(update={"p_holm": p}) for (at, each), p in zip(flat.items(), corrected, strict=True)}
    return {key: {metric: new[key, metric] for metric in of} for key, of in found.items()}


def main_table(
    groups: Sequence[RankerRuns], reference: str, compared: Compared, empty: Sequence[RunRecord] = ()
) -> Table:
    """One row per ranker, its parts below it, and chance.

    Args:
        empty: Runs without a ranked user, listed so that they are not overlooked.
    """
    size = groups[0].size
    columns = ("ranker", *(f"{m}/{size}" for m in AUDITED_METRICS), "users", "draws", "seeds", "unresolved")
    rows = [row for group in groups for row in _ranker_rows(group, group.label == reference, compared, len(columns))]
    for run in empty:
        counts = (count_cell(0), NONE, NONE, count_cell(run.unresolved))
        rows.append(table_row(word_cell(run.ranker), *[NONE] * len(AUDITED_METRICS), *counts))
    floor = [figure_cell(chance(size)[m]) for m in AUDITED_METRICS]
    rows.append(filled([word_cell("chance (random order)"), *floor], len(columns), kind="chance"))
    fused = any(group.parts for group in groups)
    return Table("main", "Accuracy", _main_caption(size, reference, fused, bool(compared)), columns, tuple(rows))


def _ranker_rows(group: RankerRuns, is_reference: bool, compared: Compared, width: int) -> list[TableRow]:
    counts = [len(group.users), group.draws, group.seeds, group.unresolved]
    label = f"{group.label} (reference)" if is_reference else group.label
    own = _estimates(group.users, compared.get((group.label, ""), {}))
    kind: Kind = "reference" if is_reference else ""
    rows = [table_row(word_cell(label), *own, *map(count_cell, counts), kind=kind)]
    for component in group.parts:
        frame = over_draws(group.part(component))
        cells = _estimates(frame, compared.get((group.label, component), {}))
        name = word_cell(f"{group.label}: {PART_LABELS[component]}")
        rows.append(filled([name, *cells, count_cell(len(frame))], width, kind="part"))
    return rows


def _main_caption(size: int, reference: str, fused: bool, tested: bool) -> str:
    sentences = [
        "Means over users with 95% intervals (bootstrap over users); a user's value is first averaged over draws of "
        f"negatives and over seeds. HR@5/{size} is the share of users whose held-out item is among the first 5 of "
        f"{size}; NDCG@5/{size} also rewards a higher rank. Rankers that ranked fewer users than others compare only "
        "through the paired differences below."
    ]
    if fused:
        sentences.append(
            "A ranker's own row is its fused order; “prior alone” and “MAR alone” are the two scores it fuses, on the "
            "same users."
        )
    if tested:
        sentences.append(
            f"{BETTER} better, {WORSE} worse than {reference} by a paired test on common lists, p < {SIGNIFICANT:g} "
            "after Holm's correction over all comparisons of this protocol."
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
    """Everything minus the reference."""
    names = {key: key[0] + (f": {PART_LABELS[key[1]]}" if key[1] else "") for key in compared}
    caption = (
        f"Mean over common users of a ranker minus {reference}, with 95% intervals; positive is better. "
        "Only lists that both ranked count. p is of a paired randomization test, corrected by Holm's method over the "
        "whole table: of many comparisons, some look large by chance. The interval is not corrected."
    )
    return _compared_table("differences", f"Difference to {reference}", caption, "ranker", size, names, compared)


def pair_table(asked: Sequence[tuple[str, str]], size: int, compared: Compared) -> Table:
    """The further pairs of the study, including those that could not be tested here."""
    names = {pair: f"{pair[0]} − {pair[1]}" for pair in asked}
    caption = (
        "Further pairs the study asks for: mean over common users, the first minus the second. p is corrected by "
        "Holm's method over this table alone."
    )
    return _compared_table("pairs", "Further comparisons", caption, "pair", size, names, compared)


def _compared_table(
    name: str, title: str, caption: str, first: str, size: int, names: Mapping[tuple[str, str], str], compared: Compared
) -> Table:
    columns = (first, "users", *(c for m in AUDITED_METRICS for c in (f"{m}/{size}", f"p of {m}")))
    rows = []
    for key, label in names.items():
        found = compared.get(key, {})
        if not found:
            rows.append(filled([word_cell(f"{label} (no list in common)")], len(columns)))
            continue
        cells = [
            c
            for m in AUDITED_METRICS
            for c in (difference_cell(found[m], _mark(found[m])), probability_cell(_p(found[m])))
        ]
        rows.append(table_row(word_cell(label), count_cell(found[AUDITED_METRICS[0]].n), *cells))
    return Table(name, title, caption, columns, tuple(rows))


def _p(found: PairedComparison) -> float:
    return found.p if found.p_holm is None else found.p_holm


def bounds_table(groups: Sequence[RankerRuns]) -> Table | None:
    """Bounds of the means over resolved and unresolved cases; None where every case was resolved."""
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
        "Unresolved cases (the infrastructure failed, or they were not reached) are not misses. If all of them were "
        "misses the mean would be the lower figure; if all were at rank 1, the higher one. Over all draws and seeds."
    )
    ends = (f"{m}/{size} {end}" for m in AUDITED_METRICS for end in ("at least", "at most"))
    columns = ("ranker", *ends, "ranked", "unresolved")
    return Table("bounds", "Bounds with unresolved cases", caption, columns, tuple(rows))


def published_metric_table(rows: Sequence[PublishedRow]) -> Table:
    """The paper's rows as context, each with its audit."""
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
        f"As published for lists of {size}, not measured here: other users, other negatives and perhaps another "
        "protocol, so do not compare the rows above with these. “Impossible” rows break an identity that every "
        "ranking obeys, by more than rounding explains."
    )
    columns = ("method", *(f"{m}/{size}" for m in AUDITED_METRICS), "audit")
    return Table("published", "Context: as published", caption, columns, tuple(out))


def audit_lines(groups: Sequence[RankerRuns]) -> list[str]:
    """Audit of our own ranks: one line if every run obeys every identity, else one per violation."""
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
    return [f"Audit of our own ranks: {'the run obeys' if n == 1 else f'all {n} runs obey'} every identity."]
