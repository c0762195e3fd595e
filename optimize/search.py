"""Resumable Optuna search over prompts, programs, models and fusion weights (docs/compile.md).

Every trial samples with a seed made from its number and reads only finished trials. So a search that was killed and
resumed makes the same trials as an uninterrupted one. A killed trial is repeated with the same parameters; calls that
were answered are cache hits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluate.experiments.grid_results import front_of
from evaluate.experiments.resumable_trials import duplicates_in_a_row, next_trial, open_study
from evaluate.stats.intervals import paired_difference
from optimize.objective import Objective, UserScore, readable
from optimize.scoring import EvaluationError, ScoredProgram, score_cases
from optimize.space import Configuration, ProgramBuilder, Space, parameters, suggest, uncompiled
from programs.program import MLLM3Rec
from programs.runtime.errors import InputError, abridged
from signatures.rows import Case, seed_of

PROMPT_SEARCH = "mllm3rec"
USERS_A_ROUND = 5
"""Users between two looks at a trial, however many are scored in parallel: that must not change which trials stop."""

FEWEST_USERS = 6
"""Of an interval that can stop a trial."""

FAILURES_IN_A_ROW = 3
_DUPLICATES_IN_A_ROW = 25


class SearchPlan(BaseModel):
    """Size and objectives of a search.

    Attributes:
        trials: Different configurations to try, the uncompiled program included.
        seed: Random seed of the sampler.
        pareto: Whether to search for quality and low cost per user together, instead of quality alone.
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
        scores: Scores per user; a pruned trial has those of the first users.
    """

    number: int
    state: str
    configuration: Configuration
    scores: tuple[UserScore, ...] = ()
    error: str | None = None

    @property
    def can_win(self) -> bool:
        """Whether it is complete, and its answers could be read."""
        return self.state == TrialState.COMPLETE.name and readable(self.scores)

    @property
    def score(self) -> float:
        """Mean score, NaN without any."""
        return float(np.mean([s.score for s in self.scores])) if self.scores else math.nan

    def cost(self, unit: str) -> float:
        """Mean cost of MOPE and MAR per user in `usd` or `tokens`; MOTE is paid once per catalogue."""
        return float(np.mean([getattr(s, unit) or 0.0 for s in self.scores])) if self.scores else math.nan

    @property
    def prompt_tokens(self) -> float:
        """Mean number of tokens in the prompts of MOPE and MAR per user; 0 where they were not counted yet."""
        return float(np.mean([s.tokens_in for s in self.scores])) if self.scores else math.nan

    def to_json(self, unit: str) -> dict[str, Any]:
        """The trial as JSON data, with its cost in `unit`."""
        return {
            "number": self.number,
            "state": self.state,
            "configuration": self.configuration.model_dump(mode="json"),
            "score": self.score if self.scores else None,
            "cost": {unit: self.cost(unit)} if self.scores else None,
            "prompt_tokens": self.prompt_tokens if self.scores else None,
            "error": self.error,
            "scores": [score.model_dump(mode="json") for score in self.scores],
        }


@dataclass
class Search:
    """A search on the dev users of the search.

    Args:
        path: SQLite file of the Optuna study.
        builder: Builds the programs.
        wrap: Makes a program scorable.
        cases: Dev users, in the order in which they are scored.
        unit: Unit of the cost per user: `usd`, or `tokens` if a model has no known price.
        items: Number of distinct candidates: the calls that a new prompt of MOTE costs.
        retry_unparsable: Whether trials of earlier sessions whose answers could not be read are made again.
    """

    path: Path
    plan: SearchPlan
    space: Space
    builder: ProgramBuilder
    wrap: Callable[[MLLM3Rec], ScoredProgram]
    cases: Sequence[Case]
    objective: Objective
    unit: str = "tokens"
    items: int = 0
    workers: int = 1
    retry_unparsable: bool = False
    study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        directions = ["maximize", "minimize"] if self.plan.pareto else ["maximize"]
        self.study = open_study(self.path, PROMPT_SEARCH, directions)

    def attempts(self) -> list[Attempt]:
        """The finished trials without duplicates, in order; see `with_repeated_start`."""
        return with_repeated_start(self._made())

    def _made(self) -> list[Attempt]:
        """The finished trials as the study has them: each repeat is one of them, with a number of its own."""
        trials = self.study.get_trials(deepcopy=False)
        return [attempt_of(trial) for trial in trials if trial.state.is_finished() and not _is_duplicate(trial)]

    def run(self, on_score: Callable[[UserScore], None], on_attempt: Callable[[Attempt], None]) -> None:
        """Make trials until there are `plan.trials`, or the space has no further configuration.

        Raises:
            BudgetExceededError: before a call that might exceed the budget; the next run continues the trial under way.
            InputError: if the infrastructure failed in several trials in a row.
        """
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(parameters(uncompiled(self.space), self.builder.candidates))
        again = self._unread() if self.retry_unparsable else set()
        failures = 0
        while len(self._made()) - len(again) < self.plan.trials and self._duplicates() < _DUPLICATES_IN_A_ROW:
            trial = next_trial(self.study, self._sampler)
            configuration = suggest(trial, self.space, self.builder.candidates)
            trial.set_user_attr("configuration", configuration.model_dump(mode="json"))
            # A configuration whose trial failed may be tried again.
            tried = [a for a in self._made() if a.state != TrialState.FAIL.name and a.number not in again]
            original = next((a.number for a in tried if a.configuration == configuration), None)
            if original is not None:
                # Failed, not pruned: the sampler must not see the same result twice.
                trial.set_user_attr("twin", original)
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

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        tpe = optuna.samplers.TPESampler(
            seed=seed_of("trial", self.plan.seed, number) % 2**32,
            multivariate=True,
            group=True,
            n_startup_trials=max(3, self.plan.trials // 3),
        )
        best = self.best()
        # After many duplicates MOTE may change in every trial.
        many_duplicates = self._duplicates() > _DUPLICATES_IN_A_ROW // 2
        if best is None or len(self._made()) % self.period == 0 or many_duplicates:
            return tpe
        params = self.study.get_trials(deepcopy=False)[best.number].params
        fixed = {name: value for name, value in params.items() if name.startswith(("mote_", "mote."))}
        return optuna.samplers.PartialFixedSampler(fixed, tpe) if fixed else tpe

    def _duplicates(self) -> int:
        return duplicates_in_a_row(self.study, _is_duplicate)

    @property
    def period(self) -> int:
        """MOTE may change only in every `period`-th trial, because a new prompt needs new traits of all candidates.

        In one period the other modules make about as many calls as MOTE; it ends before the last trial.
        """
        first = next(iter(self._made()), None)
        calls = sum(score.calls for score in first.scores) if first else 0
        if not calls:
            return 1
        return max(1, min(math.ceil(self.items / calls), self.plan.trials - 1))

    def _evaluate(
        self, trial: optuna.Trial, configuration: Configuration, on_score: Callable[[UserScore], None]
    ) -> None:
        program = self.wrap(self.builder.program(configuration))
        scores: list[UserScore] = []
        rounds = max(1, len(self.cases) // USERS_A_ROUND)
        for fold in np.array_split(np.arange(len(self.cases)), rounds):
            part = [self.cases[i] for i in fold]
            scores += score_cases(program, part, self.objective, self.workers, on_score)
            trial.set_user_attr("scores", [score.model_dump(mode="json") for score in scores])
            attempt = Attempt(trial.number, "RUNNING", configuration, tuple(scores))
            reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
            if not self.plan.pareto and len(scores) not in reported:
                trial.report(attempt.score, len(scores))
            if len(scores) < len(self.cases) and self._should_prune(attempt):
                self.study.tell(trial, state=TrialState.PRUNED)
                return
        self.study.tell(trial, [attempt.score, attempt.cost(self.unit)] if self.plan.pareto else attempt.score)

    def _should_prune(self, attempt: Attempt) -> bool:
        complete = [a for a in self.attempts() if a.can_win]
        if self.plan.pareto:
            # A more expensive trial that is better does not make this one useless.
            complete = [a for a in complete if a.cost(self.unit) <= attempt.cost(self.unit)]
        best = max(complete, key=lambda a: a.score, default=None)
        if best is None:
            return False
        return should_prune([s.score for s in attempt.scores], [s.score for s in best.scores])

    def _unread(self) -> set[int]:
        """Trials whose answers could not be read, and which no other trial has repeated; they are enqueued again."""
        trials = self.study.get_trials(deepcopy=False)
        complete = [a for a in self._made() if a.state == TrialState.COMPLETE.name]
        last = {a.configuration.model_dump_json(): a for a in complete}
        unread = {a.number for a in last.values() if not readable(a.scores)}
        waiting = [trial.system_attrs.get("fixed_params") for trial in trials if trial.state is TrialState.WAITING]
        for number in sorted(unread):
            if trials[number].params not in waiting:
                self.study.enqueue_trial(trials[number].params)
        return {a.number for a in complete if last[a.configuration.model_dump_json()].number in unread}

    def readable(self) -> list[Attempt]:
        """The complete trials whose answers could be read, the best first; see `by_merit`."""
        return sorted((a for a in self.attempts() if a.can_win), key=by_merit, reverse=True)

    def best(self) -> Attempt | None:
        """The first of the readable trials, or None."""
        return next(iter(self.readable()), None)


def with_repeated_start(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The trials, with a repeat of the uncompiled program as number 0 where the first one could not be read or failed.

    The number 0 says what the winner must beat, so the repeat takes the place of the first one.
    """
    first = next((a for a in attempts if a.number == 0), None)
    if first is None or first.can_win:
        return list(attempts)
    again = next((a for a in attempts if a.can_win and a.configuration == first.configuration), None)
    if again is None:
        return list(attempts)
    return [replace(again, number=0), *(a for a in attempts if a.number not in (0, again.number))]


