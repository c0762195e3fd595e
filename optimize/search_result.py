"""Result of a search: its trials, the ones that could be read, and what the final round said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from optimize.finals import Finals
from optimize.prompts import Prompts
from optimize.search import Attempt


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        attempts: All trials.
        ranked: Those whose answers could be read, with their prompts; the winner first.
        importances: Share of each parameter in the variation of the score; may be empty.
        finals: The final round; None without one.
        stopped: The reason if the budget stopped the search, or None.
    """

    attempts: Sequence[Attempt]
    ranked: Sequence[tuple[Attempt, Prompts]]
    importances: Mapping[str, float] = field(default_factory=dict)
    finals: Finals | None = None
    stopped: str | None = None

    @property
    def best(self) -> Attempt:
        """The winner."""
        return self.ranked[0][0]


def mean_scores(result: SearchResult, first: Attempt) -> dict[Literal["before", "after"], float]:
    """Scores on the users of the search: of the uncompiled program, and of the winner; of the final round if any."""
    if result.finals is not None:
        before, after = result.finals.of(first.number), result.finals.of(result.best.number)
        if before is not None and after is not None:
            return {"before": float(np.mean(before.by_draw)), "after": after.score}
    return {"before": first.score, "after": result.best.score}
