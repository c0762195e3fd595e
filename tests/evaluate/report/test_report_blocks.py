"""Blocks of a page: diffs by hand, inert rendering of every kind, looks of table columns, contrast of colours."""

from __future__ import annotations

import re
from typing import get_args

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.report.blocks import (
    Block,
    Code,
    Details,
    Figure,
    Glossary,
    Heading,
    Lead,
    Lines,
    Notice,
    Page,
    PerProtocol,
    PromptDiff,
    Tab,
    View,
)
from evaluate.report.figures import COLOURS, GREY, SYMBOLS
from evaluate.report.page import STYLE, render, resource_text
from evaluate.report.prompt_diff import diff_lines, diff_sections
from evaluate.report.table import NONE, Table, code_cell, count_cell, table_row, word_cell
from tests.support.small_study import SCRIPT, assert_self_contained

HOSTILE = f"{SCRIPT} & \"quoted\" 'text'"


def every_block(text: str) -> list[Block]:
    """One block of every kind, with a text wherever a text goes."""
    table = Table("t", text, text, (text, text), (table_row(word_cell(text), code_cell(text)),))
    return [
        table, Lead(text), Lines([text]), Heading(text), Figure(text, go.Figure(), text), Code(text, text),
        PromptDiff(text, text, f"{text} more"), Glossary({text: text}), Details(text, [Lines([text])], text),
        Notice([table]), PerProtocol(0, text, [Lines([text])]), View("view"),
    ]  # fmt: skip


def test_every_kind_of_block_is_rendered_with_its_text_inert() -> None:
    blocks = every_block(HOSTILE)
    assert {type(block) for block in blocks} == set(get_args(Block))
    for block in blocks:
        page = render(Page(HOSTILE, [Tab("one", HOSTILE, [block])]))
        assert_self_contained(page)
        assert "<script>alert" not in page
        panel = page[page.index('<section class="panel"') : page.index("</main>")]
        assert len(re.sub(r"<section[^>]*>|</section>|\s", "", panel)) > 20, block.kind


def test_a_diff_marks_lines_and_words() -> None:
    lines = diff_lines("Infer why this shopper buys.\nName no brand.", "Infer why this user buys.\nName no brand.")
    assert [(line.sign, line.parts) for line in lines] == [
        ("−", (("Infer why this ", False), ("shopper", True), (" buys.", False))),
        ("+", (("Infer why this ", False), ("user", True), (" buys.", False))),
        (" ", (("Name no brand.", False),)),
    ]


def test_words_are_not_marked_in_a_line_that_is_another() -> None:
    removed, added = diff_lines("Rank the products by how well they fit.", "Say what drives a person.")
    assert removed.parts == (("Rank the products by how well they fit.", False),)
    assert added.parts == (("Say what drives a person.", False),)


def test_what_is_only_added_or_removed_is_one_kind() -> None:
    assert [line.kind for line in diff_lines("", "one\ntwo")] == ["added", "added"]
    assert [line.kind for line in diff_lines("one\ntwo", "")] == ["removed", "removed"]
    assert diff_lines("", "") == []
    assert [section.folded for section in diff_sections("same\n" * 9, "same\n" * 9)] == [True]


@given(st.text("ab \n", max_size=60), st.text("ab \n", max_size=60))
def test_a_diff_holds_both_versions(before: str, after: str) -> None:
    lines = [line for section in diff_sections(before, after) for line in section.lines]
    assert [line.text for line in lines if line.kind != "added"] == before.splitlines()
    assert [line.text for line in lines if line.kind != "removed"] == after.splitlines()


def test_columns_are_set_by_what_they_hold() -> None:
    rows = (
        table_row(word_cell("knn"), word_cell("0.1" * 8), word_cell("w " * 30), code_cell("ab" * 40), count_cell(3)),
        table_row(word_cell("prior"), NONE, NONE, NONE, NONE),
    )
    table = Table("t", "T", "", ("ranker", "name", "why", "sha256", "n"), rows)
    assert table.column_kinds == ("name", "label", "words", "code", "figure")
    page = render(Page("T", [Tab("one", "One", [table])]))
    assert '<td class="code">' + "ab" * 40 + "</td>" in page
    assert '<td class="figure" data-value="3.0">3</td>' in page


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours, 1 to 21."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def schemes() -> list[dict[str, str]]:
    """The variables of the light and of the dark scheme."""
    blocks = re.findall(r":root \{([^}]*--ground[^}]*)\}", resource_text(STYLE))
    return [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in blocks]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_plots_can_be_read_in_both_schemes(scheme: int) -> None:
    light, dark = schemes()
    colours = light | (dark if scheme else {})
    grounds = [colours[name] for name in ("ground", "raised", "target", "notice")]
    assert all(contrast(colours["text"], ground) >= 7 for ground in grounds)
    assert all(contrast(colours["soft"], ground) >= 4.5 for ground in grounds)
    assert all(contrast(colours[name], colours["ground"]) >= 4.5 for name in ("good", "bad", "link"))
    assert all(
        contrast(colours["text"], colours[f"{kind}{word}"]) >= 4.5
        for kind in ("added", "removed")
        for word in ("", "-word")
    )
    assert all(contrast(colour, colours["ground"]) >= 3 for colour in (*COLOURS, GREY))


def test_the_legend_can_draw_every_symbol() -> None:
    style = resource_text(STYLE)
    assert all(f".legend i.{symbol} {{" in style for symbol in SYMBOLS if symbol not in ("circle", "square"))