def by_merit(attempt: Attempt) -> tuple[float, bool, float, int]:
    """Sort key of trials: the score; of equals the uncompiled program, then few tokens in the prompts."""
    return merit(attempt.number, attempt.score, attempt.prompt_tokens)


def merit(number: int, score: float, prompt_tokens: float) -> tuple[float, bool, float, int]:
    """See `by_merit`; for any score of a trial."""
    return score, number == 0, -prompt_tokens, -number


def pareto_front(attempts: Sequence[Attempt], unit: str) -> list[Attempt]:
    """Complete attempts that no other one beats in both score and cost, cheapest first."""
    complete = {a.number: a for a in attempts if a.state == "COMPLETE"}
    costs = {number: a.cost(unit) for number, a in complete.items()}
    return [complete[number] for number in front_of({number: a.score for number, a in complete.items()}, costs)]


def should_prune(scores: Sequence[float], best: Sequence[float]) -> bool:
    """Whether a trial's interval separates from the best one's: that of the paired difference lies below 0.

    Args:
        scores: Scores of the first users.
        best: Scores of the best trial, of at least these users in the same order.

    >>> should_prune([0.1, 0.2, 0.1, 0.3, 0.2, 0.1], [0.5, 0.6, 0.4, 0.9, 0.5, 0.3])
    True
    """
    if len(scores) < FEWEST_USERS:
        return False
    own, other = ({str(user): score for user, score in enumerate(of)} for of in (scores, best[: len(scores)]))
    return paired_difference(own, other, seed=0).high < 0


def attempt_of(trial: FrozenTrial) -> Attempt:
    """An Optuna trial as an `Attempt`.

    Raises:
        InputError: if it was not made by a search, or its file was edited.
    """
    attributes: dict[str, Any] = trial.user_attrs
    try:
        return Attempt(
            number=trial.number,
            state=trial.state.name,
            configuration=Configuration.model_validate(attributes.get("configuration")),
            scores=tuple(UserScore.model_validate(score) for score in attributes.get("scores") or ()),
            error=attributes.get("error"),
        )
    except (ValidationError, TypeError) as error:
        problem = f"trial {trial.number} of the search cannot be read"
        raise InputError(f"{problem} ({abridged(str(error))}); choose another --out") from None


def _is_duplicate(trial: FrozenTrial) -> bool:
    return "twin" in trial.user_attrs
