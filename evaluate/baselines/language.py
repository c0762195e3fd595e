"""Language models as trained baselines: common settings, training lists, and rankers by what is read from the model."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evaluate.baselines.baseline import Baseline, TrainingData, unknown_below
from evaluate.baselines.fitting import UNKEPT, Fitting, held
from evaluate.baselines.training_lists import last_item_lists
from programs.ranker import Ranker, ranking_from_scores
from programs.runtime.atomic import sweep
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent
from programs.seller_text import prompt_line
from programs.tuned.aligner import SHOWN_TITLE
from programs.tuned.reader import DEFAULT_BASE, require_packages
from programs.tuned.settings import Prefix, PromptList, TuningSettings
from signatures.rows import Case, Ranking
from signatures.types import Interaction, Item, with_items

if TYPE_CHECKING:
    from programs.tuned.backbone import Backbone
    from programs.tuned.finetuned import FineTuned
    from programs.tuned.objective import TuningObjective

TRAINING_FILE = "training.safetensors"
"""File of a kept fit: the state of its training."""
SHOWN_ITEMS = 10
"""Most items of a history in a prompt, the last ones."""
LONGEST_PREFIX, LONGEST_SUFFIX = 4096, 256
"""Most tokens before the candidates, and of a candidate. Titles are cut before, to 56 characters of up to four tokens,
so that no prompt loses its beginning or its end."""

KnownEvent = tuple[Item, Interaction]
"""An interaction with its item."""


class Wording(Protocol):
    """How a system puts a user and a candidate into words."""

    def prefix(self, case: Case) -> Prefix:
        """The text before all candidates; it ends without a space."""
        ...

    def suffix(self, item: Item) -> str:
        """The text of a candidate; it begins with a space or a new line."""
        ...


class LanguageModel(Baseline):
    """Common settings of the language-model systems.

    They learn from the last items of training histories, never from targets of an evaluation. A fit is resumable after
    each block of steps, reports its loss and the time left, and keeps the weights with the least loss on `dev_users`
    further training users. It needs the extra `finetune`. Memory: about 4.5 GB with a base of 135M parameters in
    float32, most of it for activations of one list.

    Attributes:
        base: Base model: a Hugging Face folder with safetensors, a GGUF file, or `local/NAME`.
        users: Training users.
        passes: Most passes over the training users.
        dev_users: Further training users whose lists stop the training.
        batch: Lists of one step.
        block: Steps between two evaluations on dev users.
        rate: Highest learning rate.
        patience: Blocks without a lower dev loss after which training stops.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"model"})
    fit_version: ClassVar[int] = 2

    base: str = Field(default=DEFAULT_BASE, min_length=1)
    users: int = Field(default=256, ge=1)
    passes: int = Field(default=3, ge=1)
    dev_users: int = Field(default=64, ge=1)
    batch: int = Field(default=4, ge=1)
    block: int = Field(default=32, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    patience: int = Field(default=4, ge=1)

    def environment(self) -> dict[str, str]:
        """See `Baseline.environment`."""
        require_packages(f"the ranker '{self.name}'")
        from programs.tuned.backbone import hardware_of

        return hardware_of(self.base)

    @abstractmethod
    def model(self, base: Backbone, tuning: TuningSettings) -> FineTuned:
        """The model before training."""

    @abstractmethod
    def wording(self, training: TrainingData, seed: int, fitting: Fitting) -> Wording:
        """How users and items are put into words."""

    @abstractmethod
    def cases(self, training: TrainingData, seed: int) -> Iterator[Case]:
        """The list that is learned from each training user, in an order drawn by the seed; the first are dev users'."""

    def ranker(self, model: FineTuned, wording: Wording, items: Mapping[str, Item]) -> AnswerRanker:
        """The ranker of a trained model: by yes against no, where a system reads nothing else."""
        return AnswerRanker(self.name, model, wording, items)

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> Ranker:
        """Train; see `Baseline.fit`. A kept fit is read, one that was cut short goes on after its last block."""
        require_packages(f"the ranker '{self.name}'")
        from programs.tuned.backbone import load_backbone

        wording = self.wording(training, seed, fitting)
        cases = list(islice(self.cases(training, seed), self.dev_users + self.users))
        lists = [worded(case, wording, training.items) for case in cases]
        dev, lists = lists[: self.dev_users], lists[self.dev_users :]
        if not lists:
            raise InputError(
                f"the ranker '{self.name}' needs more than {self.dev_users} users with two different items to learn "
                f"from; the data have {len(dev)}"
            )
        model = self.model(load_backbone(self.base), self.tuning(seed, len(lists)))
        ranker = self.ranker(model, wording, training.items)
        if model.adapter:
            with _folder(self.name, fitting, self.fit_folder(training, seed, fitting)) as folder:
                model.fit(lists, dev, folder / TRAINING_FILE, fitting.on_event)
                ranker.choose(cases[: self.dev_users], folder, fitting.on_event)
        return ranker

    def tuning(self, seed: int, users: int) -> TuningSettings:
        """Settings of the training.

        Args:
            users: Training users that there are, at most `self.users`.
        """
        return TuningSettings(
            lists=users * self.passes,
            batch=self.batch,
            block=self.block,
            rate=self.rate,
            patience=self.patience,
            average=0.98,
            seed=seed,
            stopping_users=self.dev_users,
        )


class LoRALanguageModel(LanguageModel):
    """Common settings of the systems that train LoRA adapters.

    Attributes:
        layers: LoRA is in this many of the last layers.
        rank, alpha: Of LoRA.
    """

    layers: int = Field(default=10, ge=1)
    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1)

    @abstractmethod
    def objective(self) -> TuningObjective:
        """What is read for each candidate, and its loss."""

    def model(self, base: Backbone, tuning: TuningSettings) -> FineTuned:
        """See `LanguageModel.model`."""
        from programs.tuned.finetuned import FineTuned

        shape = {"layers": self.layers, "rank": self.rank, "alpha": self.alpha}
        return FineTuned(
            base,
            tuning.model_copy(update=shape),
            objective=self.objective(),
            most_prefix=LONGEST_PREFIX,
            most_suffix=LONGEST_SUFFIX,
        )


