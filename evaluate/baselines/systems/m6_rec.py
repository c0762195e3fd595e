"""M6-Rec (Cui et al., 2022): a frozen language model with a soft prompt answers whether a user takes an item.

As published: behaviour and items as plain text, soft prompts in place of tuned weights, and late interaction: the
lower layers read the user's text and each item's text by themselves, so that items are computed once and kept, and
only the upper layers read both. Different here: no code and no weights of M6 were published, so the base is any local
language model; one soft prompt without a choice among several, which stands between the item and the question; answers
of yes against no in place of a trained output layer.
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
    AnswerRanker,
    LanguageModel,
    Wording,
    drawn_cases,
    events_of,
    title_lines,
    title_of,
    worded,
)
from programs.tuned.settings import PromptList, TuningSettings
from signatures.rows import Case
from signatures.types import Item

if TYPE_CHECKING:
    from programs.tuned.backbone import Backbone
    from programs.tuned.finetuned import FineTuned


QUESTION = "Does the shopper buy it? Answer:"
"""After each item and the soft prompt."""


class M6Rec(LanguageModel):
    """Prompt tuning with late interaction. It needs more passes than LoRA: 20 vectors are all that is trained.

    Its loss stays for long at that of one answer to all, so training is more patient than LoRA's.

    Attributes:
        tokens: Vectors of the soft prompt.
        below: Layers that read each text by itself; at most all but one.
        negatives: Items drawn at random that each training user is said not to take.
    """

    name: ClassVar[str] = "m6-rec"
    fit_version: ClassVar[int] = 3

    passes: int = Field(default=6, ge=1)
    rate: float = Field(default=1e-2, gt=0)
    patience: int = Field(default=12, ge=1)
    tokens: int = Field(default=20, ge=1)
    below: int = Field(default=20, ge=0)
    negatives: int = Field(default=7, ge=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(below=10), cls(tokens=50), cls(rate=3e-2), cls(users=1024))

    def model(self, base: Backbone, tuning: TuningSettings) -> FineTuned:
        """See `LanguageModel.model`."""
        from programs.tuned.adaptation import SoftPrompt
        from programs.tuned.decoding import LateInteraction
        from programs.tuned.finetuned import FineTuned
        from programs.tuned.objective import ANSWER

        return FineTuned(
            base,
            tuning,
            adapt=lambda base, settings: SoftPrompt(base, settings, self.tokens, QUESTION),
            objective=ANSWER,
            decode=lambda adapted: LateInteraction(adapted, self.below),
            most_prefix=LONGEST_PREFIX,
            most_suffix=LONGEST_SUFFIX,
        )

    def wording(self, training: TrainingData, seed: int, fitting: Fitting) -> BoughtAndOffered:
        """See `LanguageModel.wording`."""
        return BoughtAndOffered(training.items)

    def examples(self, training: TrainingData, wording: Wording, seed: int) -> Iterator[PromptList]:
        """The last item of each user, and items drawn at random."""
        for case in drawn_cases(training, self.negatives, seed):
            yield worded(case, wording, training.items)

    def ranker(self, model: FineTuned, wording: Wording, items: Mapping[str, Item]) -> AnswerRanker:
        """See `LanguageModel.ranker`."""
        return AnswerRanker(self.name, model, wording, items)


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
