"""Fine-tuning as an optimizer: LoRA on a local model over lists of the training data, checked as every compile is.

Instead of prompts, the weights of the program `tuned` are searched: users of the search stop the training early and
fit the fusion weight, held-out users compare the result with the base model as it is, and with the prior alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.training_lists import further_lists, steps_back
from evaluate.protocol.cases import Cases
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest
from optimize.compiler import Compiler
from optimize.forecast import Phase
from optimize.freezing import CheckedWinner
from optimize.fusion_fit import at_weight, fit_weight
from optimize.hard_negatives import with_hard_negatives
from optimize.holdout import compare_on_holdout
from optimize.objective import UserScore
from optimize.scoring import score_cases
from optimize.search import Attempt
from optimize.search_result import SearchResult
from optimize.space import ProgramBuilder
from programs.program import MLLM3Rec
from programs.runtime.events import Note, OnEvent, ignore
from programs.tuned.aligner import prompt_list
from programs.tuned.reader import AdapterRecord, Reader, require_packages, tuned_reader, untuned_reader
from programs.tuned.settings import PromptList, TuningSettings
from signatures.rows import Case

FAMILY = "tuned"
"""The program that is fine-tuned."""
CHECKPOINT = "adapter.safetensors"
NEGATIVES = 7
"""Of a training list."""
_MEASURED = 2
"""Lists that are timed for the forecast."""


@dataclass
class FineTuning(Compiler):
    """One fine-tuning in one directory.

    Attributes:
        on_event: Told of the training's progress.
    """

    on_event: OnEvent = field(default=ignore)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_packages("the optimizer finetune")

    @property
    def tuning(self) -> TuningSettings:
        """Settings of the training."""
        assert self.settings.tuning is not None  # noqa: S101 - set for this optimizer
        return self.settings.tuning

    @cached_property
    def training_lists(self) -> list[PromptList]:
        """The prompts of the training cases."""
        return self._lists(finetuning_cases(self.cases, self.tuning, self.settings.seed))

    @cached_property
    def stopping_lists(self) -> list[PromptList]:
        """Whole lists of the first users of the search, which are scored after every block."""
        return self._lists(self.searched[: self.tuning.stopping_users])

    def _lists(self, cases: Sequence[Case]) -> list[PromptList]:
        catalogue = self.parts.catalogue
        known = [case for case in cases if all(item in catalogue for item in case.candidates)]
        return [prompt_list(case, catalogue) for case in known if case.target is not None]

    def forecast(self) -> list[Phase]:
        """Seconds of training and of scoring, from the first lists."""
        from programs.tuned.backbone import load_backbone
        from programs.tuned.finetuned import FineTuned

        model = FineTuned(load_backbone(self.settings.base), self.tuning)
        train = model.seconds_to_train(self.training_lists[:_MEASURED])
        score = model.seconds_to_score(self.stopping_lists[:_MEASURED])
        blocks = -(-self.tuning.steps // self.tuning.block) + 1
        training = self.tuning.lists * train + blocks * len(self.stopping_lists) * score
        users = len(self.searched) + len(self.final_users)
        return [
            Phase(name=name, calls=0, tokens=0, usd=0.0, seconds=seconds)
            for name, seconds in (
                ("fine-tuning", training),
                ("fusion weight", users * score),
                ("held-out", 2 * len(self.held_out) * score),
            )
        ]

    def _run(self) -> ArtifactManifest:
        record, adapter = self._trained()
        name = self.directory / CHECKPOINT
        original = self._with(untuned_reader(record.base), self._uncompiled.weight)
        reader = tuned_reader(record, adapter, name)
        users = [*self.searched, *self.final_users]
        before, after = self._uncompiled, self._uncompiled
        self.watcher.step("untuned and fine-tuned on the users of the search", 2 * len(users))
        base = self._scores(original, users)
        found = self._scores(self._with(reader, after.weight), users)
        weights = self.settings.weights
        fitted = fit_weight(found, weights, after.weight) if self.settings.fit_weight else None
        if fitted is not None:
            after = after.model_copy(update={"weight": fitted.weight})
            found = [score for one in found if (score := at_weight(one, weights, fitted.weight)) is not None]
        winner = self._with(reader, after.weight)
        self.watcher.step("held-out users", 2 * len(self.held_out))
        unchanged, checked = (self._scores(program, self.held_out) for program in (original, winner))
        attempts = [Attempt(0, "COMPLETE", before, tuple(base)), Attempt(1, "COMPLETE", after, tuple(found))]
        result = SearchResult(attempts, [(attempts[1], {})])
        verdict = compare_on_holdout(unchanged, checked)
        return self._frozen(CheckedWinner(result, verdict, original, winner, checked, record, adapter))

    def _trained(self) -> tuple[AdapterRecord, bytes]:
        """The adapter; a training that was stopped goes on after its last block."""
        from programs.tuned.backbone import load_backbone
        from programs.tuned.finetuned import FineTuned

        checkpoint = self.directory / SEARCH_FOLDER / CHECKPOINT
        if not checkpoint.exists():
            minutes = sum(phase.seconds or 0.0 for phase in self.forecast()) / 60
            self.on_event(Note(f"{self.tuning.lists} lists with {self.settings.base}: at most {minutes:.0f} minutes"))
        model = FineTuned(load_backbone(self.settings.base), self.tuning)
        model.fit(self.training_lists, self.stopping_lists, checkpoint, self.on_event)
        record = AdapterRecord(base=self.settings.base, base_sha256=model.base.sha256, settings=self.tuning)
        return record, model.saved()

    def _with(self, reader: Reader, weight: float) -> MLLM3Rec:
        parts = replace(self.parts, reader=reader)
        return ProgramBuilder(parts).program(self._uncompiled.model_copy(update={"weight": weight}))

    def _scores(self, program: MLLM3Rec, cases: Sequence[Case]) -> list[UserScore]:
        return score_cases(self._scored(program, cases), cases, self.objective, self.workers, self.watcher.score)


def finetuning_cases(cases: Cases, tuning: TuningSettings, seed: int) -> list[Case]:
    """Lists of the cases' training data, at most as many as are read, in a random order.

    They have the shape of the cases' setting. If it gives too few, and the settings say so, further purchases are
    targets, too.
    """
    data = TrainingData(cases.training, cases.dataset.items, cases.dataset.metadata, protocol=cases.protocol)
    found = [case for step in steps_back(data, NEGATIVES, seed) for case in step.cases]
    if tuning.every_purchase and len(found) < tuning.lists:
        found += further_lists(data, found, tuning.lists - len(found), NEGATIVES, seed)
    order = np.random.default_rng(seed).permutation(len(found))[: tuning.lists]
    return with_hard_negatives([found[index] for index in order], cases.training, cases.dataset.items, seed)
