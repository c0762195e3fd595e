"""The search: an Optuna study over prompts, families and backends that survives anything (design.md, section 4).

Every trial samples with a seed of its own number and sees only finished trials, so a search that was killed and
resumed makes the same trials as one that was not. What a killed trial had paid for is in the call store; it is run
again under its number with its parameters, and its answered questions cost nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from optimize.objective import Objective, UserScore
from optimize.scoring import EvaluationError, ScoredProgram, scored
from optimize.space import Assembly, Configuration, Space, parameters, suggest, uncompiled
from programs.program import MLLM3Rec
from programs.runtime.errors import InputError
from signatures.rows import Case, seed_of

PROMPT_SEARCH = "mllm3rec"
FOLDS = 3
HOPELESS = 0.1
FAILURES_IN_A_ROW = 3
_TWINS_IN_A_ROW = 25


class SearchPlan(BaseModel):
    """How to search.

    Attributes:
        trials: Different configurations to try, the uncompiled program included.
        seed: Decides every choice of the sampler.
        pareto: Two objectives, quality and cost per shopper, instead of quality alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(default=12, ge=1)
    seed: int = 0
    pareto: bool = False


@dataclass(frozen=True)
class Attempt:
    """One finished trial.

    Attributes:
        state: `COMPLETE`, `PRUNED` or `FAIL`.
        scores: Per shopper; of a pruned trial those it got to.
        score: Their mean.
    """

    number: int
    state: str
    configuration: Configuration
    scores: tuple[UserScore, ...] = ()
    error: str | None = None

    @property
    def score(self) -> float:
        """Mean score, NaN without any."""
        return float(np.mean([s.score for s in self.scores])) if self.scores else math.nan

    def cost(self, unit: str) -> float:
        """Mean cost per shopper in `usd` or `tokens`, MOPE and MAR; MOTE is paid once a catalogue."""
        return float(np.mean([getattr(s, unit) or 0.0 for s in self.scores])) if self.scores else math.nan


