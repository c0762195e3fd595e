"""A program together with what its objective needs to see, and the loop that scores it shopper by shopper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import dspy
from dspy.utils.exceptions import DSPyError

from optimize.objective import Objective, UserScore
from optimize.prompts import prompts_of
from programs.lm.ledger import Ledger
from programs.mope import MOPE
from programs.program import MLLM3Rec
from programs.runtime.interrupts import map_in_threads
from programs.runtime.nocopy import NoCopy
from signatures.rows import Case, total_usage
from signatures.types import Profile

STRANGERS = 2
INTERACTIONS = 3
SHOPPER_ROLES = ("mope", "mar")


class EvaluationError(BaseException):
    """The infrastructure failed under a program that was being scored.

    Not an `Exception`: DSPy's optimizers turn those into a score of zero, and a server that was down says nothing
    about a prompt.
    """


class ScoredProgram(dspy.Module):
    """Ranks a case and profiles it once per interaction, as the objective's coherence asks.

    The profiles per interaction leave no trace: demonstrations are made of the answers that led to the ranking.

    Args:
        program: What is being compiled.
        neighbours: For each shopper by user id, the strangers whose profiles must differ (see `ring`).
        ledger: Where the program's calls are recorded; says what they cost.
        interactions: The k of eq. 5: profiles of the last so many interactions; 0 asks for none.
    """

    def __init__(
        self,
        program: MLLM3Rec,
        neighbours: Mapping[str, Sequence[Case]],
        ledger: Ledger,
        interactions: int = INTERACTIONS,
    ) -> None:
        super().__init__()
        self.program = program
        self.ledger = ledger
        self.neighbours = NoCopy(neighbours)
        self.interactions = interactions

    def forward(self, case: Case) -> dspy.Prediction:
        """Rank and profile.

        Returns:
            Prediction with `ranking`, the profiles `own` and `strangers`, how many own ones a program with MOPE has
            (`expected`), `spent`: the `Usage` of MOPE and MAR for
            the ranking alone, stored answers counted as if paid, and the `prompts` it was made with.

        Raises:
            EvaluationError: if a call failed for good.
        """
        try:
            with self.ledger.standalone_usage() as roles:
                ranking = self.program(case=case.blinded()).ranking
            with dspy.context(trace=[]):
                own = self._profiles(case)
                nearby = self.neighbours.value.get(case.user_id, ())
                strangers = [profile for other in nearby for profile in self._profiles(other)] if len(own) > 1 else []
        except (DSPyError, OSError) as error:
            raise EvaluationError(f"user {case.user_id!r}: {type(error).__name__}: {error}") from error
        spent = total_usage(usage for role, usage in roles.items() if role in SHOPPER_ROLES)
        return dspy.Prediction(
            ranking=ranking,
            own=own,
            strangers=strangers,
            expected=min(self.interactions, len(case.history)),
            spent=spent,
            prompts=prompts_of(self.program),
        )

    def _profiles(self, case: Case) -> list[Profile]:
        if not self.interactions or not isinstance(self.program.shopper, MOPE):
            return []
        items = self.program.catalogue.value
        history = [(items[i.item_id], i) for i in case.history if i.item_id in items]
        return self.program.shopper.per_interaction(history, case.metadata, last=self.interactions)


def ring(cases: Sequence[Case], strangers: int = STRANGERS) -> dict[str, list[Case]]:
    """For each shopper the next ones in the list, which closes to a ring: their profiles are needed anyway."""
    n = len(cases)
    return {
        case.user_id: [cases[(place + step) % n] for step in range(1, min(strangers, n - 1) + 1)]
        for place, case in enumerate(cases)
    }


def scored(
    judged: ScoredProgram,
    cases: Sequence[Case],
    objective: Objective,
    workers: int = 1,
    on_score: Callable[[UserScore], None] | None = None,
) -> list[UserScore]:
    """Scores of the cases, in their order; threads across shoppers.

    Raises:
        EvaluationError: if the infrastructure failed for a shopper.
        BudgetExceededError: before a call that might pass the budget.
    """

    def one(case: Case) -> UserScore:
        return objective.judge(case, judged(case=case))

    scores: list[UserScore] = []
    for score in map_in_threads(one, cases, workers, judged.ledger.stop):
        scores.append(score)
        if on_score is not None:
            on_score(score)
    return scores
