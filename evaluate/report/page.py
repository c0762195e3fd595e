"""Puts the page together: tables as HTML, data as inert JSON, and a policy that forbids it any network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

from plotly.offline import get_plotlyjs
from pydantic import JsonValue

from evaluate.report import figures
from evaluate.report.drilldown import JsonObject, drilldown, users_per_run
from evaluate.report.failures import UNCHECKED
from evaluate.report.pseudonyms import PSEUDONYM_DIGITS
from evaluate.report.record import StudyRecord
from evaluate.report.reproduction import missing_table, study_tables
from evaluate.report.sections import Block, ProtocolSection, Tab, summary_table
from evaluate.report.slices import LENGTHS
from evaluate.report.table import Table, TableCell, TableRow
from evaluate.stats.metrics import CUTOFFS

TABS = {
    "overview": "Overview",
    "accuracy": "Accuracy",
    "slices": "Slices",
    "failures": "Failures",
    "cost": "Cost",
    "shoppers": "Shoppers",
    "versus": "A against B",
    "reproduce": "Reproduce",
}

_SORTABLE_FROM = 3
"""Tables with fewer rows need no sorting."""

_WORDS = ' class="words"'

GLOSSARY = {
    "HR@5/30": "Hit rate: the share of users whose held-out item is among the first 5 of a list of 30. The number "
    "after the slash belongs to the name: the same ranker scores higher on shorter lists.",
    "NDCG@5/30": "1 / log2(rank + 1) if the held-out item is among the first 5, else 0, averaged over users: a first "
    "place counts 1, a fifth .39.",
    "chance": "What a random order gives on average. A figure near it says nothing about a ranker.",
    "interval": "95% bootstrap interval over users: where the mean might lie with other users of this kind.",
    "▲ ▼": "Better or worse than the reference by a paired randomization test (same users, same lists), at 5% after "
    "Holm's correction for the number of comparisons.",
    "draw": "One drawing of negatives for the same users and held-out items.",
    "seed": "A training or sampling seed of a ranker.",
    "unresolved": "A case whose infrastructure failed or that was not reached: never a miss, but bounds on the mean.",
    "prior alone, MAR alone": "The two scores a fused ranker adds up: the prior needs no language model, MAR is the "
    "language model's alignment of motivations with traits.",
    "u-…": "Users are shown under pseudonyms made from a hash of their id, the same everywhere in a report.",
}


def page(record: StudyRecord, found: Sequence[ProtocolSection], tabs: Sequence[Tab] = ()) -> str:
    """The whole file."""
    labels = list(dict.fromkeys(group.label for section in found for group in section.groups))
    drawn: dict[str, JsonObject] = {}
    titles = {tab.name: html.escape(tab.title) for tab in tabs} | TABS
    inner = {tab.name: _blocks(tab.blocks, tab.name, drawn) for tab in tabs}
    inner |= {tab: _panel(tab, record, found, labels, drawn) for tab in TABS}
    panels = "".join(
        f'<section class="panel" id="tab-{tab}" role="tabpanel" aria-label="{title}">{inner[tab]}</section>'
        for tab, title in titles.items()
    )
    detailed = users_per_run(section.groups for section in found)
    data = {
        "reference": record.reference,
        "first": CUTOFFS[0],
        "lengths": [[name, *ends] for name, ends in LENGTHS.items()],
        "pseudonym_digits": PSEUDONYM_DIGITS,
        "unchecked": UNCHECKED,
        "looks": figures.looks(list(dict.fromkeys(run.ranker for run in record.runs))),
        "figures": drawn,
        "protocols": [
            {"name": section.name, **drilldown(section.protocol, section.groups, detailed)} for section in found
        ],
    }
    title = html.escape(record.title or record.name)
    script, plotly = _own("page.js"), _newlines(get_plotlyjs())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy([plotly, script])}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n<title>{title}</title>\n'
        f"<style>{_own('page.css')}</style></head>\n<body>\n"
        f"<header><h1>{title}</h1>{_bar(found, titles)}</header>\n<main>{panels}</main>\n"
        f'<script type="application/json" id="data">{inert_json(data)}</script>\n'
        f"<script>{plotly}</script>\n<script>{script}</script>\n</body></html>\n"
    )


def policy(scripts: Iterable[str]) -> str:
    """The page's Content-Security-Policy: no network, and no script but these, whatever a title might smuggle in."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def inert_json(data: object) -> str:
    """JSON that cannot end the element it stands in, nor open a comment; NaN is refused."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _own(name: str) -> str:
    return _newlines(resources.files("evaluate.report").joinpath(name).read_text("utf-8"))


def _newlines(text: str) -> str:
    """As a browser reads them: the hash of a script is of what was read."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bar(found: Sequence[ProtocolSection], titles: Mapping[str, str]) -> str:
    tabs = "".join(
        f'<button role="tab" id="to-{tab}" data-tab="{tab}" aria-controls="tab-{tab}">{title}</button>'
        for tab, title in titles.items()
    )
    options = "".join(f'<option value="{i}">{html.escape(section.name)}</option>' for i, section in enumerate(found))
    return (
        f'<nav><div role="tablist" aria-label="Parts of the report">{tabs}</div>'
        f'<label class="which">Dataset · protocol <select id="protocol">{options}</select></label></nav>'
    )


