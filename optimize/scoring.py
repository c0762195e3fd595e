"""Scoring of a program for compiling: rankings and profiles per user, and the objective's score of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import dspy
from dspy.utils.exceptions import DSPyError

from optimize.fusion_fit import ranks_by_weight
from optimize.likelihood import ListScores
from optimize.objective import Objective, UserScore
from optimize.prompts import prompts_of
from programs.lm.ledger import Ledger
from programs.lm.pending import independent
from programs.mope import MOPE
from programs.program import MLLM3Rec
from programs.runtime.errors import abridged, one_line, quoted
from programs.runtime.interrupts import map_in_threads
from programs.runtime.nocopy import NoCopy
from signatures.rows import Case, total_usage
from signatures.types import Profile

NEXT_USERS = 2
INTERACTIONS = 3
USER_ROLES = ("mope", "mar")


class EvaluationError(BaseException):
    """The infrastructure failed while a program was scored.

    Not an `Exception`, because DSPy's optimizers turn exceptions into a score of zero. A server that is down must not
    count against a prompt.
    """


@contextmanager
def naming_user(user_id: str) -> Iterator[None]:
    """A failure of the infrastructure inside the block becomes an `EvaluationError` that names the user."""
    try:
        yield
    except (DSPyError, OSError) as error:
        problem = f"{type(error).__name__}: {abridged(one_line(error), 1000)}"
        raise EvaluationError(f"user {quoted(user_id)}: {problem}") from error


class ScoredProgram(dspy.Module):
    """Ranks a case and infers the profiles per interaction that the objective's coherence needs.

    The profiles per interaction leave no DSPy trace, because demos are made only from answers that led to the ranking.

    Args:
        program: The program to compile.
        other_users: For each user id, the cases of the users to compare profiles with (see `next_users`).
        ledger: Records the program's calls; gives their cost.
        interactions: k of eq. 5, the number of last interactions to profile; 0 for no profiles.
    """

    def __init__(
        self,
        program: MLLM3Rec,
        other_users: Mapping[str, Sequence[Case]],
        ledger: Ledger,
        interactions: int = INTERACTIONS,
    ) -> None:
        super().__init__()
        self.program = program
        self.ledger = ledger
        self.other_users = NoCopy(other_users)
        self.interactions = interactions

    def forward(self, case: Case) -> dspy.Prediction:
        """Rank and profile.

        Returns:
            Prediction with `ranking`, the profiles `own` and `others`, the number of own profiles of a program with
            MOPE (`expected`), the usage of MOPE and MAR for the ranking, cache hits counted as paid (`spent`), and the
            `prompts` of the program; MAR's own scores (`mar`), their positions in its prompt (`shown`), and the
            ranks of the target at other fusion weights (`ranks`), the scores that are fused (`lists`), and the user's
            `signals` for a gate.

        Raises:
            EvaluationError: if a call failed after all retries.
        """
        with naming_user(case.user_id), independent() as step:
            with step(), self.ledger.standalone_usage() as roles:
                ranked = self.program(case=case.blinded(), ask_all=True)
            with step(), dspy.context(trace=[]):
                own = self.profiles(case)
                others = self.other_users.value.get(case.user_id, ()) if len(own) > 1 else ()
                other_profiles = [profile for other in others for profile in self.profiles(other)]
        return dspy.Prediction(
            ranking=ranked.ranking,
            mar=ranked.mar,
            shown=ranked.shown,
            ranks=self._ranks(case, ranked),
            lists=self._lists(case, ranked),
            signals=ranked.signals,
            own=own,
            others=other_profiles,
            expected=min(self.interactions, len(case.history)),
            spent=total_usage(usage for role, usage in roles.items() if role in USER_ROLES),
            prompts=prompts_of(self.program),
        )

    def _ranks(self, case: Case, ranked: dspy.Prediction) -> tuple[int, ...]:
        if case.target is None:
            return ()
        return ranks_by_weight(case, ranked.mar, ranked.ranking.scores["prior"], self.program.fusion.head)

    def _lists(self, case: Case, ranked: dspy.Prediction) -> ListScores | None:
        if case.target is None:
            return None
        return ListScores.of(case, ranked.mar, ranked.ranking.scores["prior"], self.program.fusion.head)

    def profiles(self, case: Case) -> list[Profile]:
        """Profiles of a user's last purchases, one of each; empty for a program without MOPE."""
        if not self.interactions or not isinstance(self.program.shopper, MOPE):
            return []
        purchases = self.program.purchases(case)
        return self.program.shopper.per_interaction(purchases, case.metadata, last=self.interactions)


def next_users(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """For each user the next `NEXT_USERS` cases of the list (cyclic), whose profiles are needed anyway."""
    size = len(cases)
    return {
        case.user_id: [cases[(index + step) % size] for step in range(1, min(NEXT_USERS, size - 1) + 1)]
        for index, case in enumerate(cases)
    }


def score_cases(
    program: ScoredProgram,
    cases: Sequence[Case],
    objective: Objective,
    workers: int = 1,
    on_score: Callable[[UserScore], None] | None = None,
) -> list[UserScore]:
    """Scores of the cases, in their order; users are scored in threads.

    Raises:
        EvaluationError: if the infrastructure failed for a user.
        BudgetExceededError: before a call that might exceed the budget.
    """

    def score_case(case: Case) -> UserScore:
        return objective.score_prediction(case, program(case=case))

    scores: list[UserScore] = []
    for score in map_in_threads(score_case, cases, workers, program.ledger.stop):
        scores.append(score)
        if on_score is not None:
            on_score(score)
    return scores
