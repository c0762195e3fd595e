"""The attacks as a tab of the report: the goal, tables per ranker, kind and attack, the strongest cases, every text."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from evaluate.attacks.attack import Attack, Insertion
from evaluate.attacks.results import MOST_GAIN, AttackEffect, AttackResults, Observation
from evaluate.attacks.trials import TOP
from evaluate.report.blocks import Block, Details, Figure, Lead, Lines, Notice, Tab
from evaluate.report.figures import CHANCE, COLOURS, SYMBOLS, escaped, named_rows
from evaluate.report.pseudonyms import pseudonym
from evaluate.report.table import (
    NONE,
    Table,
    TableRow,
    code_cell,
    count_cell,
    difference_cell,
    estimate_cell,
    figure_cell,
    table_row,
    word_cell,
)

STRONGEST_CASES = 20
"""Lists shown with ranks and traits, the largest gains of an attacked item."""

_SHOWN_CHARACTERS = 240

HOW_TO_READ = (
    "Gain is the number of ranks by which an attack moves the attacked item up, against the list with the seller's own "
    f"text; it is negative if the item falls. The item is chosen below the top {TOP}, so a noisy ranker moves it up on "
    "average whatever is changed in its text: the gain over the control, a harmless edit of equal length in the same "
    f"fields, is free of that. New in the top {TOP} is a share of the users' lists; beside it is the share under the "
    "control. NDCG@10 lost is the target's. Unparsable is the number of attacked lists that the prior ranked alone, "
    "because no answer could be read. Intervals are 95%, over users; n is the number of users."
)


def attack_tab(
    found: AttackResults, observations: Sequence[Observation], attacks: Sequence[Attack], missing: Sequence[str] = ()
) -> Tab:
    """The tab, the goal first.

    Args:
        missing: What is not finished, one sentence each.
    """
    rankers = [effect.ranker for effect in found.overall]
    blocks: list[Block] = [Lead(found.goal)]
    if missing:
        blocks.append(Notice([Lines(missing)]))
    blocks += [
        gain_table("overall", "All attacks by ranker", "ranker", HOW_TO_READ, found.overall),
        gains(found, rankers),
    ]
    for ranker in rankers:
        kinds = [effect for effect in found.by_kind if effect.ranker == ranker]
        single = [effect for effect in found.by_attack if effect.ranker == ranker]
        beyond = len(found.beyond_goal(ranker))
        note = f"{beyond} of {len(single)} beyond the goal" if ranker in found.with_mote else ""
        tables = [
            gain_table(
                f"kinds-{ranker}", f"{ranker}: by kind", "kind", "Each user's mean over the attacks of a kind.", kinds
            ),
            gain_table(f"attacks-{ranker}", f"{ranker}: by attack", "attack", "", single),
        ]
        blocks.append(Details(ranker, tables, note=note, opened=len(rankers) == 1))
    blocks += [strongest_cases(observations), Details("Texts of the attacks", [text_table(attacks)])]
    return Tab("attacks", "Attacks", blocks)


def gain_table(name: str, title: str, first: str, caption: str, effects: Sequence[AttackEffect]) -> Table:
    """One row per effect; `first` says what the rows are: ranker, kind or attack."""
    columns = (
        first, "attacks", "gain", "over control", f"new in top {TOP}", "new, control",
        "NDCG@10 lost", "unparsable", "n",
    )  # fmt: skip
    rows = [
        table_row(
            word_cell(effect.ranker if first == "ranker" else effect.attack),
            count_cell(effect.attacks),
            difference_cell(effect.gain),
            difference_cell(effect.gain_over_control),
            estimate_cell(effect.newcomers),
            figure_cell(effect.control_newcomers.mean),
            difference_cell(effect.ndcg_lost),
            count_cell(effect.unparsable),
            count_cell(effect.users),
        )
        for effect in effects
    ]
    return Table(name, title, caption, columns, tuple(rows))


def gains(found: AttackResults, rankers: Sequence[str]) -> Figure:
    """Gain over the control by kind, a colour for each ranker."""
    kinds = list(dict.fromkeys(effect.kind for effect in found.by_kind))
    plot = go.Figure()
    for index, ranker in enumerate(rankers):
        effects = {effect.kind: effect for effect in found.by_kind if effect.ranker == ranker}
        shown = [kind for kind in kinds if kind in effects]
        values = [effects[kind].gain_over_control for kind in shown]
        plot.add_scatter(
            x=[value.mean for value in values],
            y=[escaped(kind) for kind in shown],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [value.high - value.mean for value in values],
                "arrayminus": [value.mean - value.low for value in values],
                "width": 2,
                "thickness": 1,
            },
            mode="markers",
            orientation="h",
            offsetgroup=ranker,
            marker={"size": 9, "color": COLOURS[index % len(COLOURS)], "symbol": SYMBOLS[index % len(SYMBOLS)]},
            name=escaped(ranker),
            hovertemplate="%{y}<br>%{x:+.2f}<extra>%{fullData.name}</extra>",
        )
    plot.add_vline(x=MOST_GAIN, line=CHANCE)
    named_rows(plot, kinds)
    plot.update_layout(scattermode="group", scattergap=0.3, height=90 + len(kinds) * (22 + 9 * len(rankers)))
    plot.update_xaxes(title="ranks over the control")
    caption = (
        f"Right of zero an attack pays more than a harmless edit; the dashed line is at {MOST_GAIN:g} ranks. Bars are "
        "95% intervals."
    )
    return Figure("Gain over the control by kind", plot, caption)


def strongest_cases(observations: Sequence[Observation]) -> Table:
    """The lists in which an attacked item gained most."""
    ordered = sorted(observations, key=lambda one: (one.attacked - one.clean, one.ranker, one.attack, one.user_id))
    rows: list[TableRow] = [
        table_row(
            word_cell(one.attack),
            word_cell(one.ranker),
            word_cell(pseudonym(one.user_id)),
            code_cell(one.item_id),
            count_cell(one.clean),
            count_cell(one.control),
            count_cell(one.attacked),
            word_cell(with_escapes("; ".join(one.traits))) if one.traits else NONE,
        )
        for one in ordered[:STRONGEST_CASES]
    ]
    columns = ("attack", "ranker", "user", "item", "clean", "control", "attacked", "traits under attack")
    caption = "Rank of the attacked item; the traits are what MOTE made of the attacked text."
    return Table("strongest", f"The {len(rows)} largest gains", caption, columns, tuple(rows))


def text_table(attacks: Sequence[Attack]) -> Table:
    """What every attack adds; characters that cannot be seen are written as escapes."""
    rows = [
        table_row(
            word_cell(attack.name),
            word_cell(attack.kind),
            word_cell("; ".join([*_added("title", attack.title), *_added("description", attack.description)])),
        )
        for attack in attacks
    ]
    return Table("texts", "What is added, and where", "", ("attack", "kind", "text"), tuple(rows))


def _added(field: str, insertion: Insertion) -> list[str]:
    parts = {f"before the {field}": insertion.before, f"after the {field}": insertion.after}
    return [f"{where}: {with_escapes(text)}" for where, text in parts.items() if text]


def with_escapes(text: str) -> str:
    """A text whose invisible characters are escapes, and line breaks arrows; cut where it is long.

    >>> with_escapes("a\\u200bb\\n")
    'a\\\\u200bb↵'
    """
    lines = text[:_SHOWN_CHARACTERS].replace("\n", "↵")
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in lines)
    return shown if len(text) <= _SHOWN_CHARACTERS else f"{shown} ... ({len(text):,} characters)"