def _panel(
    tab: str, record: StudyRecord, found: Sequence[ProtocolSection], labels: Sequence[str], drawn: dict[str, JsonObject]
) -> str:
    if tab == "overview":
        return _overview(record, found, labels)
    if tab == "reproduce":
        return _reproduce(record, found)
    if tab in ("shoppers", "versus"):
        return f'<div id="{tab}"><noscript>This part needs JavaScript.</noscript></div>'
    parts = []
    for i, section in enumerate(found):
        blocks = {
            "accuracy": section.accuracy,
            "slices": section.slices,
            "failures": section.failures,
            "cost": section.costs,
        }[tab]
        inner = _blocks(blocks, f"{tab}-{i}", drawn) or "<p>Nothing was ranked here.</p>"
        parts.append(f'<div class="of-protocol" data-protocol="{i}"><h2>{html.escape(section.name)}</h2>{inner}</div>')
    return "".join(parts)


def _overview(record: StudyRecord, found: Sequence[ProtocolSection], labels: Sequence[str]) -> str:
    runs = [run for run in record.runs if run.ranks]
    lead = (
        f"<p class='lead'>{len(runs)} runs of {len(labels)} rankers on {len(found)} protocol"
        f"{'' if len(found) == 1 else 's'}. Every ranker of a protocol ranked the same frozen lists; all are compared "
        f"with <b>{html.escape(record.reference)}</b> and with chance.</p>"
    )
    missing = ""
    if record.missing:
        missing = f'<div class="warning">{_table(missing_table(record))}</div>'
    terms = "".join(f"<dt>{html.escape(term)}</dt><dd>{html.escape(said)}</dd>" for term, said in GLOSSARY.items())
    return (
        f"{lead}{missing}{_table(summary_table(found, labels))}"
        f"<details open><summary>What the words mean</summary><dl>{terms}</dl></details>"
    )


def _reproduce(record: StudyRecord, found: Sequence[ProtocolSection]) -> str:
    commands = "\n".join(record.commands)
    again = f"<h3>The whole study again</h3><pre>{html.escape(commands)}</pre>" if commands else ""
    tables = "".join(_table(table) for table in study_tables(record))
    tuning = "".join(
        f"<h3>{html.escape(section.name)}</h3>" + "".join(_table(b.table) for b in section.tuning if b.table)
        for section in found
        if section.tuning
    )
    configurations = "".join(
        _configuration(f"{group.label}, {section.name}", group.runs[0].manifest.configuration)
        for section in found
        for group in section.groups
    )
    return f"{again}{tables}{tuning and f'<h2>Settings tried on dev users</h2>{tuning}'}{configurations}"


def _configuration(of: str, configuration: Mapping[str, JsonValue]) -> str:
    if not configuration:
        return ""
    text = html.escape(json.dumps(configuration, indent=1, ensure_ascii=False))
    return f"<details><summary>Configuration of {html.escape(of)}</summary><pre>{text}</pre></details>"


def _blocks(blocks: Sequence[Block], name: str, drawn: dict[str, JsonObject]) -> str:
    return "".join(_block(block, f"{name}-{j}", drawn) for j, block in enumerate(blocks))


def _block(block: Block, name: str, drawn: dict[str, JsonObject]) -> str:
    out = ""
    if block.table is not None:
        out += _table(block.table)
    if block.figure is not None:
        drawn[name] = figures.as_json(block.figure)
        height = block.figure.layout.height or 450  # plotly's own default
        out += (
            f'<figure><div class="plot" data-figure="{name}" style="height:{height}px"></div>'
            f"<figcaption>{html.escape(block.caption)}</figcaption></figure>"
        )
    return out + "".join(f'<p class="line">{html.escape(line)}</p>' for line in block.lines)


def _table(table: Table) -> str:
    sortable = len(table.rows) >= _SORTABLE_FROM
    button = ("<button>", "</button>") if sortable else ("", "")
    head = "".join(
        f'<th scope="col"{_WORDS if words else ""}>{html.escape(name).join(button)}</th>'
        for name, words in zip(table.columns, table.wordy, strict=True)
    )
    body = "".join(_row(row, table.wordy) for row in table.rows)
    return (
        f'<div class="table"><h3>{html.escape(table.title)}</h3><p class="caption">{html.escape(table.caption)}</p>'
        f'<div class="scroll" tabindex="0"><table data-name="{html.escape(table.name)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )


def _row(row: TableRow, wordy: Sequence[bool]) -> str:
    cells = "".join(_cell(cell, words) for cell, words in zip(row.cells, wordy, strict=True))
    return f'<tr class="{row.kind}">{cells}</tr>' if row.kind else f"<tr>{cells}</tr>"


def _cell(cell: TableCell, words: bool) -> str:
    value = "" if cell.value is None else f' data-value="{float(cell.value)!r}"'
    shown = html.escape(cell.text)
    if cell.interval:
        shown += f' <span class="interval">{cell.interval}</span>'
    if cell.mark:
        meaning = "better" if cell.mark == "▲" else "worse"
        shown += f' <span class="mark {meaning}" title="{meaning} than the reference">{cell.mark}</span>'
    return f"<td{_WORDS if words else ''}{value}>{shown}</td>"
