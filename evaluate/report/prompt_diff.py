"""Line and word diff of two texts, for showing how a prompt changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

LineKind = Literal["same", "removed", "added"]

CONTEXT = 3
"""Unchanged lines shown around a change."""

RELATED = 0.4
"""Words are marked only in changed lines that keep at least this share of their characters."""

TextPart = tuple[str, bool]
"""Some text and whether it changed."""


@dataclass(frozen=True)
class DiffLine:
    """A line of the diff; its text is the concatenation of `parts`."""

    kind: LineKind
    parts: tuple[TextPart, ...]

    @property
    def sign(self) -> str:
        """The sign before the line, because some readers do not see the colour."""
        return {"same": " ", "removed": "−", "added": "+"}[self.kind]

    @property
    def text(self) -> str:
        """The whole line."""
        return "".join(text for text, _ in self.parts)


@dataclass(frozen=True)
class DiffSection:
    """Neighbouring lines; folded ones are unchanged and far from any change."""

    lines: tuple[DiffLine, ...]
    folded: bool = False


def diff_sections(before: str, after: str) -> list[DiffSection]:
    """The diff in sections; long unchanged parts are sections of their own.

    >>> [(section.folded, len(section.lines)) for section in diff_sections("1\\n" * 20 + "a", "1\\n" * 20 + "b")]
    [(True, 17), (False, 5)]
    """
    lines = diff_lines(before, after)
    changed = [i for i, line in enumerate(lines) if line.kind != "same"]
    near = {i for at in changed for i in range(at - CONTEXT, at + CONTEXT + 1)}
    sections = []
    for shown, group in groupby(range(len(lines)), key=near.__contains__):
        some = tuple(lines[i] for i in group)
        sections.append(DiffSection(some, folded=not shown and len(some) > 1))
    return sections


def diff_lines(before: str, after: str) -> list[DiffLine]:
    """Both versions line by line; removed lines come before the added lines that replace them.

    >>> [(line.kind, line.parts) for line in diff_lines("Say it in short.", "Say it in full.")]
    [('removed', (('Say it in ', False), ('short', True), ('.', False))), \
('added', (('Say it in ', False), ('full', True), ('.', False)))]
    """
    old, new = before.splitlines(), after.splitlines()
    lines: list[DiffLine] = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [DiffLine("same", ((text, False),)) for text in old[i:j]]
        else:
            removed, added = _word_diff("\n".join(old[i:j]), "\n".join(new[k:m]))
            lines += _as_lines("removed", removed) if j > i else []
            lines += _as_lines("added", added) if m > k else []
    return lines


def _word_diff(before: str, after: str) -> tuple[list[TextPart], list[TextPart]]:
    """Tokens of both texts, each with whether it is missing in the other text."""
    old, new = _tokens(before), _tokens(after)
    removed: list[TextPart] = []
    added: list[TextPart] = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        removed += [(token, tag != "equal") for token in old[i:j]]
        added += [(token, tag != "equal") for token in new[k:m]]
    return removed, added


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\S\n]+|[^\w\s]|\n", text)


def _as_lines(kind: LineKind, tokens: Sequence[TextPart]) -> Iterator[DiffLine]:
    line: list[TextPart] = []
    for text, changed in [*tokens, ("\n", False)]:
        if text == "\n":
            yield DiffLine(kind, _merged(line))
            line = []
        else:
            line.append((text, changed))


def _merged(tokens: Sequence[TextPart]) -> tuple[TextPart, ...]:
    """Neighbouring tokens of a kind as one part; lines that changed almost completely get no marks."""
    kept = sum(len(text) for text, changed in tokens if not changed)
    whole = sum(len(text) for text, _ in tokens)
    if kept < RELATED * whole:
        return (("".join(text for text, _ in tokens), False),)
    runs = groupby(tokens, key=lambda part: part[1])
    return tuple(("".join(text for text, _ in run), changed) for changed, run in runs)
