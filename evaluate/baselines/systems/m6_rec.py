"""M6-Rec (Cui et al., 2022): a language model with a soft prompt and adapters answers whether a user takes an item.

As published: behaviour and items as plain text; a soft prompt with adapters in place of tuned weights ("option-adapter
tuning"); and late interaction: the lower layers read the user's text and each item's text by themselves, so that items
are computed once and kept, and only the upper layers read both. Different here: no code and no weights of M6 were
published, so the base is any local language model; LoRA of rank 8 on all matrices of the upper layers stands in for the
paper's adapters, which sit in the feed-forward parts; one soft prompt without a choice among several, which stands
between the item and the question; yes against no, compared within the list by a softmax, in place of an output layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.language import (
    LONGEST_PREFIX,
    LONGEST_SUFFIX,
    LanguageModel,
    drawn_cases,
    events_of,
    title_lines,
    title_of,
)
from programs.tuned.settings import TuningSettings
from signatures.rows import Case
from signatures.types import Item

if TYPE_CHECKING:
    from programs.tuned.backbone import Backbone
    from programs.tuned.finetuned import FineTuned


QUESTION = "Does the shopper buy it? Answer:"
"""After each item and the soft prompt."""


class M6Rec(LanguageModel):
    """A soft prompt, adapters in the upper layers, and late interaction.

    Each candidate has the soft prompt and the question after it, so that a list takes two to three times as long as
    LoRA's alone; fewer passes and dev users than elsewhere are the default.

    Attributes:
        tokens: Vectors of the soft prompt.
        below: Layers that read each text by itself; at most all but one. The others have adapters.
        rank, alpha: Of the adapters, which are LoRA's.
        negatives: Items drawn at random beside the last one.
    """

    name: ClassVar[str] = "m6-rec"
    fit_version: ClassVar[int] = 6

    passes: int = Field(default=2, ge=1)
    dev_users: int = Field(default=32, ge=1)
    block: int = Field(default=16, ge=1)
    tokens: int = Field(default=20, ge=1)
    below: int = Field(default=20, ge=0)
    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1)
    negatives: int = Field(default=7, ge=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(below=10), cls(tokens=50), cls(rate=5e-4), cls(users=1024))

    def model(self, base: Backbone, tuning: TuningSettings) -> FineTuned:
        """See `LanguageModel.model`."""
        from programs.tuned.adaptation import LoRA, SoftPrompt
        from programs.tuned.decoding import LateInteraction
        from programs.tuned.finetuned import FineTuned
        from programs.tuned.objective import CHOICE

        above = max(1, base.model.config.num_hidden_layers - self.below)
        shape = {"layers": above, "adapted": "all", "rank": self.rank, "alpha": self.alpha}
        return FineTuned(
            base,
            tuning.model_copy(update=shape),
            adapt=lambda base, settings: SoftPrompt(LoRA(base, settings), settings, self.tokens, QUESTION),
            objective=CHOICE,
            decode=lambda adapted: LateInteraction(adapted, self.below),
            most_prefix=LONGEST_PREFIX,
            most_suffix=LONGEST_SUFFIX,
        )

    def wording(self, training: TrainingData, seed: int, fitting: Fitting) -> BoughtAndOffered:
        """See `LanguageModel.wording`."""
        return BoughtAndOffered(training.items)

    def cases(self, training: TrainingData, seed: int) -> Iterator[Case]:
        """The last item of each user, and items drawn at random."""
        return drawn_cases(training, self.negatives, seed)


class BoughtAndOffered:
    """What a user bought, and an item that is offered."""

    def __init__(self, items: Mapping[str, Item]) -> None:
        self.items = items

    def prefix(self, case: Case) -> str:
        """See `Wording.prefix`."""
        titles = title_lines(events_of(case, self.items)) or " nothing yet"
        return f"A shopper bought:{titles}"

    def suffix(self, item: Item) -> str:
        """See `Wording.suffix`."""
        return f"\nOffered: {title_of(item)}\n"
