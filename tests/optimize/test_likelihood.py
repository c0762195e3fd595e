"""Log-likelihood of targets: chances that sum to one, the scores that a program fuses, and the scale of choices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.fusion_fit import TRIED_WEIGHTS
from optimize.gate_fit import fit_on_lists
from optimize.likelihood import Likelihood, ListScores, log_likelihoods, mean_deviations
from programs.fusion import Fusion
from programs.gate import Deviations, GateSignals
from signatures.rows import Case

NUMBER = st.floats(-5, 5, allow_nan=False)
WEIGHT = st.sampled_from([0.0, 0.3, 1.0])


@given(scores=st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=9), weight=WEIGHT, scale=st.floats(0, 10))
def test_the_chances_of_a_list_sum_to_one(scores: list[tuple[float, float]], weight: float, scale: float) -> None:
    mar, prior = zip(*scores, strict=True)
    longer = ListScores(mar=(1.0,) * 12, prior=(2.0,) * 12, target=11)
    lists = [ListScores(mar=mar, prior=prior, target=target) for target in range(len(mar))]
    found = Likelihood([*lists, longer]).at(weight, scale)
    assert np.exp(found[:-1]).sum() == pytest.approx(1)
    assert found[-1] == pytest.approx(-np.log(12))


@given(
    mar=st.lists(st.none() | NUMBER, min_size=6, max_size=6),
    prior=st.permutations([-2.0, -1.0, 0.0, 1.5, 2.0, 4.0]),
    weight=WEIGHT,
    head=st.none() | st.integers(1, 6),
    target=st.integers(0, 5),
    common=st.none() | st.just(Deviations(mar=0.5, prior=2.5)),
)
def test_the_scores_are_those_that_a_program_fuses(
    mar: list[float | None],
    prior: list[float],
    weight: float,
    head: int | None,
    target: int,
    common: Deviations | None,
) -> None:
    case = Case(user_id="u", history=(), candidates=tuple("abcdef"), target="abcdef"[target])
    found = ListScores.of(case, mar, prior, head)
    own = np.array([np.nan if score is None else score for score in mar], dtype=float)
    fused = Fusion(weight, head, deviations=common).fuse(own, np.array(prior), tie_seed=0)
    inside = np.sort(np.argsort(-np.array(prior))[:head])
    if target not in inside or np.isnan(own[inside]).all():
        assert found is None
        return
    assert found is not None
    found = found if common is None else found.over(common)
    assert found.rank(weight) == (fused >= fused[target] - 1e-12).sum() or len(set(np.round(fused, 9))) < len(fused)
    chances = np.exp(fused[inside] - fused[inside].max())
    expected = np.log(chances[inside.tolist().index(target)] / chances.sum())
    assert Likelihood([found]).at(weight, 1.0)[0] == pytest.approx(expected, abs=1e-6)


def test_the_scale_of_choices_is_found() -> None:
    rng = np.random.default_rng(3)
    lists = []
    for _ in range(4000):
        prior = rng.normal(size=10)
        chances = np.exp(0.7 * prior)
        place = int(rng.choice(10, p=chances / chances.sum()))
        lists.append(ListScores(mar=(0.0,) * 10, prior=tuple(prior), target=place))
    every = np.ones(len(lists), dtype=bool)
    assert Likelihood(lists).scale(0.0, every) == pytest.approx(0.7, abs=0.06)
    assert Likelihood(lists).likeliest((0.0, 0.5), every)[0] == 0.0, "of equals the smallest"


def test_lists_whose_parts_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="different lists"):
        ListScores(mar=(1.0, 2.0), prior=(1.0,), target=0)
    with pytest.raises(ValueError, match="different lists"):
        ListScores(mar=(1.0,), prior=(1.0,), target=1)


def test_lists_that_no_weight_changes_are_the_same_at_every_weight() -> None:
    rng = np.random.default_rng(4)
    lists = [ListScores(mar=tuple(rng.normal(size=5)), prior=tuple(rng.normal(size=5)), target=0) for _ in range(30)]
    found = log_likelihoods([*lists, None], (0.0, 0.5, 1.0))
    assert found.shape == (31, 3)
    assert found[-1].tolist() == [0.0, 0.0, 0.0]
    every = np.ones(30, dtype=bool)
    assert found[:-1, 1].mean() == pytest.approx(Likelihood(lists).at(0.5, Likelihood(lists).scale(0.5, every)).mean())
    assert (log_likelihoods([None], (0.0, 1.0)) == 0).all()


def test_common_deviations_are_the_mean_of_the_lists() -> None:
    case = Case(user_id="u", history=(), candidates=tuple("ab"), target="a")
    lists = [ListScores.of(case, mar, prior, None) for mar, prior in (([0, 2], [0, 4]), ([0, 6], [4, 4]))]
    assert mean_deviations([*lists, None]) == Deviations(mar=2, prior=1)
    assert mean_deviations([ListScores.of(case, [1, 1], [0, 4], None)]) is None, "MAR's scores are all alike"
    assert mean_deviations([ListScores.of(case, [0, 1e-12], [0, 4], None)]) is None, "a gate could not hold them"
    old = ListScores(mar=(-1.0, 1.0), prior=(1.0, -1.0), target=0)
    assert mean_deviations([*lists, old]) is None
    with pytest.raises(ValueError, match="not known"):
        old.over(Deviations(mar=1, prior=1))


def test_where_no_weight_helps_the_smallest_is_taken() -> None:
    rng = np.random.default_rng(5)
    lists = []
    for _ in range(40):
        mar, prior = rng.normal(size=(2, 6))
        lists.append(ListScores(mar=tuple(mar), prior=tuple(prior), target=int(np.argmin(mar + prior))))
    every = np.ones(40, dtype=bool)
    assert Likelihood(lists).likeliest(TRIED_WEIGHTS, every) == (0.0, 0.0)
    assert np.ptp(log_likelihoods(lists, TRIED_WEIGHTS)) < 1e-9
    signals = [GateSignals(history=1, cold=0, margin=rng.random()) for _ in lists]
    assert fit_on_lists(lists, signals, [str(number) for number in range(40)]).gate.weights == (0.0,)
