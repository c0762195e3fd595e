"""Result of a search: its trials, the winner first, and how it was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from optimize.finals import Finals
from optimize.prompts import Prompts
from optimize.search import Attempt

Means = dict[Literal["before", "after"], float]
"""Mean score of the uncompiled program and of the winner."""


@dataclass(frozen=True)
class SearchedScores:
    """Scores on the users of the search.

    Attributes:
        means: Empty if no user was scored under both programs.
        users: Number of users that were scored.
    """

    means: Means
    users: int


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        attempts: All trials; of a search over prototypes those that were compared in the end.
        ranked: Those whose answers could be read, with their prompts; the winner first.
        importances: Share of each parameter in the variation of the score; may be empty.
        finals: The final round; None without one.
        stopped: The reason if the budget stopped the search, or None.
        tried: Number of trials; None: as many as there are attempts.
    """

    attempts: Sequence[Attempt]
    ranked: Sequence[tuple[Attempt, Prompts]]
    importances: Mapping[str, float] = field(default_factory=dict)
    finals: Finals | None = None
    stopped: str | None = None
    tried: int | None = None

    @property
    def best(self) -> Attempt:
        """The winner."""
        return self.ranked[0][0]

    def won_by(self, winner: Attempt, finals: Finals) -> SearchResult:
        """The result after a final round: the program that won it first, with what was fitted there."""
        prompts = {attempt.number: own for attempt, own in self.ranked}
        others = [one for one in self.ranked if one[0].number != winner.number]
        return replace(self, ranked=[(winner, prompts[winner.number]), *others], finals=finals)

    def searched(self, uncompiled: Attempt) -> SearchedScores:
        """Scores of the uncompiled program and of the winner on the users of the search; of the final round if any."""
        if self.finals is not None:
            before, after = self.finals.of(uncompiled.number), self.finals.of(self.best.number)
            if before is not None and after is not None:
                means: Means = {"before": float(np.mean(before.by_draw)), "after": after.score}
                return SearchedScores(means, self.finals.users)
        own = {score.user_id: score.score for score in self.best.scores}
        known = [score for score in uncompiled.scores if score.user_id in own]
        if not known:
            return SearchedScores({}, 0)
        first, last = ([score.score for score in known], [own[score.user_id] for score in known])
        return SearchedScores({"before": float(np.mean(first)), "after": float(np.mean(last))}, len(known))
