"""What is read from a language model for every candidate of a list, and the loss that this reading is trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from programs.runtime.errors import InputError
from programs.tuned.backbone import Backbone
from programs.tuned.packing import Packed

YES, NO = " Yes", " No"


class Reading(Protocol):
    """A number for each suffix of a packed row."""

    def __call__(self, states: Tensor, packed: Packed) -> Tensor:
        """The numbers, shape (k,), in float32; `states` of all tokens have the shape (length, d)."""
        ...


class YesMinusNo:
    """Logit of yes less logit of no after each suffix.

    Only the token after a suffix is read, so a yes or no within a title is no answer.
    """

    def __init__(self, base: Backbone) -> None:
        words = [_single_token(base, word) for word in (YES, NO)]
        yes, no = base.model.get_output_embeddings().weight.detach()[words].float()
        self._direction = yes - no

    def __call__(self, states: Tensor, packed: Packed) -> Tensor:
        """See `Reading`. Two rows of the vocabulary are read, at the last tokens alone."""
        return states[torch.from_numpy(packed.ends).to(states.device)].float() @ self._direction


class TitleLogLikelihood:
    """Mean log-likelihood of the tokens of each suffix after the prefix, in nats.

    Memory: the logits of all tokens of the suffixes, 4 bytes times vocabulary times tokens (100 MB for 500 tokens and
    49,152 words).
    """

    def __init__(self, base: Backbone) -> None:
        self._head = base.model.get_output_embeddings()

    def __call__(self, states: Tensor, packed: Packed) -> Tensor:
        """See `Reading`."""
        lengths = np.diff(packed.ends, prepend=packed.prefix - 1)
        # A suffix's first token is predicted by the prefix, each other one by the token before it.
        before = np.arange(packed.prefix - 1, len(packed.ids) - 1)
        before[np.cumsum(lengths) - lengths] = packed.prefix - 1
        logits = self._head(states[torch.from_numpy(before).to(states.device)]).float()
        tokens = torch.from_numpy(packed.ids[packed.prefix :]).to(states.device)
        each = -functional.cross_entropy(logits, tokens, reduction="none")
        return torch.stack([part.mean() for part in each.split(lengths.tolist())])


def choice_loss(values: Tensor, target: int) -> Tensor:
    """Softmax cross-entropy of the chosen candidate among all of the list."""
    return functional.cross_entropy(values[None], torch.tensor([target], device=values.device))


def answer_loss(values: Tensor, target: int) -> Tensor:
    """Mean cross-entropy of the answers, yes for the chosen candidate and no for each other one."""
    answers = torch.zeros_like(values)
    answers[target] = 1
    return functional.binary_cross_entropy_with_logits(values, answers)


def title_loss(values: Tensor, target: int) -> Tensor:
    """Cross-entropy of the chosen candidate's title; the others are not generated in training."""
    return -values[target]


@dataclass(frozen=True)
class TuningObjective:
    """A reading, and the loss of the values of one list.

    Attributes:
        alone: Whether the loss needs the chosen candidate alone, so that training need not read the others.
    """

    reading: Callable[[Backbone], Reading]
    loss: Callable[[Tensor, int], Tensor]
    alone: bool = False


CHOICE = TuningObjective(YesMinusNo, choice_loss)
"""Yes against no, compared within the list."""
ANSWER = TuningObjective(YesMinusNo, answer_loss)
"""Yes against no, for each candidate alone."""
TITLE = TuningObjective(TitleLogLikelihood, title_loss, alone=True)
"""The title of the next item is generated."""


def _single_token(base: Backbone, word: str) -> int:
    ids = base.tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        raise InputError(f"{base.name}: {word!r} is {len(ids)} tokens; a base needs one token for it")
    return int(ids[0])
