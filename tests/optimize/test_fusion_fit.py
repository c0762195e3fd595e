"""The fusion weight, fitted on recorded ranks: no calls, and no gain where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from optimize.fusion_fit import TRIED_WEIGHTS, at_weight, fit_weight, ranks_by_weight
from optimize.objective import ObjectiveWeights, UserScore
from programs.program import Fusion
from programs.ranker import order_by_score
from signatures.rows import Case, seed_of

ONLY_NDCG = ObjectiveWeights(ndcg=1, mar=0, hit=0, coherence=0)


def user(number: int, ranks: list[int], own: float = 0.3) -> UserScore:
    rank = ranks[TRIED_WEIGHTS.index(own)]
    score = UserScore(user_id=f"u{number}", score=0, rank=rank, mar_rank=1, ndcg=0, mar=1, hit=0, ranks=tuple(ranks))
    return at_weight(score, ONLY_NDCG, own) or score


def test_ranks_are_those_of_a_program_with_that_weight() -> None:
    case = Case(user_id="u", history=(), candidates=tuple("abcde"), target="b")
    mar, prior = [0.1, 0.9, None, 0.4, 0.2], [3.0, 0.5, 2.0, 1.0, 0.0]
    found = ranks_by_weight(case, mar, prior, head=4)
    for weight, rank in zip(TRIED_WEIGHTS, found, strict=True):
        own = np.array([np.nan if score is None else score for score in mar])
        fused = Fusion(weight, 4).fuse(own, np.array(prior))
        order = order_by_score(case.candidates, fused.tolist(), tie_seed=seed_of("ties", "u"))
        assert rank == order.index("b") + 1
    assert found[0] > found[-1] == 1


def test_a_weight_that_is_better_for_all_is_found() -> None:
    ranks = [9] * 12 + [1] * 3 + [9] * 6
    fitted = fit_weight([user(n, ranks) for n in range(10)], ONLY_NDCG, 0.3)
    assert fitted is not None
    assert fitted.weight == 0.6
    assert (fitted.own, fitted.fitted) == (pytest.approx(1 / np.log2(10)), 1.0)


def test_a_weight_that_is_best_by_chance_does_not_replace_the_own_one() -> None:
    # Every user has another best weight: fitted on the others, it is worse than the one there is.
    users = []
    for number in range(10):
        ranks = [4] * len(TRIED_WEIGHTS)
        ranks[TRIED_WEIGHTS.index(0.3)] = 3
        ranks[2 * number + 1 if 2 * number + 1 != 6 else 8] = 1
        users.append(user(number, ranks))
    fitted = fit_weight(users, ONLY_NDCG, 0.3)
    assert fitted is not None
    assert fitted.weight == 0.3
    assert fitted.fitted <= fitted.own


def test_a_gain_of_one_user_in_five_is_no_reason_for_another_weight() -> None:
    same = [3] * len(TRIED_WEIGHTS)
    better = [3 if weight <= 0.3 else 1 for weight in TRIED_WEIGHTS]
    users = [user(number, better if number == 0 else same) for number in range(5)]
    fitted = fit_weight(users, ONLY_NDCG, 0.3)
    assert fitted is not None
    assert fitted.weight == 0.3
    two = [user(number, better if number % 2 == 0 else same) for number in range(10)]
    fitted = fit_weight(two, ONLY_NDCG, 0.3)
    assert fitted is not None
    assert fitted.weight > 0.3


def test_nothing_is_fitted_on_few_users_or_on_scores_of_older_compiles() -> None:
    assert fit_weight([user(n, [1] * 21) for n in range(4)], ONLY_NDCG, 0.3) is None
    old = [user(n, [1] * 21).model_copy(update={"ranks": ()}) for n in range(9)]
    assert fit_weight(old, ONLY_NDCG, 0.3) is None