@dataclass
class Search:
    """A study over the shoppers of the search.

    Args:
        path: SQLite file of the study.
        judge: Wraps a program for the objective.
        cases: Dev shoppers, in the order in which they are scored.
        unit: What a shopper costs in: `usd`, or `tokens` where a model has no price.
        products: Distinct candidates: the calls a new MOTE prompt costs.
    """

    path: Path
    plan: SearchPlan
    space: Space
    assembly: Assembly
    judge: Callable[[MLLM3Rec], ScoredProgram]
    cases: Sequence[Case]
    objective: Objective
    unit: str = "tokens"
    products: int = 0
    workers: int = 1
    study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            storage=f"sqlite:///{self.path}",
            study_name=PROMPT_SEARCH,
            directions=["maximize", "minimize"] if self.plan.pareto else ["maximize"],
            load_if_exists=True,
        )

    def attempts(self) -> list[Attempt]:
        """Every finished trial that counts, in order."""
        return [attempt_of(trial) for trial in self.study.get_trials(deepcopy=False) if _counts(trial)]

    def run(self, on_score: Callable[[UserScore], None], on_attempt: Callable[[Attempt], None]) -> None:
        """Make trials until there are `plan.trials`, or the space holds no further configuration.

        Raises:
            BudgetExceededError: before a call that might pass the budget; the trial under way is taken up again by
                the next run.
            InputError: if the infrastructure failed in several trials in a row.
        """
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(parameters(uncompiled(self.space), self.assembly.pools))
        failures = 0
        while len(self.attempts()) < self.plan.trials and self._twins() < _TWINS_IN_A_ROW:
            trial = self._next()
            configuration = suggest(trial, self.space, self.assembly.pools)
            trial.set_user_attr("configuration", configuration.model_dump(mode="json"))
            # What failed says nothing about its prompts: it may be tried again.
            tried = [a for a in self.attempts() if a.state != TrialState.FAIL.name]
            twin = next((a.number for a in tried if a.configuration == configuration), None)
            if twin is not None:
                # Failed, not pruned: the sampler learns nothing from what it knows already.
                trial.set_user_attr("twin", twin)
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            try:
                self._evaluate(trial, configuration, on_score)
                failures = 0
            except (EvaluationError, InputError) as error:
                trial.set_user_attr("error", str(error))
                self.study.tell(trial, state=TrialState.FAIL)
                failures += 1
                if failures == FAILURES_IN_A_ROW:
                    raise InputError(f"{failures} trials in a row failed, the last with: {error}") from None
            on_attempt(attempt_of(self.study.get_trials(deepcopy=False)[trial.number]))

    def _next(self) -> optuna.Trial:
        trials = self.study.get_trials(deepcopy=False)
        left = next((trial for trial in trials if trial.state is TrialState.RUNNING), None)
        number = len(trials) if left is None else left.number
        waiting = left is None and any(trial.state is TrialState.WAITING for trial in trials)
        self.study.sampler = self._sampler(0 if waiting else number)
        if left is not None:
            return optuna.Trial(self.study, left._trial_id)
        return self.study.ask()

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        tpe = optuna.samplers.TPESampler(
            seed=seed_of("trial", self.plan.seed, number) % 2**32,
            multivariate=True,
            group=True,
            n_startup_trials=max(3, self.plan.trials // 3),
        )
        best = self.best()
        # Where everything else has been tried, MOTE may change whatever it costs.
        if best is None or len(self.attempts()) % self.period == 0 or self._twins() > _TWINS_IN_A_ROW // 2:
            return tpe
        params = self.study.get_trials(deepcopy=False)[best.number].params
        kept = {name: value for name, value in params.items() if name.startswith("mote_")}
        return optuna.samplers.PartialFixedSampler(kept, tpe) if kept else tpe

    def _twins(self) -> int:
        """How many trials in a row, up to the last finished one, chose what had been tried."""
        finished = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]
        return sum(1 for _ in takewhile(lambda trial: not _counts(trial), reversed(finished)))

    @property
    def period(self) -> int:
        """Every how many trials MOTE may change: a new prompt of it distils every candidate again.

        As many as make the other modules' calls cost as much, and few enough that it changes once.
        """
        first = next(iter(self.attempts()), None)
        others = sum(score.calls for score in first.scores) if first else 0
        if not others:
            return 1
        return max(1, min(math.ceil(self.products / others), self.plan.trials - 1))

    def _evaluate(
        self, trial: optuna.Trial, configuration: Configuration, on_score: Callable[[UserScore], None]
    ) -> None:
        judged = self.judge(self.assembly.program(configuration))
        scores: list[UserScore] = []
        for fold in np.array_split(np.arange(len(self.cases)), FOLDS):
            part = [self.cases[i] for i in fold]
            scores += scored(judged, part, self.objective, self.workers, on_score)
            trial.set_user_attr("scores", [score.model_dump(mode="json") for score in scores])
            found = Attempt(trial.number, "RUNNING", configuration, tuple(scores))
            reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
            if not self.plan.pareto and len(scores) not in reported:
                trial.report(found.score, len(scores))
            if len(scores) < len(self.cases) and self._hopeless(found):
                self.study.tell(trial, state=TrialState.PRUNED)
                return
        self.study.tell(trial, [found.score, found.cost(self.unit)] if self.plan.pareto else found.score)

    def _hopeless(self, found: Attempt) -> bool:
        done = [a for a in self.attempts() if a.state == "COMPLETE"]
        if self.plan.pareto:
            # Only what is better and no dearer makes a trial pointless.
            done = [a for a in done if a.cost(self.unit) <= found.cost(self.unit)]
        best = max(done, key=lambda a: a.score, default=None)
        if best is None:
            return False
        return should_prune([s.score for s in found.scores], [s.score for s in best.scores])

    def best(self) -> Attempt | None:
        """The complete trial of the best mean score; the earliest of several."""
        done = [a for a in self.attempts() if a.state == "COMPLETE"]
        return max(done, key=lambda a: (a.score, -a.number), default=None)

    def front(self) -> list[Attempt]:
        """Complete trials that no other beats in both score and cost, cheapest first."""
        return pareto_front(self.attempts(), self.unit)


def pareto_front(attempts: Sequence[Attempt], unit: str) -> list[Attempt]:
    """Complete attempts that none is at least as good as, and at most as dear as, with one of the two strictly."""
    front: list[Attempt] = []
    complete = [a for a in attempts if a.state == "COMPLETE"]
    for attempt in sorted(complete, key=lambda a: (a.cost(unit), -a.score, a.number)):
        if not front or attempt.score > front[-1].score:
            front.append(attempt)
    return front


def should_prune(scores: Sequence[float], best: Sequence[float]) -> bool:
    """Whether shoppers scored so far say that a trial is worse than the best one (one-sided Wilcoxon test).

    Args:
        scores: Of the first shoppers.
        best: Of at least these shoppers, in the same order.

    >>> should_prune([0.1, 0.2, 0.1, 0.3, 0.2, 0.1], [0.5, 0.6, 0.4, 0.9, 0.5, 0.3])
    True
    """
    differences = np.subtract(scores, best[: len(scores)])
    if len(differences) < 5 or not differences.any():
        return False
    return bool(stats.wilcoxon(differences, alternative="less").pvalue < HOPELESS)


def attempt_of(trial: FrozenTrial) -> Attempt:
    """A finished trial as plain data."""
    attributes: dict[str, Any] = trial.user_attrs
    return Attempt(
        number=trial.number,
        state=trial.state.name,
        configuration=Configuration.model_validate(attributes["configuration"]),
        scores=tuple(UserScore.model_validate(score) for score in attributes.get("scores", ())),
        error=attributes.get("error"),
    )


def _counts(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and "twin" not in trial.user_attrs
