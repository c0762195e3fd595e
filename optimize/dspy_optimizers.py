"""DSPy's own optimizers on the same objective, ledger and roles, so that they can be compared at equal calls.

They know neither budgets nor interruptions. A `Scoreboard` keeps every program they score, so that a spent budget ends
them with the best one so far; the same command replays a killed run from the call store without paying twice.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import dspy

from optimize.candidates import Recipe, examples_of, without_trait_cache
from optimize.labeled_demos import labelled_demos
from optimize.objective import Objective, UserScore
from optimize.prompts import Prompts, fingerprint, prompts_of
from optimize.scoring import ScoredProgram
from programs.lm.adapters import AdapterName, build_adapter
from programs.program import MLLM3Rec
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.rows import Case

Optimizer = Literal["mipro", "gepa", "random-search", "labeled"]
DSPY_OPTIMIZERS: tuple[Optimizer, ...] = ("mipro", "gepa", "random-search", "labeled")


@dataclass
class Scoreboard:
    """Every program an optimizer scored, told apart by its prompts, with its scores by shopper.

    Its `metric` is the objective's, and writes down what it sees.

    Args:
        base: Prompts of the uncompiled program: what an optimizer does not tune it does not tell.
    """

    objective: Objective
    base: Prompts
    on_score: Callable[[UserScore], None] = lambda score: None
    prompts: dict[str, Prompts] = field(default_factory=dict)
    scores: dict[str, dict[str, UserScore]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def metric(
        self,
        gold: dspy.Example,
        pred: dspy.Prediction,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        """See `Objective.metric`."""
        found = self.objective.judge(gold.case, pred)
        self.note(pred.prompts, gold.case, found)
        self.on_score(found)
        return self.objective.metric(gold, pred, trace, pred_name, pred_trace)

    def note(self, prompts: Prompts, case: Case, score: UserScore) -> None:
        """Write down one shopper's score under a program's prompts."""
        whole = self.base | prompts
        key = fingerprint(whole)
        with self._lock:
            self.prompts.setdefault(key, whole)
            self.scores.setdefault(key, {})[case.user_id] = score

    def complete(self, cases: Sequence[Case]) -> list[tuple[Prompts, list[UserScore]]]:
        """Programs scored on all of these shoppers, in the order in which they were first seen."""
        users = [case.user_id for case in cases]
        return [
            (self.prompts[key], [found[user] for user in users])
            for key, found in self.scores.items()
            if all(user in found for user in users)
        ]


def optimize(
    optimizer: Optimizer,
    judged: ScoredProgram,
    cases: Sequence[Case],
    board: Scoreboard,
    recipe: Recipe,
    trials: int,
    proposer: dspy.LM,
    adapter: AdapterName,
    modules: Sequence[str],
    workers: int = 1,
) -> tuple[Prompts, str | None]:
    """Run one of DSPy's optimizers over the dev shoppers of the search.

    Args:
        judged: The uncompiled program; it is left as it is.
        board: Its metric is the optimizer's.
        recipe: Demonstrations, wordings and seed, as far as the optimizer knows such things.
        trials: Programs to score: MIPROv2's trials, random search's candidates, GEPA's full evaluations.
        proposer: Writes instructions, or reflects.
        adapter: How it is asked. DSPy's default would ask twice where an answer cannot be read.
        modules: What is tuned: some of `mope`, `mote`, `mar`.

    Returns:
        Prompts of the program it decided for, or of the best one it scored before the budget ended; and why it was
        stopped, or None. Always a program on the board that was scored on all shoppers.

    Raises:
        InputError: if nothing could be scored on all shoppers, or the program gives the optimizer nothing to tune.
    """
    student: ScoredProgram = judged.deepcopy()
    student.program = without_trait_cache(student.program)
    for module, part in (("mope", "shopper"), ("mote", "product"), ("mar", "aligner")):
        # What DSPy takes for compiled it leaves alone: its predictors are none of the student's.
        getattr(student.program, part)._compiled = module not in modules
    stopped: str | None = None
    try:
        # DSPy prints; stdout belongs to results.
        with contextlib.redirect_stdout(io.StringIO()), dspy.context(lm=proposer, adapter=build_adapter(adapter)):
            best = _compiled(optimizer, student, cases, board, recipe, trials, proposer, workers)
    except BudgetExceededError as error:
        stopped, best = str(error), None
    complete = board.complete(cases)
    if best is not None:
        best = board.base | best
    if not complete:
        raise InputError(f"{optimizer}: the budget ended before one program was scored on all {len(cases)} shoppers")
    scores = {fingerprint(prompts): sum(score.score for score in found) for prompts, found in complete}
    if best is None or fingerprint(best) not in scores:
        best = board.prompts[max(scores, key=lambda key: scores[key])]
    return best, stopped


def _compiled(
    optimizer: Optimizer,
    student: ScoredProgram,
    cases: Sequence[Case],
    board: Scoreboard,
    recipe: Recipe,
    trials: int,
    proposer: dspy.LM,
    workers: int,
) -> Prompts:
    examples = examples_of(cases)
    seed = recipe.seed + 1  # DSPy takes a seed of 0 for none
    if optimizer == "labeled":
        return _labelled(student, cases, board, recipe, seed)
    if optimizer == "random-search":
        # It scores the zero-shot, the labelled and the unshuffled program before its candidates.
        search = dspy.BootstrapFewShotWithRandomSearch(
            metric=board.metric,
            max_labeled_demos=0,
            max_bootstrapped_demos=recipe.max_demos,
            num_candidate_programs=max(1, trials - 3),
            num_threads=workers,
        )
        return prompts_of(search.compile(student, trainset=examples, valset=examples).program)
    if optimizer == "gepa":
        gepa = dspy.GEPA(
            metric=board.metric,
            max_metric_calls=trials * len(cases),
            reflection_lm=proposer,
            num_threads=workers,
            seed=seed,
            # GEPA says that its states may hold dynamic signatures, which pickle cannot; nothing is written to disk.
            gepa_kwargs={"use_cloudpickle": True},
        )
        return prompts_of(gepa.compile(student, trainset=examples, valset=examples).program)
    mipro = dspy.MIPROv2(
        metric=board.metric,
        prompt_model=proposer,
        task_model=proposer,  # never asked: every predictor is given its role's model
        auto=None,
        num_candidates=recipe.demo_sets + 1,
        max_bootstrapped_demos=recipe.max_demos,
        max_labeled_demos=0,
        num_threads=workers,
        seed=seed,
        track_stats=False,
    )
    compiled = mipro.compile(
        student,
        trainset=examples,
        valset=examples,
        num_trials=trials,
        minibatch=False,
        # The code of the modules is the same for every task, and the examples are item ids: neither informs.
        program_aware_proposer=False,
        data_aware_proposer=False,
    )
    return prompts_of(compiled.program)


def _labelled(student: ScoredProgram, cases: Sequence[Case], board: Scoreboard, recipe: Recipe, seed: int) -> Prompts:
    examples = labelled_demos(student.program, cases, seed)
    if not examples:
        raise InputError("labeled: this family's aligner asks no model, so that there is nothing to demonstrate")
    program: MLLM3Rec = student.program.deepcopy()
    program.aligner = dspy.LabeledFewShot(k=recipe.max_demos).compile(program.aligner, trainset=examples)
    for one in (student.program, program):
        judged = ScoredProgram(one, student.neighbours.value, student.ledger, student.interactions)
        for example in examples_of(cases):
            board.metric(example, judged(case=example.case))
    return prompts_of(program)
