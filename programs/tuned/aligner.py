"""MAR as a fine-tuned reader: a text of the user and one of each candidate, answered by yes or no."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import dspy
import numpy as np
from numpy.typing import NDArray

from programs.mar import Alignments, Candidate, UserView
from programs.runtime.greenlets import off_loop, on_event_loop
from programs.runtime.nocopy import NoCopy
from programs.seller_text import prompt_line
from programs.tuned.reader import Reader, untuned_reader
from programs.tuned.settings import PromptList
from signatures.types import Alignment, Interaction, Item

RECENT = 6
"""Most purchases in a user's text, the last ones."""
SHOWN_TITLE, SHOWN_CATEGORY = 56, 24
"""Most characters of a title and of its category: about 16 and 6 tokens."""


class RecentTitles(dspy.Module):
    """The titles of the last purchases, oldest first."""

    def forward(
        self, history: Sequence[tuple[Item, Interaction]], metadata: Mapping[str, str] | None = None
    ) -> dspy.Prediction:
        """Like `MOPE.forward`, without a model call: `profile` is None."""
        text = "\n".join(f"- {short_title(item)}" for item, _ in history[-RECENT:])
        return dspy.Prediction(profile=None, text=text, unparsable=0)


class ShortTitle(dspy.Module):
    """Title and last category of an item."""

    def forward(self, item: Item) -> dspy.Prediction:
        """Like `MOTE.forward`, without a model call: `traits` is None."""
        return dspy.Prediction(traits=None, text=short_title(item), unparsable=0)


class TunedAligner(dspy.Module):
    """Scores each candidate by how much likelier a reader answers yes than no; one pass for the whole list."""

    def __init__(self, reader: Reader | None = None) -> None:
        super().__init__()
        self.reader: NoCopy[Reader] = NoCopy(reader or untuned_reader())
        self._turn = NoCopy(threading.Lock())

    def forward(self, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """No call to a server; `seed` decides nothing, as candidates do not see each other."""
        if not candidates:
            return Alignments()
        asked = question(user), [answer_to(one.text) for one in candidates]
        values = off_loop(self._in_turn, *asked) if on_event_loop() else self.reader.value.logits(*asked)
        return Alignments(
            [
                Alignment(item_id=one.item_id, score=float(value), source="tuned")
                for one, value in zip(candidates, values, strict=True)
            ]
        )

    def _in_turn(self, prefix: str, suffixes: Sequence[str]) -> NDArray[np.float64]:
        # Of many users who wait on an event loop the first is served first; in its threads all would be served late.
        with self._turn.value:
            return self.reader.value.logits(prefix, suffixes)


def short_title(item: Item) -> str:
    """Title, and the last name of the category path where there is one."""
    title = prompt_line(item.display_title, SHOWN_TITLE)
    category = prompt_line(item.category[-1], SHOWN_CATEGORY) if item.category else ""
    return f"{title} ({category})" if category else title


def question(user: UserView) -> str:
    """The common beginning of a list's prompts: the profile where there is one, else the purchases."""
    begins = "A shopper bought, oldest first:" if user.profile is None else "What moves a shopper:"
    return f"{begins}\n{user.text}\nWould this shopper buy next:"


def answer_to(product: str) -> str:
    """The end of a candidate's prompt, after which the answer is read."""
    return f" {product}?"


def prompt_list(user: UserView, candidates: Sequence[Candidate], target: int) -> PromptList:
    """A list as the reader learns from it, worded as `TunedAligner` asks.

    Args:
        target: Index of the candidate that the user chose.
    """
    return PromptList(question(user), tuple(answer_to(one.text) for one in candidates), target)
