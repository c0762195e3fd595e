"""Differences between the prompts of two programs: instructions, number of demos, and a line diff."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from optimize.prompts import Prompt


@dataclass(frozen=True)
class PromptChange:
    """Change of the prompt of one predictor.

    Attributes:
        predictor: Its name in DSPy (`shopper.infer.predict`).
        instructions_changed: Whether the instruction changed.
        demos_before, demos_after: Number of demos before and after.
        diff: Removed (`-`) and added (`+`) lines; empty if nothing changed.
    """

    predictor: str
    instructions_changed: bool
    demos_before: int
    demos_after: int
    diff: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether the prompt changed."""
        return bool(self.diff)


def prompt_changes(before: Mapping[str, Prompt], after: Mapping[str, Prompt]) -> list[PromptChange]:
    """All predictors that both programs have, changed or unchanged, in the order of `before`.

    >>> one, other = Prompt(instructions="Be short."), Prompt(instructions="Be brief.")
    >>> [change.diff for change in prompt_changes({"p": one}, {"p": other})]
    [('-Be short.', '+Be brief.')]
    """
    return [
        PromptChange(
            predictor=name,
            instructions_changed=old.instructions != new.instructions,
            demos_before=len(old.demos),
            demos_after=len(new.demos),
            diff=tuple(_changed_lines(list(_lines(old)), list(_lines(new)))),
        )
        for name, old in before.items()
        if (new := after.get(name)) is not None
    ]


def _changed_lines(before: list[str], after: list[str]) -> Iterator[str]:
    for line in difflib.unified_diff(before, after, lineterm="", n=0):
        if not line.startswith(("---", "+++", "@@")):
            yield line


def _lines(prompt: Prompt) -> Iterator[str]:
    yield from prompt.instructions.splitlines()
    for demo in prompt.demos:
        for field, value in demo.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield from f"{field}: {text}".splitlines()
