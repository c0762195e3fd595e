"""`learned+mar`: a weighted sum whose weights follow what helps."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.baselines.features_v1 import RecordedScores
from evaluate.baselines.stacked import StackedRanker, stack, standard_scores
from programs.runtime.errors import InputError
from signatures.rows import Case, Ranking

pytest.importorskip("sklearn")

ITEMS = tuple(f"i{n}" for n in range(10))


def scored_cases(n: int, helpful: float, seed: int) -> tuple[list[Case], dict[str, Ranking]]:
    """Cases whose target has a higher score in the component `mar`, and noise in `other`."""
    rng = np.random.default_rng(seed)
    cases, rows = [], {}
    for u in range(n):
        target = ITEMS[int(rng.integers(10))]
        mar = rng.normal(size=10) + helpful * np.array([item == target for item in ITEMS])
        scores = {"mar": mar.tolist(), "other": rng.normal(size=10).tolist()}
        cases.append(Case(user_id=f"u{u}", history=(), candidates=ITEMS, target=target))
        rows[f"u{u}"] = Ranking(user_id=f"u{u}", order=ITEMS, scores=scores)
    return cases, rows


def test_what_helps_gets_the_weight() -> None:
    cases, rows = scored_cases(200, 2.0, 0)
    ranker = stack([RecordedScores(rows, "mar"), RecordedScores(rows, "other")], cases, seed=0)
    weights = ranker.weight_by_feature
    assert weights["mar"] > 1 > 5 * abs(weights["other"])
    others, fresh = scored_cases(200, 2.0, 1)
    found = StackedRanker([RecordedScores(fresh, "mar"), RecordedScores(fresh, "other")], ranker.weights)
    first = np.mean([found.rank(case.blinded()).order[0] == case.target for case in others])
    assert first > 0.5


def test_what_is_not_known_counts_as_average() -> None:
    cases, rows = scored_cases(2, 1.0, 0)
    rows["u1"].scores["mar"][0] = float("nan")
    del rows["u0"]
    assert standard_scores([RecordedScores(rows, "mar")], cases[0]).tolist() == [[0.0]] * 10
    known = standard_scores([RecordedScores(rows, "mar")], cases[1])
    assert known[0] == 0
    assert known[1:].mean() == pytest.approx(0)


def test_without_targets_there_is_nothing_to_learn() -> None:
    cases, rows = scored_cases(2, 1.0, 0)
    with pytest.raises(InputError, match="dev cases with targets"):
        stack([RecordedScores(rows, "mar")], [case.blinded() for case in cases], seed=0)
