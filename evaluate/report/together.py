"""Tables of several protocols together: each user's difference to the reference, averaged over the protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from evaluate.report.accuracy import compared_table, corrected
from evaluate.report.ranker_runs import in_common
from evaluate.report.record import StudyRecord
from evaluate.report.sections import ProtocolSection
from evaluate.report.table import Table
from evaluate.stats.significance import PairedComparison, compare_to


def together_tables(record: StudyRecord, found: Sequence[ProtocolSection]) -> list[Table]:
    """One table for each dataset and group of `record.together`, if a ranker and the reference ran on all of it."""
    datasets = dict.fromkeys(section.protocol.dataset for section in found)
    tables = (_table(record.reference, names, of, found) for of in datasets for names in record.together)
    return [table for table in tables if table is not None]


def _table(reference: str, names: Sequence[str], dataset: str, found: Sequence[ProtocolSection]) -> Table | None:
    chosen = [s for s in found if s.protocol.dataset == dataset and s.protocol.name in names]
    by_label = [{group.label: group for group in section.groups} for section in chosen]
    if len(by_label) < len(names) or not all(reference in groups for groups in by_label):
        return None
    compared: dict[tuple[str, str], Mapping[str, PairedComparison]] = {}
    for label in set.intersection(*(set(groups) for groups in by_label)) - {reference}:
        sides = [in_common(groups[label].cells, groups[reference].cells) for groups in by_label]
        mine, theirs = (pd.concat(frames).groupby("user_id").mean() for frames in zip(*sides, strict=True))
        compared[label, ""] = compare_to(theirs, {"": mine}, seed=0)[""] if len(mine) else {}
    if not compared:
        return None
    where = " and ".join(names)
    caption = (
        f"Mean over the users of {where} ({dataset}) of a ranker minus {reference}, with 95% intervals; positive is "
        "better. A user who is in several of these protocols counts once, with the mean of their differences. p is "
        "from a paired randomization test, with Holm's correction over this table."
    )
    labels = {(label, ""): label for label in by_label[0] if (label, "") in compared}
    size = by_label[0][reference].size
    title = f"{where} together: difference to {reference}"
    name = "-".join(["together", dataset, *names])
    return compared_table(name, title, caption, "ranker", size, labels, corrected(compared))
