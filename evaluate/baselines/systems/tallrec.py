"""TALLRec (Bao et al., RecSys 2023): a language model is tuned to answer whether a user will like an item.

As published: liked and disliked items by rating, LoRA of rank 8 on queries and values, one label of each kind for each
of a few dozen to a few hundred users. Different here: the paper's labels are ratings alone. A list to rank has items
that the user never saw, so the negative of a user who disliked nothing is an item drawn at random. The loss is that of
the answer, between yes and no; the authors' code trains on the whole prompt, and finds the answers by the ids of both
words, so that a title with one of them moves all labels. LoRA is in the last ten layers. There is no Alpaca stage, as
the default base follows instructions already. The score is logit(yes) - logit(no).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.language import (
    LoRALanguageModel,
    drawn_cases,
    events_of,
    title_lines,
    title_of,
)
from signatures.rows import Case
from signatures.types import Item

if TYPE_CHECKING:
    from programs.tuned.objective import TuningObjective


class TALLRec(LoRALanguageModel):
    """Instruction tuning with answers of yes or no.

    Attributes:
        negatives: Items that each training user is said not to like; the first is one that the user rated low, if any.
    """

    name: ClassVar[str] = "tallrec"

    negatives: int = Field(default=1, ge=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(negatives=7), cls(rate=3e-4), cls(users=1024, passes=1))

    def objective(self) -> TuningObjective:
        """See `LoRALanguageModel.objective`."""
        from programs.tuned.objective import ANSWER

        return ANSWER

    def wording(self, training: TrainingData, seed: int, fitting: Fitting) -> QuestionOfTaste:
        """See `LanguageModel.wording`."""
        return QuestionOfTaste(training.items)

    def cases(self, training: TrainingData, seed: int) -> Iterator[Case]:
        """One liked item and `negatives` others of each user whose last item was liked."""
        for case in drawn_cases(training, self.negatives, seed):
            if training.interactions[case.user_id][-1].liked:
                yield labelled(case, training.items)


class QuestionOfTaste:
    """Liked and disliked titles, and a question about one more title."""

    def __init__(self, items: Mapping[str, Item]) -> None:
        self.items = items

    def prefix(self, case: Case) -> str:
        """See `Wording.prefix`."""
        events = events_of(case, self.items)
        likes = title_lines([one for one in events if one[1].liked]) or " nothing"
        dislikes = title_lines([one for one in events if not one[1].liked]) or " nothing"
        return (
            "Below are products that a shopper liked and disliked. Answer Yes if the shopper will like the product in "
            f"question, and No otherwise.\nLiked:{likes}\nDisliked:{dislikes}\nProduct in question:"
        )

    def suffix(self, item: Item) -> str:
        """See `Wording.suffix`."""
        return f" {title_of(item)}\nAnswer:"


def labelled(case: Case, items: Mapping[str, Item]) -> Case:
    """The case with the user's last disliked item in place of the first negative, and out of the history."""
    low = next((e.item_id for e in reversed(case.history) if not e.liked and e.item_id in items), None)
    if low is None or low == case.target:
        return case
    history = tuple(event for event in case.history if event.item_id != low)
    drawn = next(item for item in case.candidates if item != case.target)
    return case.model_copy(
        update={"history": history, "candidates": tuple(low if item == drawn else item for item in case.candidates)}
    )
