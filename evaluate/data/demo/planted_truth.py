"""`planted-truth`: ranks the demo store by its planted motivations, to show what a perfect profile is worth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from evaluate.data.demo.store import demo_items, planted_motivations
from evaluate.data.demo.users import PRIMARY_SHARE
from programs.gate import GateSignals
from programs.prior.scorers import Scorer, scores_of
from programs.program import Fusion, prior_alone
from programs.ranker import ranking_from_scores
from signatures.rows import Case, Ranking, seed_of

PLANTED_TRUTH = "planted-truth"


class PlantedTruth:
    """The score of a candidate is the weight of the user's planted motivations that it serves.

    Args:
        prior, fusion: As of a program; the score takes the place of MAR's.
        owned: Items that somebody has, for the gate.
    """

    def __init__(self, prior: Scorer, fusion: Fusion, owned: Collection[str] | None = None) -> None:
        self.prior = prior
        self.fusion = fusion
        self.owned = owned
        self.users: Mapping[str, Sequence[str]] = planted_motivations()
        self.serves = {item.item.item_id: item.serves for item in demo_items()}

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        primary, secondary = self.users[case.user_id]
        served = [self.serves[item] for item in case.candidates]
        by_primary, by_secondary = (np.array([own in one for one in served]) for own in (primary, secondary))
        truth = PRIMARY_SHARE * by_primary + (1 - PRIMARY_SHARE) * by_secondary
        prior = scores_of(self.prior, case)
        signals = GateSignals.of(case, prior, self.owned, truth)
        if not self.fusion.asks(signals):
            return prior_alone(case, prior)
        fused = self.fusion.of_user(signals).fuse(truth, prior, seed_of("ties", case.user_id))
        scores = {"prior": prior.tolist(), "mar": truth.tolist(), "fused": fused.tolist()}
        return ranking_from_scores(case, scores, by="fused")
