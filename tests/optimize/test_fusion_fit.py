"""The fusion weight, fitted on recorded ranks: no calls, and no gain where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from optimize.fusion_fit import TRIED_WEIGHTS, at_weight, fit_weight, ranks_by_weight
from optimize.likelihood import ListScores
from optimize.objective import ObjectiveWeights, UserScore
from programs.program import Fusion
from programs.ranker import order_by_score
from signatures.rows import Case, seed_of

ONLY_NDCG = ObjectiveWeights(ndcg=1, mar=0, hit=0, coherence=0)


def user(number: int, mar: list[float], prior: list[float], own: float = 0.3) -> UserScore:
    """A user whose target is the first candidate."""
    case = Case(user_id=f"u{number}", history=(), candidates=tuple("abcdefgh"[: len(mar)]), target="a")
    ranks, lists = ranks_by_weight(case, mar, prior, None), ListScores.of(case, mar, prior, None)
    score = UserScore(user_id=case.user_id, score=0, rank=1, mar_rank=1, ndcg=0, mar=1, hit=0, ranks=ranks, lists=lists)
    return at_weight(score, ONLY_NDCG, own) or score


def drawn(seed: int, users: int, knows: float) -> list[UserScore]:
    """Users whose target is likely by the prior, and as likely again by MAR times `knows`."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(users):
        mar, prior = rng.normal(size=(2, 8))
        chances = np.exp(prior + knows * mar)
        place = int(rng.choice(8, p=chances / chances.sum()))
        order = [place, *(other for other in range(8) if other != place)]
        found.append(user(number, mar[order].tolist(), prior[order].tolist()))
    return found


def test_ranks_are_those_of_a_program_with_that_weight() -> None:
    case = Case(user_id="u", history=(), candidates=tuple("abcde"), target="b")
    mar, prior = [0.1, 0.9, None, 0.4, 0.2], [3.0, 0.5, 2.0, 1.0, 0.0]
    found, ties = ranks_by_weight(case, mar, prior, head=4), seed_of("ties", "u")
    for weight, rank in zip(TRIED_WEIGHTS, found, strict=True):
        own = np.array([np.nan if score is None else score for score in mar])
        fused = Fusion(weight, 4).fuse(own, np.array(prior), ties)
        order = order_by_score(case.candidates, fused.tolist(), tie_seed=ties)
        assert rank == order.index("b") + 1
    assert found[0] > found[-1] == 1


def test_a_model_that_knows_everything_gets_all_of_the_weight() -> None:
    rng = np.random.default_rng(0)
    users = [user(n, [9.0, *rng.normal(size=5)], rng.normal(size=6).tolist()) for n in range(10)]
    fitted = fit_weight(users, ONLY_NDCG, 0.3)
    assert fitted is not None
    assert fitted.weight > 0.5
    assert fitted.own < fitted.fitted == 1.0


@pytest.mark.parametrize(("knows", "least", "most"), [(0.0, 0.0, 0.1), (0.25, 0.1, 0.3), (1.0, 0.4, 0.6)])
def test_the_weight_is_that_of_the_choices(knows: float, least: float, most: float) -> None:
    fitted = fit_weight(drawn(1, 400, knows), ONLY_NDCG, 0.85)
    assert fitted is not None
    assert least <= fitted.weight <= most


def test_a_weight_that_is_as_good_as_fitted_ones_stays() -> None:
    fitted = fit_weight(drawn(2, 60, 0.4), ONLY_NDCG, 0.3)
    assert fitted is not None
    assert fitted.weight == 0.3


def test_lists_that_no_weight_changes_say_nothing() -> None:
    users = drawn(1, 400, 1.0)
    same = [one.model_copy(update={"user_id": f"same{n}", "lists": None}) for n, one in enumerate(users[:50])]
    fitted, both = (fit_weight(some, ONLY_NDCG, 0.85) for some in (users, [*users, *same]))
    assert fitted is not None and both is not None
    assert (both.weight, both.users) == (fitted.weight, 450)


def test_nothing_is_fitted_where_users_that_could_tell_are_in_one_fold() -> None:
    users = drawn(0, 25, 1.0)
    one_fold = [one if n % 5 == 0 else one.model_copy(update={"lists": None}) for n, one in enumerate(users)]
    assert fit_weight(one_fold, ONLY_NDCG, 0.3) is None


def test_nothing_is_fitted_on_few_users_or_on_scores_of_older_compiles() -> None:
    users = drawn(0, 9, 1.0)
    assert fit_weight(users[:4], ONLY_NDCG, 0.3) is None
    assert fit_weight([one.model_copy(update={"ranks": ()}) for one in users], ONLY_NDCG, 0.3) is None
    assert fit_weight([one.model_copy(update={"lists": None}) for one in users], ONLY_NDCG, 0.3) is None
