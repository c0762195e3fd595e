"""An encoder whose cosines can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from programs.prior.encoders import Vectors, normalised


class LetterEncoder:
    """Embeds a text by how often each of some letters occurs in it.

    Attributes:
        asked: Every text it was given, in order.
    """

    def __init__(self, letters: str = "abcd", fails_at: str | None = None) -> None:
        self.letters = letters
        self.fails_at = fails_at
        self.asked: list[str] = []

    @property
    def name(self) -> str:
        return "letters"

    def encode(self, texts: Sequence[str]) -> Vectors:
        if self.fails_at in texts:
            raise KeyboardInterrupt
        self.asked += texts
        return normalised(np.array([[text.count(letter) for letter in self.letters] for text in texts], dtype=float))
