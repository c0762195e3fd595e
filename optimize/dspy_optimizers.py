"""DSPy's own optimizers (MIPROv2, GEPA, random search, labeled few-shot) on the same objective, ledger and roles.

They have no budget and cannot be resumed. So a `ScoreRecorder` keeps every program that they score: if the budget ends,
the best program so far wins. The same command repeats a killed run, with cache hits for its calls.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy
import optuna
from gepa.strategies.proposal_sampling import PxNSampling
from pydantic import TypeAdapter

from optimize.candidates import CandidateSettings, dspy_examples, without_trait_store
from optimize.feedback import Outcome
from optimize.labeled_demos import labeled_demos
from optimize.objective import Objective, UserScore
from optimize.prompts import Prompts, fingerprint, prompts_of, texts_in
from optimize.proposals import Proposer
from optimize.scoring import ScoredProgram
from optimize.settings import CompileSettings, GepaSettings
from programs.program import MLLM3Rec
from programs.runtime.errors import BudgetExceededError, InputError, abridged, one_line
from signatures.rows import Case

_ANSWER_CHARACTERS = 300
"""Of a predictor's answer in a reflection."""


@dataclass
class ScoreRecorder:
    """Records every program that an optimizer scores, identified by its prompts, with its scores by user.

    Args:
        base: Prompts of the uncompiled program, for predictors that an optimizer does not tune.

    Attributes:
        outcomes: What came of a program for a user, by its text, which is all that a reflective optimizer hands on.
    """

    objective: Objective
    base: Prompts
    on_score: Callable[[UserScore], None] = lambda score: None
    prompts: dict[str, Prompts] = field(default_factory=dict)
    scores: dict[str, dict[str, UserScore]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def metric(
        self,
        gold: dspy.Example,
        pred: dspy.Prediction,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        """The metric of the objective; records the score. See `Objective.metric`."""
        score = self.objective.score_prediction(gold.case, pred)
        self.record(pred.prompts, gold.case, score)
        if pred_name is None:
            self.on_score(score)
        else:  # GEPA asks for feedback on what was scored before
            outcome = self.objective.outcome(gold.case, pred, score)
            self.outcomes[outcome.text] = outcome
        return self.objective.metric(gold, pred, trace, pred_name, pred_trace)

    def record(self, prompts: Prompts, case: Case, score: UserScore) -> None:
        """Record the score of one user under a program's prompts."""
        whole = self.base | prompts
        key = fingerprint(whole)
        with self._lock:
            self.prompts.setdefault(key, whole)
            self.scores.setdefault(key, {})[case.user_id] = score

    def complete(self, cases: Sequence[Case]) -> list[tuple[Prompts, list[UserScore]]]:
        """Programs that were scored on all of these users, in the order in which they were first scored."""
        users = [case.user_id for case in cases]
        return [
            (self.prompts[key], [by_user[user] for user in users])
            for key, by_user in self.scores.items()
            if all(user in by_user for user in users)
        ]


def run_dspy_optimizer(
    program: ScoredProgram,
    cases: Sequence[Case],
    recorder: ScoreRecorder,
    settings: CompileSettings,
    proposer: Proposer,
    workers: int = 1,
) -> tuple[Prompts, str | None]:
    """Run one of DSPy's optimizers on the dev users of the search.

    Args:
        program: The uncompiled program; left unchanged.
        recorder: Its metric is the optimizer's.
        settings: `trials` is the number of trials (MIPROv2), candidates (random search) or full evaluations (GEPA).
        proposer: Writes instructions or reflects, through its own adapter, because DSPy's default adapter repeats calls
            with unparsable answers.

    Returns:
        The prompts of the optimizer, or of the best program scored before the budget ended; and the reason if it was
        stopped, or None. The program has recorded scores of all users.

    Raises:
        InputError: if no program was scored on all users, or there is nothing to tune.
    """
    student: ScoredProgram = program.deepcopy()
    student.program = without_trait_store(student.program)
    for module, part in (("mope", "shopper"), ("mote", "product"), ("mar", "aligner")):
        # DSPy's optimizers leave compiled modules unchanged.
        getattr(student.program, part)._compiled = module not in settings.modules
    run = _Run(student, cases, recorder, settings.recipe, settings.gepa, settings.trials, proposer, workers)
    stopped: str | None = None
    best: Prompts | None = None
    try:
        with contextlib.redirect_stdout(io.StringIO()), proposer.context():  # DSPy prints; stdout belongs to results
            best = recorder.base | _RUNNERS[settings.optimizer](run)
    except BudgetExceededError as error:
        stopped = str(error)
    complete = recorder.complete(cases)
    if not complete:
        raise InputError(
            f"{settings.optimizer}: the budget ended before a program was scored on all {len(cases)} users"
        )
    scores = {fingerprint(prompts): sum(score.score for score in own) for prompts, own in complete}
    if best is None or fingerprint(best) not in scores:
        best = recorder.prompts[max(scores, key=lambda key: scores[key])]
    return best, stopped


@dataclass(frozen=True)
class _Run:
    """Arguments of an optimizer."""

    student: ScoredProgram
    cases: Sequence[Case]
    recorder: ScoreRecorder
    settings: CandidateSettings
    gepa: GepaSettings
    trials: int
    proposer: Proposer
    workers: int

    @property
    def seed(self) -> int:
        """DSPy reads a seed of 0 as no seed."""
        return self.settings.seed + 1

    def compiled_by(self, optimizer: Any, shuffle: bool = False, **options: Any) -> Prompts:
        """Prompts of the program that a DSPy optimizer returns.

        Args:
            shuffle: Whether the seed orders the examples that demos are made from, for an optimizer without a seed.
        """
        examples = dspy_examples(self.cases)
        training = list(examples)
        if shuffle and self.settings.seed:  # Seed 0 is the order of the cases, as in older versions.
            random.Random(self.settings.seed).shuffle(training)  # noqa: S311 - a reproducible draw, no secret
        return prompts_of(optimizer.compile(self.student, trainset=training, valset=examples, **options).program)


class _SkippingMIPRO(dspy.MIPROv2):
    """MIPROv2 whose proposals are checked like all others, with the original instruction in place of a refused one."""

    proposer: Proposer

    def _propose_instructions(
        self, program: Any, trainset: list[Any], demo_candidates: Any, *args: Any, **options: Any
    ) -> dict[int, list[str]]:
        candidates: dict[int, list[str]] = super()._propose_instructions(
            program, trainset, demo_candidates, *args, **options
        )
        predictors = [(name.removeprefix("program."), own.signature) for name, own in program.named_predictors()]
        kept: dict[int, list[str]] = {}
        for number, (original, *texts) in candidates.items():
            sets = (demo_candidates or {}).get(number) or []
            shown = [text for demos in sets for demo in demos for text in texts_in(_plain(demo))]
            kept[number] = [original]
            for text in texts:
                kept[number] += self.proposer.valid(text, *predictors[number], shown=shown) or [original]
        return kept


def _plain(demo: Any) -> dict[str, Any]:
    plain: dict[str, Any] = TypeAdapter(Any).dump_python(dict(demo), mode="json")
    return plain


@dataclass(frozen=True)
class _BatchReflection:
    """GEPA's proposer of instructions: one reflection sees what came of a program for all users of a batch."""

    proposer: Proposer
    program: MLLM3Rec
    recorder: ScoreRecorder

    def __call__(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """A new instruction for each component; the present one where none could be read, or it was refused."""
        written = {}
        for name in components_to_update:
            outcomes = [self._outcome(example) for example in reflective_dataset.get(name, ())]
            predictor = name.removeprefix("program.")
            texts = self.proposer.reflect(self.program, predictor, outcomes, candidate[name])
            written[name] = texts[0] if texts else candidate[name]
        return written

    def _outcome(self, example: Mapping[str, Any]) -> Outcome:
        """What came of the program for one user, with what this predictor answered."""
        outcome = self.recorder.outcomes[example["Feedback"]]
        answer = abridged(one_line(example["Generated Outputs"]), _ANSWER_CHARACTERS)
        text = f"{outcome.text} This step answered: {answer}"
        return replace(outcome, text=text, quoted=(*outcome.quoted, answer))


def _mipro(run: _Run) -> Prompts:
    optimizer = _SkippingMIPRO(
        metric=run.recorder.metric,
        prompt_model=run.proposer.lm,
        task_model=run.proposer.lm,  # not used: every predictor has its role's model
        auto=None,
        num_candidates=run.settings.demo_sets + 1,
        max_bootstrapped_demos=run.settings.max_demos,
        max_labeled_demos=0,
        num_threads=run.workers,
        seed=run.seed,
        track_stats=False,
    )
    optimizer.proposer = run.proposer
    # Without the proposer's summaries: the modules' code is the same for every task, and the examples are item ids.
    summaries = {"program_aware_proposer": False, "data_aware_proposer": False}
    # It makes Optuna speak again, which prints a traceback where a trial is interrupted.
    optuna.logging.disable_default_handler()
    logging.getLogger("optuna").addHandler(silent := logging.NullHandler())
    try:
        with run.proposer.skipping_context():
            return run.compiled_by(optimizer, num_trials=run.trials, minibatch=False, **summaries)
    finally:
        logging.getLogger("optuna").removeHandler(silent)
        optuna.logging.enable_default_handler()


def _gepa(run: _Run) -> Prompts:
    optimizer = dspy.GEPA(
        metric=run.recorder.metric,
        max_metric_calls=run.trials * len(run.cases),
        reflection_lm=run.proposer.lm,
        reflection_minibatch_size=min(run.gepa.reflected_users, len(run.cases)),
        instruction_proposer=_BatchReflection(run.proposer, run.student.program, run.recorder),
        use_merge=run.gepa.merge,
        num_threads=run.workers,
        seed=run.seed,
        gepa_kwargs={
            "sampling_strategy": PxNSampling(run.gepa.parents, run.gepa.proposals),
            "frontier_type": run.gepa.frontier,
            "acceptance_criterion": run.gepa.acceptance,
            # GEPA asks for it, because pickle cannot handle dynamic signatures; nothing is written to disk.
            "use_cloudpickle": True,
        },
    )
    return run.compiled_by(optimizer)


def _random_search(run: _Run) -> Prompts:
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=run.recorder.metric,
        max_labeled_demos=0,
        max_bootstrapped_demos=run.settings.max_demos,
        num_candidate_programs=max(1, run.trials - 3),  # it scores three more programs: zero-shot, labeled, unshuffled
        num_threads=run.workers,
    )
    return run.compiled_by(optimizer, shuffle=True)


def _labeled(run: _Run) -> Prompts:
    program = run.student.program
    examples = labeled_demos(program, run.cases, run.seed)
    if not examples:
        raise InputError("optimizer labeled: this program's aligner calls no model, so it has no demos to tune")
    compiled = program.deepcopy()
    compiled.aligner = dspy.LabeledFewShot(k=run.settings.max_demos).compile(compiled.aligner, trainset=examples)
    for candidate in (program, compiled):
        scored = ScoredProgram(candidate, run.student.other_users.value, run.student.ledger, run.student.interactions)
        for example in dspy_examples(run.cases):
            run.recorder.metric(example, scored(case=example.case))
    return prompts_of(compiled)


_RUNNERS: dict[str, Callable[[_Run], Prompts]] = {
    "mipro": _mipro,
    "gepa": _gepa,
    "random-search": _random_search,
    "labeled": _labeled,
}
