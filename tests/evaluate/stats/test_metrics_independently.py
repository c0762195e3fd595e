"""Our metrics against an independent implementation: the library ir-measures."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.stats.metrics import per_user, rank_of, reciprocal_ranks, summarize

ir_measures = pytest.importorskip("ir_measures", reason="pip install ir-measures")

NAMES = {"HR@5": "Success@5", "NDCG@5": "nDCG@5", "HR@10": "Success@10", "NDCG@10": "nDCG@10"}
RECIPROCAL = {"MRR@5": "RR@5", "MRR@10": "RR@10", "MAP@5": "AP@5", "MAP@10": "AP@10"}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_per_user_and_means_agree_with_ir_measures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = [f"i{number:02}" for number in range(30)]
    relevant, run, ranks = {}, {}, {}
    for number in range(200):
        user = f"u{number:03}"
        # A permutation has no ties, whose order the two would break differently.
        scores = dict(zip(items, (float(score) for score in rng.permutation(30)), strict=True))
        target = items[rng.integers(30)]
        relevant[user], run[user] = {target: 1}, scores
        ranks[user] = rank_of(sorted(items, key=lambda item: -scores[item]), target)
    assert set(ranks.values()) >= set(range(1, 31))
    measures = {name: ir_measures.parse_measure(theirs) for name, theirs in (NAMES | RECIPROCAL).items()}

    ours = per_user(ranks).join(reciprocal_ranks(ranks, (5, 10)))
    calculated = {(m.query_id, m.measure): m.value for m in ir_measures.iter_calc(measures.values(), relevant, run)}
    for name, measure in measures.items():
        theirs = [calculated[user, measure] for user in ours.index]
        np.testing.assert_allclose(ours[name], theirs, rtol=0, atol=1e-9, err_msg=name)

    means = ir_measures.calc_aggregate(measures.values(), relevant, run)
    for name, estimate in summarize(ours, negatives=29).items():
        assert estimate.mean == pytest.approx(means[measures[name.removesuffix("/30")]], abs=1e-9)
