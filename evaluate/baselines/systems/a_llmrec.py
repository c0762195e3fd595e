"""A-LLMRec (Kim et al., KDD 2024): a frozen language model reads vectors of a frozen recommender.

Stage 1 aligns SASRec's item vectors with text vectors of the same items in joint codes (`networks/alignment.py`);
stage 2 projects user states and codes into the input vectors of the language model, which stays as it is, and learns
to give the title of the next item out of a list of titles. Items that nobody has get the code of their text, as in
the paper. Different here: the text encoder is the sentence encoder of the prior, frozen; stage 1 learns from every
position of a history, not from the last alone; prompts list 10 titles in training (`negatives` and the true one) and
all candidates in ranking, 30 in our lists. The authors' code never ranks: it generates one title, counts a hit where it
is contained in the answer, and draws other candidates at every evaluation. Here candidates are ranked by
the likelihood of their titles that is best on dev users (`titles.py`). `a-llmrec-stage1`, the ranking by stage 1 alone,
is recorded beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evaluate.baselines.baseline import TrainingData, unknown_below
from evaluate.baselines.fit_cost import measured
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.language import (
    LONGEST_PREFIX,
    LONGEST_SUFFIX,
    LanguageModel,
    Wording,
    drawn_cases,
    events_of,
    title_of,
)
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.item_texts import ItemTexts, item_texts
from evaluate.baselines.networks.sequence_ranker import SequenceRanker
from evaluate.baselines.systems.sasrec import SASRec
from evaluate.baselines.titles import TitleRanker
from programs.prior.scorers import ContentSimilarity
from programs.ranker import Ranker, ranking_from_scores
from programs.runtime.errors import InputError, quoted
from programs.runtime.one_thread import one_thread
from programs.tuned.settings import Slot, TuningSettings
from signatures.rows import Case, Ranking
from signatures.types import Item

if TYPE_CHECKING:
    from evaluate.baselines.networks.alignment import JointCodes
    from programs.tuned.backbone import Backbone
    from programs.tuned.finetuned import FineTuned

USER, ITEM = "user", "item"
"""Kinds of slots."""
STAGE1_VERSION = 1
"""Raised when code changes what stage 1 is fitted to, so that kept fits of older code are not used."""


class ALLMRec(LanguageModel):
    """Joint codes of a recommender's item vectors and of texts, and projections into a frozen language model.

    Attributes:
        stages: 1 for the ranking by stage 1 alone, which needs no language model.
        negatives: Other candidates in the prompts of training users.
        sasrec: Settings of the recommender.
        code: Length of the joint codes.
        epochs: Most passes of stage 1 over all positions.
        align_rate: Learning rate of stage 1.
    """

    name: ClassVar[str] = "a-llmrec"
    fit_version: ClassVar[int] = 3

    stages: Literal[1, 2] = 2
    users: int = Field(default=400, ge=1)
    passes: int = Field(default=1, ge=1)
    dev_users: int = Field(default=32, ge=1)
    negatives: int = Field(default=9, ge=1)
    sasrec: SASRec = Field(default_factory=SASRec)
    code: int = Field(default=128, ge=1)
    epochs: int = Field(default=100, ge=1)
    align_rate: float = Field(default=1e-3, gt=0)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(rate=3e-4), cls(passes=2), cls(users=1024, negatives=19))

    def part_versions(self) -> tuple[int, ...]:
        """See `Baseline.part_versions`: those of SASRec and stage 1."""
        return SASRec.fit_version, STAGE1_VERSION

    def environment(self) -> dict[str, str]:
        """See `Baseline.environment`."""
        return self.sasrec.environment() if self.stages == 1 else super().environment()

    def hardware(self) -> dict[str, str]:
        """See `Baseline.hardware`."""
        return self.sasrec.hardware() if self.stages == 1 else super().hardware()

    def fit_folder(self, training: TrainingData, seed: int, fitting: Fitting) -> Path | None:
        """See `Baseline.fit_folder`; text vectors of another sentence encoder, or another SASRec, give another fit."""
        folder = super().fit_folder(training, seed, fitting)
        recommender = self.sasrec.fit_folder(training, seed, fitting)
        if folder is None or recommender is None:
            return None
        texts = ItemTexts(training.content.rows, training.content.matrix)
        learned_from = hashlib.sha256(f"{texts.sha256} {recommender.name}".encode()).hexdigest()
        return folder.with_name(f"{folder.name}-{learned_from[:16]}")

    def stage1_folder(self, fitting: Fitting, recommender: Path | None, texts: ItemTexts) -> Path | None:
        """The folder of stage 1, None if fits are not kept: one for all settings that differ in stage 2 alone.

        Args:
            recommender: Folder of the recommender's fit, whose name holds a hash of seed, training data and device.
        """
        if fitting.root is None or recommender is None:
            return None
        own = [STAGE1_VERSION, self.code, self.epochs, self.align_rate, recommender.name, texts.sha256]
        decides = hashlib.sha256(json.dumps(own).encode()).hexdigest()
        return fitting.root / f"stage1-{self.name}-{decides[:16]}"

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> Ranker:
        """See `LanguageModel.fit`."""
        if self.stages == 1:
            return Stage1Ranker(self.name, self._aligned(training, seed, fitting))
        return super().fit(training, seed, fitting)

    def model(self, base: Backbone, tuning: TuningSettings) -> FineTuned:
        """See `LanguageModel.model`."""
        from programs.tuned.adaptation import Projections
        from programs.tuned.finetuned import FineTuned
        from programs.tuned.objective import TITLE

        sizes = {USER: self.sasrec.dimensions, ITEM: self.code}
        return FineTuned(
            base,
            tuning,
            adapt=lambda base, settings: Projections(base, settings, sizes),
            objective=TITLE,
            most_prefix=LONGEST_PREFIX,
            most_suffix=LONGEST_SUFFIX,
        )

    def wording(self, training: TrainingData, seed: int, fitting: Fitting) -> ListOfTitles:
        """See `LanguageModel.wording`; fits the recommender and stage 1."""
        return ListOfTitles(self._aligned(training, seed, fitting), training.items)

    def cases(self, training: TrainingData, seed: int) -> Iterator[Case]:
        """The last item of each user, which stands at a random place of the list in the prompt."""
        return drawn_cases(training, self.negatives, seed)

    def ranker(self, model: FineTuned, wording: Wording, items: Mapping[str, Item]) -> TwoStageRanker:
        """See `LanguageModel.ranker`."""
        return TwoStageRanker(self.name, model, wording, items)

    def _aligned(self, training: TrainingData, seed: int, fitting: Fitting) -> AlignedItems:
        texts = item_texts(training, "item", self.name, fitting.on_event)
        fitted = self.sasrec.fit_folder(training, seed, fitting)
        recommender, _ = measured(
            lambda told: self.sasrec.fit(training, seed, replace(fitting, on_event=told)), fitted, fitting.on_event
        )
        from evaluate.baselines.networks.alignment import Positions, align

        frozen = FrozenRecommender(recommender)
        histories = [
            [recommender.rows[item] for item in history if item in recommender.rows]
            for history in training.histories.values()
        ]
        steps = next_rows(histories, self.sasrec.length)
        folder = self.stage1_folder(fitting, fitted, texts)
        pairs = Positions(
            frozen.states([before for before, _ in steps]),
            np.array([target for _, target in steps], dtype=np.int64),
            frozen.items,
            frozen.biases,
            texts.after(recommender.rows)[1][: len(recommender.rows)],
        )
        plan = FitPlan(f"{self.name}, stage 1", self.epochs, 3, seed, folder)
        network, _ = measured(
            lambda told: align(pairs, self.code, replace(plan, on_event=told), batch=512, rate=self.align_rate),
            folder,
            fitting.on_event,
        )
        return AlignedItems(frozen, network, training.content)


FIRST_ALLMREC = ALLMRec(users=1024, negatives=19)
"""The default before it was made to fit in half an hour of a core: runs that were begun with it go on with it."""


def next_rows(histories: Sequence[list[int]], most: int) -> list[tuple[list[int], int]]:
    """Every item row of some histories but the first, after up to `most` rows before it: the recommender reads no more.

    >>> next_rows([[7, 8, 9], [5]], most=1)
    [([7], 8), ([8], 9)]
    """
    return [
        (history[max(0, end - most) : end], history[end]) for history in histories for end in range(1, len(history))
    ]


class FrozenRecommender:
    """Vectors of a trained SASRec.

    Attributes:
        rows: Row by item id.
        items: Item vectors, shape (m, d).
        biases: Shape (m,).
    """

    @one_thread()  # a kept fit is found by what is computed here, to the last bit
    def __init__(self, ranker: SequenceRanker) -> None:
        import torch

        network = ranker.network
        self.network, self.rows = network, ranker.rows
        with torch.no_grad():
            all_rows = torch.arange(len(ranker.rows), device=network.device)
            self.items = np.asarray(network.vectors.outputs(all_rows).cpu().numpy(), dtype=np.float32)
            self.biases = np.asarray(network.bias.cpu().numpy(), dtype=np.float32)

    @one_thread()
    def states(self, histories: Sequence[Sequence[int]], batch: int = 512) -> NDArray[np.float32]:
        """State after each history of item rows, shape (n, d); zeros after an empty one."""
        import torch

        network = self.network
        found = np.zeros((len(histories), self.items.shape[1]), dtype=np.float32)
        full = [place for place, history in enumerate(histories) if history]
        for start in range(0, len(full), batch):
            some = full[start : start + batch]
            rows = [np.array(histories[place], dtype=np.int64) for place in some]
            nobody = torch.full((len(some),), network.unknown_user, device=network.device)
            with torch.no_grad():
                found[some] = network.last_states(rows, nobody).cpu().numpy()
        return found


class AlignedItems:
    """Stage 1, trained: codes of items, states of users, and scores of its own."""

    def __init__(self, recommender: FrozenRecommender, network: JointCodes, content: ContentSimilarity) -> None:
        self.recommender, self.network, self.content = recommender, network, content
        self._codes = network.codes(recommender.items, text=False)

    def state(self, case: Case) -> NDArray[np.float32]:
        """State of the user of a case, shape (d,)."""
        rows = self.recommender.rows
        found: NDArray[np.float32] = self.recommender.states([[rows[i] for i in case.item_ids if i in rows]])[0]
        return found

    def code(self, item: str) -> NDArray[np.float32] | None:
        """Joint code of an item, that of its text where nobody has it, shape (c,); None without a text, too."""
        if item in self.recommender.rows:
            found: NDArray[np.float32] = self._codes[self.recommender.rows[item]]
            return found
        if item not in self.content.rows:
            return None
        vector = self.content.matrix[self.content.rows[item]][None].astype(np.float32)
        return np.asarray(self.network.codes(vector, text=True)[0], dtype=np.float32)

    def scores(self, case: Case) -> NDArray[np.float64]:
        """State times decoded code plus bias for each candidate; an item that nobody has gets the mean bias."""
        recommender = self.recommender
        codes = {index: code for index, item in enumerate(case.candidates) if (code := self.code(item)) is not None}
        if not codes:
            return np.zeros(len(case.candidates))
        mean = float(recommender.biases.mean())
        names = [case.candidates[index] for index in codes]
        biases = [recommender.biases[recommender.rows[item]] if item in recommender.rows else mean for item in names]
        values = self.network.decoded(np.stack(list(codes.values()))) @ self.state(case) + np.array(biases)
        return unknown_below(values, list(codes), len(case.candidates))


class Stage1Ranker:
    """Ranks by stage 1 alone."""

    def __init__(self, name: str, aligned: AlignedItems) -> None:
        self.name, self.aligned = name, aligned

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        return ranking_from_scores(case, {self.name: self.aligned.scores(case).tolist()}, by=self.name)


class ListOfTitles:
    """The user's vector, the titles of the history and of all candidates, each with its vector, and one more title."""

    def __init__(self, aligned: AlignedItems, items: Mapping[str, Item]) -> None:
        self.aligned, self.items = aligned, items

    def prefix(self, case: Case) -> tuple[str | Slot, ...]:
        """See `Wording.prefix`."""
        bought = [piece for item, _ in events_of(case, self.items) for piece in self._named(item)]
        listed = [self.items[item] for item in case.candidates if item in self.items]
        return (
            "The shopper",
            Slot(USER, self.aligned.state(case)),
            " bought, oldest first:",
            *(bought or ["\n- nothing yet"]),
            "\nOne of these products is bought next:",
            *(piece for item in listed for piece in self._named(item)),
            "\nThe shopper buys next:\n-",
        )

    def suffix(self, item: Item) -> str:
        """See `Wording.suffix`."""
        return f" {title_of(item)}\n"

    def _named(self, item: Item) -> tuple[str | Slot, ...]:
        code = self.aligned.code(item.item_id)
        title = f"\n- {title_of(item)}"
        return (title,) if code is None else (title, Slot(ITEM, code))


class TwoStageRanker(TitleRanker):
    """Ranks by the likelihood of each title, with the scores of stage 1 beside it."""

    def vectors(self, case: Case, items: Sequence[Item]) -> dict[str, NDArray[np.float64]]:
        """See `AnswerRanker.vectors`.

        Raises:
            InputError: if the prompt, which names all candidates, is longer than the base model can read.
        """
        longest = int(self.model.lengths([self.wording.suffix(item) for item in items]).max())
        tokens, most = self.model.prefix_length(self.wording.prefix(case)) + longest, self.model.base.positions
        if most is not None and tokens > most:
            raise InputError(
                f"the ranker {self.name!r} names all candidates in its prompt, and for the {len(case.candidates)} of "
                f"user {quoted(case.user_id)} that are {tokens} tokens; {self.model.base.name!r} reads {most}; "
                "draw shorter lists, or choose a base that reads more"
            )
        return super().vectors(case, items)

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        ranking = super().rank(case)
        assert isinstance(self.wording, ListOfTitles)  # noqa: S101 - made by `ALLMRec.wording`
        ranking.scores[f"{self.name}-stage1"] = self.wording.aligned.scores(case).tolist()
        return ranking
