"""GenRec (Cao and Lio, arXiv 2407.21191): a sequence-to-sequence network restores the missing item of a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.code_prompts import MASK, CodePrompt, CodePrompts, Example, joined
from evaluate.baselines.networks.item_codes import ItemCodes
from evaluate.baselines.networks.seq_to_seq_ranker import SeqToSeqRanker, fit_seq_to_seq
from evaluate.baselines.networks.seq_to_seq_settings import IdSettings


class GenRec(IdSettings):
    """GenRec: the codes of a history with a mask in the place of one item, whose code is written.

    Memory: about 2 GB for a catalogue of 12,000 items, with the dataset.

    Attributes:
        masked: Share of examples in which any item of the history is missing, as in the published pre-training; in the
            others, as in ranking, the one after the last.
    """

    name: ClassVar[str] = "genrec"

    masked: float = Field(default=0.3, ge=0, le=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(ids="sequential"), cls(masked=0.0), cls(masked=0.6), cls(rate=1e-3), cls(dropout=0.2))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> SeqToSeqRanker:
        """Train; see `Baseline.fit`."""
        return fit_seq_to_seq(
            self, self.codes, lambda codes: GenRecPrompts(codes, self.length, self.masked), training, seed, fitting
        )


class GenRecPrompts(CodePrompts):
    """The history without words; the wholes are the items, so that each has a vector of its own.

    Args:
        length: Most items of a history, the last ones.
        masked: See `GenRec`.
    """

    def __init__(self, codes: ItemCodes, length: int, masked: float) -> None:
        super().__init__(codes, words=0, wholes=len(codes.of) + 1)
        self.length, self.masked = length, masked
        self._wholes = {item: 1 + row for row, item in enumerate(codes.of)}

    def prompt(self, history: Sequence[str]) -> CodePrompt:
        """See `CodePrompts.prompt`."""
        return self._around(history, ())

    def example(self, history: Sequence[str], rng: np.random.Generator) -> Example:
        """See `CodePrompts.example`."""
        if rng.random() < self.masked:
            # As many items of the history as a prompt holds; then one of them is missing.
            start = int(rng.integers(max(0, len(history) - self.length) + 1))
            part = history[start : start + self.length]
            place = int(rng.integers(len(part)))
            return Example(self._around(part[:place], part[place + 1 :]), self.codes[part[place]])
        place = int(rng.integers(1, len(history)))
        return Example(self._around(history[:place], ()), self.codes[history[place]])

    def _around(self, before: Sequence[str], after: Sequence[str]) -> CodePrompt:
        read = [[item for item in part if item in self.codes] for part in (before, after)]
        first, last = [[(self.codes[item], self._wholes[item]) for item in part] for part in read]
        return joined([*first[-self.length :], ((MASK,), 0), *last])
