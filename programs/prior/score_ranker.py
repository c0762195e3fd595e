"""`ScoreRanker`: any scorer as a `Ranker`."""

from __future__ import annotations

from collections.abc import Sequence

from programs.prior.scorers import CompositeScorer, Scorer, Scores
from programs.ranker import ranking_from_scores
from signatures.rows import Case, Ranking


class ScoreRanker:
    """A scorer as a `Ranker`. Its score vector has the ranker's name; the parts of a composite are recorded, too."""

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.name = name
        self.scorer = scorer
        self._composite = scorer if isinstance(scorer, CompositeScorer) else None

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        return self.rank_many([case])[0]

    def rank_many(self, cases: Sequence[Case]) -> list[Ranking]:
        """Rank several cases at once; see `BatchRanker`."""
        if self._composite is None:
            return [self._ranking(case, {}, self.scorer.scores(case.item_ids, case.candidates)) for case in cases]
        parts = self._composite.parts_of(cases)
        return [self._ranking(case, own, self._composite.combine(own)) for case, own in zip(cases, parts, strict=True)]

    def _ranking(self, case: Case, parts: dict[str, Scores], scores: Scores) -> Ranking:
        components = {**parts, self.name: scores}
        return ranking_from_scores(case, {name: vector.tolist() for name, vector in components.items()}, by=self.name)
