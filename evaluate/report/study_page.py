"""The page of a study: its tabs, and the data of its interactive views."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from evaluate.report import figures
from evaluate.report.blocks import (
    Block,
    Code,
    Details,
    Glossary,
    Lead,
    Lines,
    Notice,
    Page,
    PerProtocol,
    Tab,
    View,
)
from evaluate.report.drilldown import JsonObject, drilldown, users_per_run
from evaluate.report.failures import UNCHECKED
from evaluate.report.pseudonyms import PSEUDONYM_DIGITS
from evaluate.report.record import StudyRecord
from evaluate.report.reproduction import missing_table, study_tables
from evaluate.report.sections import ProtocolSection, summary_table
from evaluate.report.slices import LENGTHS
from evaluate.report.together import together_tables
from evaluate.stats.metrics import CUTOFFS

VIEWS_SCRIPT = "users.js"

GLOSSARY = {
    "HR@5/30": "Hit rate: the share of users whose held-out item is among the first 5 of a list of 30. The list length "
    "belongs to the name: the same ranker scores higher on shorter lists.",
    "NDCG@5/30": "1 / log2(rank + 1) if the held-out item is among the first 5, else 0; averaged over users. Rank 1 "
    "counts 1, rank 5 counts .39.",
    "chance": "The mean of a random order. A ranker near it is no better than random.",
    "interval": "95% bootstrap interval: the likely range of the mean for other users of the same kind.",
    "▲ ▼": "Significantly better or worse than the reference: paired randomization test on the same users and lists, "
    "at 5% after Holm's correction for the number of comparisons.",
    "draw": "One sample of negatives for the same users and held-out items.",
    "seed": "A training or sampling seed of a ranker.",
    "unresolved": "A case without a result, because a call failed or the run was stopped. It is not counted as a "
    "miss; the mean gets bounds.",
    "cache hit": "An answer from the response cache: nothing was sent and nothing was paid.",
    "fused, prior alone, MAR alone": "The order that a user gets is by the fused score of two parts: the prior, "
    "which needs no language model, and MAR, the language model's score of how traits match motivations.",
    "u-…": "A pseudonym of a user: the beginning of the hash of the user id.",
}


def study_page(record: StudyRecord, found: Sequence[ProtocolSection], tabs: Sequence[Tab] = ()) -> Page:
    """The whole page.

    Args:
        tabs: Further tabs, put before those of the study.
    """
    return Page(
        title=record.title or record.name,
        tabs=[
            *tabs,
            Tab("overview", "Overview", _overview(record, found)),
            _per_protocol("accuracy", "Accuracy", found, lambda section: section.accuracy),
            _per_protocol("slices", "Slices", found, lambda section: section.slices),
            _per_protocol("failures", "Failures", found, lambda section: section.failures),
            _per_protocol("cost", "Cost", found, lambda section: section.costs),
            Tab("users", "Users", [View("users")], per_protocol=True),
            Tab("versus", "A against B", [View("versus")], per_protocol=True),
            Tab("reproduce", "Reproduce", _reproduce(record, found)),
        ],
        protocols=[section.name for section in found],
        data=_view_data(record, found),
        scripts=[VIEWS_SCRIPT],
        warnings=record.warnings,
    )


def _per_protocol(
    name: str, title: str, found: Sequence[ProtocolSection], blocks_of: Callable[[ProtocolSection], Sequence[Block]]
) -> Tab:
    nothing = [Lines(["No user was ranked here."])]
    blocks = [PerProtocol(i, section.name, blocks_of(section) or nothing) for i, section in enumerate(found)]
    return Tab(name, title, blocks, per_protocol=True)


def _overview(record: StudyRecord, found: Sequence[ProtocolSection]) -> list[Block]:
    runs = sum(bool(run.ranks) for run in record.runs)
    labels = list(dict.fromkeys(group.label for section in found for group in section.groups))
    lead = (
        f"{runs} runs of {len(labels)} rankers on {len(found)} protocol{'' if len(found) == 1 else 's'}. All rankers "
        f"of a protocol ranked the same frozen lists. They are compared with {record.reference} and with chance."
    )
    easy = [*record.data_warnings, *(line for section in found for line in section.protocol.known_titles)]
    return [
        Lead(lead),
        *([Notice([missing_table(record)])] if record.missing else []),
        summary_table(found, labels),
        *together_tables(record, found),
        *([Details("What makes targets easy to find", [Lines(easy)], opened=True)] if easy else []),
        Details("Glossary", [Glossary(GLOSSARY)], opened=True),
    ]


def _reproduce(record: StudyRecord, found: Sequence[ProtocolSection]) -> list[Block]:
    blocks: list[Block] = [Code("\n".join(record.commands), "The whole study again")] if record.commands else []
    blocks += study_tables(record)
    for section in found:
        if section.tuning:
            blocks.append(Details(f"Settings tried on dev users, {section.name}", section.tuning))
    configurations = [
        Details(f"{group.label}, {section.name}", [Code(json.dumps(configuration, indent=1, ensure_ascii=False))])
        for section in found
        for group in section.groups
        if (configuration := group.runs[0].manifest.configuration)
    ]
    return [*blocks, Details("Configuration of every ranker", configurations)] if configurations else blocks


def _view_data(record: StudyRecord, found: Sequence[ProtocolSection]) -> JsonObject:
    detailed = users_per_run(section.groups for section in found)
    return {
        "reference": record.reference,
        "first": CUTOFFS[0],
        "lengths": [[name, *ends] for name, ends in LENGTHS.items()],
        "pseudonym_digits": PSEUDONYM_DIGITS,
        "unchecked": UNCHECKED,
        "looks": figures.looks(list(dict.fromkeys(run.ranker for run in record.runs))),
        "protocols": [
            {"name": section.name, **drilldown(section.protocol, section.groups, detailed)} for section in found
        ],
    }
