"""TIGER (Rajput et al., NeurIPS 2023): generative retrieval, where the codes of items come from their texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.code_prompts import MASK, CodePrompt, CodePrompts, Example, joined
from evaluate.baselines.networks.item_codes import ItemCodes, semantic_codes
from evaluate.baselines.networks.item_texts import item_texts
from evaluate.baselines.networks.seq_to_seq_ranker import SeqToSeqRanker, fit_seq_to_seq
from evaluate.baselines.networks.seq_to_seq_settings import SeqToSeqSettings


class TIGER(SeqToSeqSettings):
    """TIGER: a small T5 writes the semantic code of the next item after those of the history.

    Every item with a text has a code, so items without users are scored. Memory: about 2.2 GB for a
    catalogue of 12,000 items, with the dataset.

    Attributes:
        codebook: Most values of each of the first three tokens; at most the square root of the number of items.
    """

    name: ClassVar[str] = "tiger"

    codebook: int = Field(default=256, ge=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(codebook=64), cls(rate=1e-3), cls(dropout=0.2), cls(dimensions=256, layers=4))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> SeqToSeqRanker:
        """Train; see `Baseline.fit`.

        Raises:
            InputError: if no item has a text.
        """
        self.require_torch()  # before the codes, which take long
        texts = item_texts(training, "item", self.name, fitting.on_event)
        codes = semantic_codes([*texts.rows], texts.vectors[[*texts.rows.values()]], self.codebook)
        return fit_seq_to_seq(
            self, lambda *_: codes, lambda codes: TIGERPrompts(codes, self.length), training, seed, fitting
        )


class TIGERPrompts(CodePrompts):
    """The codes of the history, and a mask; nothing is a whole.

    Args:
        length: Most items of a history, the last ones.
    """

    def __init__(self, codes: ItemCodes, length: int) -> None:
        super().__init__(codes, words=0, wholes=1)
        self.length = length

    def prompt(self, history: Sequence[str]) -> CodePrompt:
        """See `CodePrompts.prompt`."""
        known = [self.codes[item] for item in history if item in self.codes]
        return joined([*((code, 0) for code in known[-self.length :]), ((MASK,), 0)])

    def example(self, history: Sequence[str], rng: np.random.Generator) -> Example:
        """See `CodePrompts.example`."""
        place = int(rng.integers(1, len(history)))
        return Example(self.prompt(history[:place]), self.codes[history[place]])
