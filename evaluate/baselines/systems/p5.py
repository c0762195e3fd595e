"""P5 (Geng et al., RecSys 2022; Hua et al., SIGIR-AP 2023): recommendation as a language task over item codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.code_prompts import CodePrompt, CodePrompts, Example, joined
from evaluate.baselines.networks.item_codes import ItemCode, ItemCodes
from evaluate.baselines.networks.seq_to_seq_ranker import SeqToSeqRanker, fit_seq_to_seq
from evaluate.baselines.networks.seq_to_seq_settings import IdSettings

HISTORY = "{}"
TEMPLATES = (
    "the user bought {} which item is next",
    "{} were bought in this order name the next item",
    "after {} the user will buy",
    "recommend an item to a user who has {}",
    "which item follows {}",
)
"""Forms of the sequential task. Examples are drawn from all, rankings are made with the first."""


class P5(IdSettings):
    """P5's sequential task: a small T5, trained from random weights, continues a prompt with the code of the next item.

    Memory: about 2 GB for a catalogue of 12,000 items, with the dataset.
    """

    name: ClassVar[str] = "p5"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(ids="sequential"), cls(rate=1e-3), cls(dropout=0.2), cls(dimensions=256, layers=4))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> SeqToSeqRanker:
        """Train; see `Baseline.fit`."""
        return fit_seq_to_seq(self, self.codes, lambda codes: P5Prompts(codes, self.length), training, seed, fitting)


class P5Prompts(CodePrompts):
    """The history in a sentence.

    The wholes are the items of the prompt, counted from the newest: the tokens of one item share a vector.

    Args:
        length: Most items of a history, the last ones.
    """

    def __init__(self, codes: ItemCodes, length: int) -> None:
        vocabulary = sorted({word for template in TEMPLATES for word in template.split()} - {HISTORY})
        super().__init__(codes, len(vocabulary), length + 1)
        self.length = length
        self._words = {word: self.first_word + place for place, word in enumerate(vocabulary)}

    def prompt(self, history: Sequence[str]) -> CodePrompt:
        """See `CodePrompts.prompt`."""
        return self._filled(TEMPLATES[0], history)

    def example(self, history: Sequence[str], rng: np.random.Generator) -> Example:
        """See `CodePrompts.example`: any item but the first, after those before it."""
        place = int(rng.integers(1, len(history)))
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        return Example(self._filled(template, history[:place]), self.codes[history[place]])

    def _filled(self, template: str, history: Sequence[str]) -> CodePrompt:
        known = [self.codes[item] for item in history if item in self.codes][-self.length :]
        items = [(code, len(known) - place) for place, code in enumerate(known)]
        parts: list[tuple[ItemCode, int]] = []
        for word in template.split():
            parts += items if word == HISTORY else [((self._words[word],), 0)]
        return joined(parts)
