"""Histories as prompts of tokens: item codes, a few words and a mask, for networks that write item codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.baselines.networks.item_codes import ItemCode, ItemCodes

BEGIN, END, MASK = 0, 1, 2
"""Tokens of every vocabulary: start of an answer, which also pads, its end, and the place of a missing item."""


@dataclass(frozen=True)
class CodePrompt:
    """What the encoder reads.

    Attributes:
        tokens: Its tokens.
        wholes: For every token the number of the whole that it is a part of; 0 if it is none.
    """

    tokens: tuple[int, ...]
    wholes: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """A prompt, and the code that is to be written after it."""

    prompt: CodePrompt
    answer: ItemCode


class CodePrompts(ABC):
    """How a system shows histories to the network.

    The tokens of the vocabulary are BEGIN, END and MASK, those of the codes, and the system's words.

    Attributes:
        codes: Codes of all items in the training data.
        tokens: Size of the vocabulary.
        wholes: Number of the wholes, see `CodePrompt`.
    """

    def __init__(self, codes: ItemCodes, words: int, wholes: int) -> None:
        self.codes = {item: tuple(MASK + 1 + token for token in code) for item, code in codes.of.items()}
        self.first_word = MASK + 1 + codes.tokens
        self.tokens = self.first_word + words
        self.wholes = wholes

    @abstractmethod
    def prompt(self, history: Sequence[str]) -> CodePrompt:
        """The prompt that asks for the next item of a history; items without a code are left out."""

    @abstractmethod
    def example(self, history: Sequence[str], rng: np.random.Generator) -> Example:
        """An example drawn from a history of at least two items, all of which have codes."""


def joined(parts: Sequence[tuple[ItemCode, int]]) -> CodePrompt:
    """A prompt of codes and single tokens, each with the number of its whole.

    >>> joined([((5, 6), 1), ((2,), 0)])
    CodePrompt(tokens=(5, 6, 2), wholes=(1, 1, 0))
    """
    tokens = tuple(token for code, _ in parts for token in code)
    return CodePrompt(tokens, tuple(whole for code, whole in parts for _ in code))
