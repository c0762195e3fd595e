"""GenRec over titles (Ji et al., ECIR 2024): a language model is tuned to write the title of the next item.

As published: an instruction, the titles of the history, and LoRA on queries and values. Different here: the loss is
that of the title alone, where the authors' is of the whole text; titles stand on lines of their own, where the
authors' commas are also in titles; nothing is cut from the prompt's end, which the authors' limit of 256 tokens can
take away. Smaller: LoRA is in the last ten layers, without dropout. Nothing is generated: candidates are ranked by the
likelihood of their titles (`titles.py`): by the mean over tokens, which is what beam search with a length penalty of 1
maximizes, or by another one that is better on dev users. The other GenRec (Cao and Lio), over item ids, is `genrec`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.language import (
    LoRALanguageModel,
    Wording,
    drawn_cases,
    events_of,
    title_lines,
    title_of,
)
from evaluate.baselines.titles import TitleRanker
from signatures.rows import Case
from signatures.types import Item

if TYPE_CHECKING:
    from programs.tuned.finetuned import FineTuned
    from programs.tuned.objective import TuningObjective

COMPARED = 9
"""Items drawn at random beside the last one of each dev user."""


class GenRecTitles(LoRALanguageModel):
    """LoRA tuning to write the next title."""

    name: ClassVar[str] = "genrec-titles"
    fit_version: ClassVar[int] = 3

    users: int = Field(default=1024, ge=1)
    passes: int = Field(default=2, ge=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(rate=3e-4), cls(users=4096, passes=1), cls(layers=30))

    def objective(self) -> TuningObjective:
        """See `LoRALanguageModel.objective`."""
        from programs.tuned.objective import TITLE

        return TITLE

    def wording(self, training: TrainingData, seed: int, fitting: Fitting) -> NextTitle:
        """See `LanguageModel.wording`."""
        return NextTitle(training.items)

    def cases(self, training: TrainingData, seed: int) -> Iterator[Case]:
        """The last item of each user, and others, which only dev users are compared on."""
        return drawn_cases(training, COMPARED, seed)

    def ranker(self, model: FineTuned, wording: Wording, items: Mapping[str, Item]) -> TitleRanker:
        """See `LanguageModel.ranker`."""
        return TitleRanker(self.name, model, wording, items)


class NextTitle:
    """The titles of the history, one a line, and the line of the next one."""

    def __init__(self, items: Mapping[str, Item]) -> None:
        self.items = items

    def prefix(self, case: Case) -> str:
        """See `Wording.prefix`."""
        titles = title_lines(events_of(case, self.items)) or "\n- nothing yet"
        return f"Name the product that a shopper buys next. Bought so far, oldest first:{titles}\nNext product:\n-"

    def suffix(self, item: Item) -> str:
        """See `Wording.suffix`. The new line ends the title, so that beginning like another is no advantage."""
        return f" {title_of(item)}\n"
