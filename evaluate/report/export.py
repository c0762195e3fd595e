"""Writers of tables as CSV, Markdown and LaTeX. Names and texts are untrusted, so each writer escapes them."""

from __future__ import annotations

import csv
import io
import re

from evaluate.report.table import BETTER, WORSE, Table, TableCell

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of a text that a spreadsheet reads as a formula."""


def to_csv(table: Table) -> str:
    """CSV with full figures; intervals and marks have columns, and texts that look like formulas get an apostrophe."""
    cells_of = list(zip(*(row.cells for row in table.rows), strict=True)) or [() for _ in table.columns]
    ranged = [any(cell.low is not None for cell in cells) for cells in cells_of]
    marked = [any(cell.mark for cell in cells) for cells in cells_of]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: list[str] = []
    for name, has_range, has_mark in zip(table.columns, ranged, marked, strict=True):
        header += [
            name,
            *([f"{name} low", f"{name} high"] if has_range else []),
            *([f"{name} mark"] if has_mark else []),
        ]
    writer.writerow([_inert(name) for name in header])
    for row in table.rows:
        line: list[str] = []
        for cell, has_range, has_mark in zip(row.cells, ranged, marked, strict=True):
            line.append(_inert(cell.text) if cell.value is None else _number(cell.value))
            line += [_number(cell.low), _number(cell.high)] if has_range else []
            line += [{BETTER: "better", WORSE: "worse"}.get(cell.mark, "")] if has_mark else []
        writer.writerow(line)
    return out.getvalue()


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))


def to_markdown(table: Table) -> str:
    """A pipe table with its title above and its caption below."""
    head = [_markdown(name) for name in table.columns]
    rule = ["---:" if kind == "figure" else "---" for kind in table.column_kinds]
    lines = [head, rule, *([_markdown_cell(cell) for cell in row.cells] for row in table.rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{_markdown(table.title)}**\n\n{body}\n\n{_markdown(table.caption)}\n"


def _markdown_cell(cell: TableCell) -> str:
    return _markdown(cell.full) if cell.value is None else cell.full.replace("|", "\\|")


def _markdown(text: str) -> str:
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "³": r"\textsuperscript{3}",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    BETTER: r"$\uparrow$",
    WORSE: r"$\downarrow$",
}


def to_latex(table: Table) -> str:
    """A table environment for the package booktabs."""
    columns = "".join("r" if kind == "figure" else "l" for kind in table.column_kinds)
    lines = [[_latex(name) for name in table.columns], *([_latex(c.full) for c in row.cells] for row in table.rows)]
    head, *body = [" & ".join(line) + r" \\" for line in lines]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex(table.title)}. {_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    # LaTeX reads "[" or "*" at the start of a row as part of the \\ before it.
    flat = "".join(_LATEX.get(character, character) for character in re.sub(r"\s+", " ", text))
    return f"{{{flat[0]}}}{flat[1:]}" if flat.startswith(("[", "*")) else flat
