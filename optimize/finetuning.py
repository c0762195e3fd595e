"""Fine-tuning as an optimizer: LoRA on a local model over lists of the training data, checked as every compile is.

Instead of prompts, the weights of the reader of `tuned` or `tuned-profiles` are searched: users of the search stop the
training early and fit the fusion weight, held-out users compare the result with the program before, and with the prior.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.training_lists import further_lists, steps_back
from evaluate.protocol.cases import Cases
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest
from optimize.beside_prior import HEAD, SCALED_ON, HeadList, beside_prior, head_lists, training_head_lists
from optimize.compiler import UNREADABLE, Compiler
from optimize.finals import final_round
from optimize.forecast import Phase, check_unpaid
from optimize.freezing import CheckedWinner
from optimize.fusion_fit import all_at_weight
from optimize.hard_negatives import with_hard_negatives
from optimize.objective import UserScore, readable
from optimize.scoring import naming_user, score_cases
from optimize.search import Attempt
from optimize.search_result import SearchResult
from optimize.space import Configuration
from programs.lm.backends import UnparsableError
from programs.lm.ledger import Budget
from programs.prior.choice import fit_prior, prior_name
from programs.prior.prior import Prior
from programs.prior.prior_v2 import PriorV2
from programs.program import DEFAULT_WEIGHT, WITHOUT_MODEL, MLLM3Rec, Parts
from programs.rehearsal import LongestRehearsal
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Event, Note, OnEvent, Progress, ignore
from programs.runtime.interrupts import map_in_threads
from programs.trait_store import TraitStore
from programs.tuned.aligner import prompt_list
from programs.tuned.reader import AdapterRecord, Reader, require_packages, tuned_reader, untuned_reader
from programs.tuned.settings import PromptList, TuningSettings
from signatures.rows import Case, Ranking, Usage

if TYPE_CHECKING:
    from programs.tuned.finetuned import FineTuned

FAMILIES = ("tuned", "tuned-profiles")
"""The programs that are fine-tuned, the default first."""
CHECKPOINT = "adapter.safetensors"
BESIDE_PRIOR = "fine-tuning beside the prior"
"""Phase of the second training."""
CHECKPOINT_BESIDE_PRIOR = "beside-prior.safetensors"
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
        """The prompts of the training cases; MOPE and MOTE are asked where the program has them."""
        cases = self._training_cases
        if self._asks_models:
            self.ledger.phase = "training lists"
            self.watcher.step("profiles and traits of the training lists", len(cases))
        return self._lists(cases)

    @cached_property
    def _training_cases(self) -> list[Case]:
        return finetuning_cases(self.cases, self.tuning, self.settings.seed)

    @property
    def _asks_models(self) -> bool:
        return self._uncompiled.family not in WITHOUT_MODEL

    @cached_property
    def stopping_lists(self) -> list[PromptList]:
        """Whole lists of the first users of the search, which are scored after every block."""
        return self._lists(self.searched[: self.tuning.stopping_users])

    def _lists(self, cases: Sequence[Case], parts: Parts | None = None) -> list[PromptList]:
        """The cases whose candidates are all in the catalogue, as the program's reader reads them."""
        return [one for one in self._read(cases, parts) if one is not None]

    def _read(self, cases: Sequence[Case], parts: Parts | None = None) -> list[PromptList | None]:
        """Each case as the program's reader reads it; None where a candidate is not in the catalogue."""
        program = self._builder_on(parts or self.parts).program(self._uncompiled)
        read = partial(_read_by, program, self.parts.catalogue)
        return list(map_in_threads(read, cases, self.workers, self.ledger.stop))

    def _both(self, lists: Sequence[HeadList]) -> list[tuple[HeadList, PromptList]]:
        prompts = self._read([one.case for one in lists])
        return [(one, prompt) for one, prompt in zip(lists, prompts, strict=True) if prompt is not None]

    def forecast(self) -> list[Phase]:
        """Seconds of training and of scoring, and the calls for profiles and traits, from the first lists."""
        return [_phase(work) for work in self._foreseen()]

    def _foreseen(self) -> list[_Work]:
        from programs.tuned.backbone import load_backbone
        from programs.tuned.finetuned import FineTuned

        model = FineTuned(load_backbone(self.settings.base), self.tuning)
        lists, of_lists, _ = self._rehearsed(self._training_cases[:_MEASURED])
        users, to_read, to_score = self._rehearsed(self.searched[:_MEASURED])
        train, score = model.seconds_to_train(lists), model.seconds_to_score(users)
        blocks = -(-self.tuning.steps // self.tuning.block) + 1
        stopping = min(self.tuning.stopping_users, len(self.searched))
        seen, held_out = len(self.searched) + len(self.final_users), len(self.held_out)
        known = min(self.tuning.lists, len(self._training_cases))
        return [
            _Work("training lists", of_lists, known / len(lists), 0.0),
            _Work("fine-tuning", to_read, 0, self.tuning.lists * train + blocks * stopping * score),
            *self._foreseen_beside_prior(of_lists, len(lists), train, score, stopping),
            _Work("fusion weight", to_score, seen / len(users), 2 * seen * score),
            _Work("held-out", to_score, held_out / len(users), 2 * held_out * score),
        ]

    def _foreseen_beside_prior(
        self, of_lists: Usage, measured: int, train: float, score: float, stopping: int
    ) -> list[_Work]:
        """At most: lists of the head are a little longer than those trained on, and shorter than whole ones.

        Args:
            of_lists: What was measured to read so many lists of the first training.
        """
        if not self.tuning.beside_prior:
            return []
        lists = self.tuning.beside_prior * HEAD / (1 + NEGATIVES)
        return [_Work(BESIDE_PRIOR, of_lists, lists / measured, lists * train + (5 * stopping + SCALED_ON) * score)]

    def _rehearsed(self, cases: Sequence[Case]) -> tuple[list[PromptList], Usage, Usage]:
        """Lists of invented profiles and traits, and what asking for real ones takes at most: to read, and to score."""
        rehearsal = LongestRehearsal(self.parts.backends, self.parts.schema)
        parts = replace(self.parts, backends=rehearsal, traits=TraitStore())
        lists = self._lists(cases, parts)
        to_read = rehearsal.ledger.total()
        scored = self._scored(self._builder_on(parts).program(self._uncompiled), self.searched, rehearsal.ledger)
        for case in cases:
            scored.profiles(case)
        return lists, to_read, rehearsal.ledger.total()

    def _search_budget(self, budget: Budget) -> Budget:
        """The whole budget: what ends a fine-tuning before its check leaves no winner to check.

        Raises:
            InputError: if a new compile cannot pay for the held-out check, or nothing can judge the training beside the
                prior.
        """
        if self.tuning.beside_prior and not self._judges:
            raise InputError(
                f"--beside-prior: no user of the search has a target among the prior's first {HEAD} candidates, so "
                "nothing can judge this training; give more dev users, or leave out --beside-prior"
            )
        if self._asks_models and budget != Budget() and not self.ledger.total().calls:
            problem = check_unpaid(self.forecast(), budget)
            if problem is not None:
                raise InputError(problem)
        return budget

    def _run(self, budget: Budget) -> ArtifactManifest:
        record, adapter = self._trained()
        name = self.directory / CHECKPOINT
        before, plain, weights = self._before, self._uncompiled, self.settings.weights
        original = self._with((self.start and self.start.reader) or untuned_reader(record.base), before)
        reader = tuned_reader(record, adapter, name)
        users = [*self.searched, *self.final_users]
        self.ledger.phase = "fusion weight"
        self.watcher.step("untuned and fine-tuned on the users of the search", 2 * len(users))
        untuned = Attempt(0, "COMPLETE", before, tuple(self._scores(original, users)))
        tuned = Attempt(1, "COMPLETE", plain, tuple(self._scores(self._with(reader, plain), users)))
        if not readable(tuned.scores):
            raise InputError(UNREADABLE)
        decision = final_round([tuned], lambda one, draw: one.scores, 1, weights, self.settings.fit_weight)
        self._tell(decision)
        after = decision.winner.configuration
        found = all_at_weight(tuned.scores, weights, after.weight, after.gate) or tuned.scores
        tuned = replace(tuned, configuration=after, scores=tuple(found))
        winner = self._with(reader, after)
        self.ledger.budget, self.ledger.phase = budget, "held-out"
        self.watcher.step("rankings of held-out users", 2 * len(self.held_out))
        unchanged, checked = (self._scores(program, self.held_out) for program in (original, winner))
        if not readable(checked):
            raise InputError(UNREADABLE)
        verdict = self._verdict(unchanged, checked, after)
        result = SearchResult([untuned, tuned], [(tuned, {})], finals=decision.finals)
        return self._frozen(CheckedWinner(result, verdict, original, winner, checked, record, adapter))

    def _trained(self) -> tuple[AdapterRecord, bytes]:
        """The adapter; a training that was stopped goes on after its last block."""
        from programs.tuned.backbone import load_backbone
        from programs.tuned.finetuned import FineTuned

        checkpoint = self.directory / SEARCH_FOLDER / CHECKPOINT
        if not checkpoint.exists():
            minutes = sum(work.seconds for work in self._foreseen()) / 60
            calls = ", without the answers of models" if self._asks_models else ""
            whole = f"{self.tuning.lists} lists with {self.settings.base}: at most {minutes:.0f} minutes{calls}"
            self.on_event(Note(whole))
        model = FineTuned(load_backbone(self.settings.base), self.tuning)
        lists, stopping = self.training_lists, self.stopping_lists
        if not (lists and stopping):
            raise InputError(UNREADABLE)
        model.fit(lists, stopping, checkpoint, self._told)
        if self.tuning.beside_prior:
            self._train_beside_prior(model)
        record = AdapterRecord(base=self.settings.base, base_sha256=model.base.sha256, settings=self.tuning)
        return record, model.saved()

    @property
    def _prior(self) -> Prior | PriorV2:
        prior = self.parts.prior
        assert isinstance(prior, Prior | PriorV2)  # noqa: S101 - a compile has data
        return prior

    @cached_property
    def _judges(self) -> list[HeadList]:
        """Lists of the first users of the search, which judge the training beside the prior."""
        return head_lists(self.searched[: self.tuning.stopping_users], self._prior)

    def _train_beside_prior(self, model: FineTuned) -> None:
        """Train on lists whose loss is that of the fused scores."""
        prior = self._prior
        drawn = training_head_lists(
            self.cases,
            lambda training: fit_prior(prior_name(self.settings.prior), training, prior.content),
            self.tuning.beside_prior,
            self.settings.seed,
            {(case.user_id, str(case.target)) for case in self._training_cases},
        )
        if self._asks_models:
            self.ledger.phase = BESIDE_PRIOR
            self.watcher.step("profiles and traits of the lists beside the prior", len(drawn))
        weight = self._uncompiled.weight
        lists, stopping = beside_prior(
            self._both(drawn),
            lambda one: model.logits(one.prefix, one.suffixes),
            # At 0 the reader has no part in the fused scores, and at 1 the prior has none.
            weight if 0 < weight < 1 else DEFAULT_WEIGHT,
            self._both(self._judges),
        )
        model.settings = self.tuning.of_lists_beside_prior
        model.fit(lists, stopping, self.directory / SEARCH_FOLDER / CHECKPOINT_BESIDE_PRIOR, self._told)

    def _told(self, event: Event) -> None:
        """Pass an event of the training on; stop it when the minutes of the budget are over."""
        self.on_event(event)
        if isinstance(event, Progress) and event.done < (event.total or 0) and self.ledger.budget.over:
            raise BudgetExceededError(
                f"the minutes are over after {event.done} of {event.total} lists; run the same command with more of "
                "them to go on after the last whole block"
            )

    def _with(self, reader: Reader, configuration: Configuration) -> MLLM3Rec:
        return self._builder_on(replace(self.parts, reader=reader)).program(configuration)

    def _scores(self, program: MLLM3Rec, cases: Sequence[Case]) -> list[UserScore]:
        return score_cases(self._scored(program, cases), cases, self.objective, self.workers, self.watcher.score)


def _read_by(program: MLLM3Rec, catalogue: Container[str], case: Case) -> PromptList | None:
    """What the reader reads of a case; None if its target or texts are missing, or no profile could be read."""
    if case.target is None or not all(item in catalogue for item in case.candidates):
        return None
    every, nothing = np.arange(len(case.candidates)), np.zeros(len(case.candidates))
    row = Ranking(user_id=case.user_id, order=())
    try:
        with naming_user(case.user_id):
            user, candidates = program.views(case.blinded(), every, nothing, row, ignore)
    except UnparsableError:
        return None
    return prompt_list(user, candidates, case.candidates.index(case.target))


@dataclass(frozen=True)
class _Work:
    """A phase that takes some usage as many times, and seconds beside the calls."""

    name: str
    usage: Usage
    times: float
    seconds: float


def _phase(work: _Work) -> Phase:
    """The forecast of some work; its calls are an upper bound, as items come again, and their time is unknown."""
    usage, times = work.usage, work.times
    usd, calls = usage.usd if usage.calls else 0.0, math.ceil(usage.calls * times)
    return Phase(
        name=work.name,
        calls=calls,
        tokens=math.ceil((usage.tokens_in + usage.tokens_out) * times),
        usd=None if usd is None else usd * times,
        seconds=None if calls else work.seconds,
    )


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
