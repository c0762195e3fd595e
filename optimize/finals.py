"""Final round: the best programs of a search are scored again, on more users and with other draws of labels.

The first of many trials is first by luck, too. New users and draws do not know who was lucky, and the scores of one
program under several draws show how large luck is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from optimize.fusion_fit import FittedWeight, all_at_weight, fit_weight
from optimize.gate_fit import FittedGate, fit_on_scores
from optimize.objective import ObjectiveWeights, UserScore
from optimize.search import Attempt, by_merit, merit
from programs.gate import Gate


class Finalist(BaseModel):
    """One program of the final round.

    Attributes:
        trial: Its number in the search.
        searched: Its score in the search.
        by_draw: Its mean score with each draw of labels and order, over all users of the search.
        score: What the winner is chosen by: the mean of these, or with a fitted weight the cross-validated mean.
        prompt_tokens: Tokens in the prompts of MOPE and MAR per user.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    searched: float
    by_draw: tuple[float, ...]
    score: float
    prompt_tokens: float


class Finals(BaseModel):
    """Result of the final round.

    Attributes:
        users, new_users: Number of users, and of those among them that no trial had scored.
        finalists: The programs, the best first.
        fitted: The winner's fitted fusion weight, if it was fitted.
        gate: The gate that was fitted on the winner's scores, see `with_gate`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int
    new_users: int
    finalists: tuple[Finalist, ...] = Field(min_length=1)
    fitted: FittedWeight | None = None
    gate: FittedGate | None = Field(default=None, exclude_if=lambda gate: gate is None)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the score of one and the same program over draws; None with a single draw.

        That of the uncompiled program; 0 for programs whose prompts have no drawn order.
        """
        first = min(self.finalists, key=lambda one: one.trial)
        if len(first.by_draw) < 2:
            return None
        return float(np.std(first.by_draw, ddof=1)) if len(set(first.by_draw)) > 1 else 0.0

    def of(self, trial: int) -> Finalist | None:
        """The finalist of a trial, if it is one."""
        return next((one for one in self.finalists if one.trial == trial), None)


@dataclass(frozen=True)
class Decision:
    """The winner of the final round, with its fitted weight, and how it was chosen."""

    winner: Attempt
    finals: Finals


def finalists_of(attempts: Sequence[Attempt], n: int) -> list[Attempt]:
    """The `n` best complete trials, and the uncompiled program, which the winner must beat."""
    complete = [a for a in attempts if a.can_win]
    best = sorted(complete, key=by_merit, reverse=True)[: max(n, 1)]
    return best + [a for a in complete if a.number == 0 and a not in best]


def final_round(
    finalists: Sequence[Attempt],
    score: Callable[[Attempt, int], Sequence[UserScore]],
    draws: int,
    weights: ObjectiveWeights,
    fit: bool,
) -> Decision:
    """Score the finalists and choose the winner.

    Args:
        score: Scores of a trial's program for all users of the search, with the draw of this number.
        draws: Number of draws.
        weights: The objective.
        fit: Whether each one's fusion weight is fitted first, and a gate for the winner.
    """
    best: tuple[tuple[float, bool, float, int], Attempt, FittedWeight | None, list[UserScore]] | None = None
    entries, users, new_users = [], 0, 0
    for attempt in finalists:
        by_draw = [list(score(attempt, draw)) for draw in range(draws)]
        together = [one for scores in by_draw for one in scores]
        means = tuple(float(np.mean([one.score for one in scores])) for scores in by_draw)
        fitted = fit_weight(together, weights, attempt.configuration.weight) if fit else None
        value = float(np.mean(means))
        if fitted is not None and fitted.weight != attempt.configuration.weight:
            value = fitted.fitted
        users = len(by_draw[0])
        new_users = users - len(attempt.scores)
        entry = Finalist(
            trial=attempt.number,
            searched=attempt.score,
            by_draw=means,
            score=value,
            prompt_tokens=float(np.mean([one.tokens_in for one in together])),
        )
        entries.append(entry)
        own = merit(attempt.number, value, entry.prompt_tokens)
        if best is None or own > best[0]:
            chosen = attempt.configuration
            if fitted is not None:
                chosen = chosen.model_copy(update={"weight": fitted.weight})
            best = own, Attempt(attempt.number, attempt.state, chosen, tuple(by_draw[0])), fitted, together
    if best is None:
        raise ValueError("a final round needs a finalist")
    entries.sort(key=lambda one: merit(one.trial, one.score, one.prompt_tokens), reverse=True)
    _, winner, fitted, together = best
    winner, gate = with_gate(winner, together, weights) if fit else (winner, None)
    finals = Finals(users=users, new_users=new_users, finalists=tuple(entries), fitted=fitted, gate=gate)
    return Decision(winner, finals)


def unopposed(winner: Attempt) -> Finals:
    """The final round of a search whose own users chose the winner."""
    only = Finalist(
        trial=winner.number,
        searched=winner.score,
        by_draw=(winner.score,),
        score=winner.score,
        prompt_tokens=winner.prompt_tokens,
    )
    return Finals(users=len(winner.scores), new_users=0, finalists=(only,))


def with_gate(
    winner: Attempt, scores: Sequence[UserScore], weights: ObjectiveWeights
) -> tuple[Attempt, FittedGate | None]:
    """The winner with a gate that is fitted on its scores, and the fit.

    It gets the gate if weights by ranges of a signal are clearly better than one weight, if the same deviations for all
    lists are clearly better than their own, or if with its own weight it is worse than the prior alone, which the gate
    then leaves all users to.
    """
    fitted = fit_on_scores(scores)
    if fitted is None:
        return winner, None
    own = all_at_weight(scores, weights, winner.configuration.weight) or scores  # of a weight that is not in the grid
    prior = all_at_weight(scores, weights, 0.0) or own
    below = sum(score.score for score in own) < sum(score.score for score in prior)
    better = fitted.gate.signal is not None or fitted.gate.deviations is not None
    if better or (below and not any(fitted.gate.weights)):
        winner = replace(winner, configuration=winner.configuration.model_copy(update={"gate": fitted.gate}))
    return winner, fitted


def finals_lines(finals: Finals, gate: Gate | None) -> list[str]:
    """The final round in words: the spread of one and the same program, and the fitted weight.

    Args:
        gate: The winner's.
    """
    lines = []
    if finals.spread is not None:
        same = min(finals.finalists, key=lambda one: one.trial)
        scores = ", ".join(f"{score:.3f}" for score in same.by_draw)
        drawn = " (its prompts have no drawn order)" if finals.spread == 0 else ""
        lines.append(
            f"one and the same program (trial {same.trial}) scores {scores}: spread {finals.spread:.3f}{drawn}"
        )
    if (fitted := finals.fitted) is not None:
        lines.append(
            f"fusion weight {fitted.weight:g}: cross-validated {fitted.fitted:.4f} on {fitted.users} users, "
            f"{fitted.own:.4f} with the weight as it was"
        )
    if finals.gate is not None:
        lines += [f"gate: {line}" for line in finals.gate.lines]
        if gate is None:
            lines.append("the winner has no gate: none is clearly above one weight")
    return lines