def drawn_cases(training: TrainingData, negatives: int, seed: int) -> Iterator[Case]:
    """Training cases in an order drawn by the seed; the same lists in every run.

    A user's case depends on the seed, the set of items and the user alone. Items outside the catalogue are left out.
    """
    cases = last_item_lists(training.interactions, negatives, seed).cases
    for index in np.random.default_rng(seed).permutation(len(cases)):
        case = cases[index]
        known = tuple(item for item in case.candidates if item in training.items)
        if case.target in known and len(known) > 1:
            yield case.model_copy(update={"candidates": known})


def worded(case: Case, wording: Wording, items: Mapping[str, Item]) -> PromptList:
    """A training case in words: the text of the user, those of the candidates, and the place of the target."""
    suffixes = tuple(wording.suffix(items[item]) for item in case.candidates)
    return PromptList(wording.prefix(case), suffixes, case.candidates.index(str(case.target)))


def title_of(item: Item) -> str:
    """The title in a prompt: one line, cut at a word; seller text cannot pose as a part of the prompt."""
    return prompt_line(item.display_title, SHOWN_TITLE) or "untitled"


def events_of(case: Case, items: Mapping[str, Item]) -> list[KnownEvent]:
    """The last items of a history, oldest first; items that are not in the catalogue are left out."""
    return with_items(case.history, items)[-SHOWN_ITEMS:]


def title_lines(events: Sequence[KnownEvent]) -> str:
    """The titles of some items, each on a new line after a hyphen; empty if there are none."""
    return "".join(f"\n- {title_of(item)}" for item, _ in events)


class AnswerRanker:
    """Ranks by yes against no after each candidate; users and items need not be in the training data.

    Items that are not in the catalogue have no text, so they tie below the others (`unknown_below`).
    """

    def __init__(self, name: str, model: FineTuned, wording: Wording, items: Mapping[str, Item]) -> None:
        self.name, self.model, self.wording, self.items = name, model, wording, items

    def choose(self, dev: Sequence[Case], folder: Path, on_event: OnEvent) -> None:
        """Choose what the training leaves open, and keep it in a folder; here nothing.

        Args:
            dev: The lists that stopped the training, with targets.
        """

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        known = [index for index, item in enumerate(case.candidates) if item in self.items]
        vectors = self.vectors(case, [self.items[case.candidates[index]] for index in known]) if known else {}
        count = len(case.candidates)
        whole = {name: unknown_below(values, known, count).tolist() for name, values in vectors.items()}
        return ranking_from_scores(case, whole or {self.name: [0.0] * count}, by=self.name)

    def vectors(self, case: Case, items: Sequence[Item]) -> dict[str, NDArray[np.float64]]:
        """Score vectors of some candidates, each of shape (k,)."""
        suffixes = [self.wording.suffix(item) for item in items]
        return {self.name: self.model.logits(self.wording.prefix(case), suffixes)}


@contextmanager
def _folder(task: str, fitting: Fitting, kept: Path | None) -> Iterator[Path]:
    """The folder of a kept fit, held against other processes; a temporary one for a fit that is not kept."""
    if kept is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with held(kept, task, fitting.on_event):
        sweep(kept)
        yield kept
