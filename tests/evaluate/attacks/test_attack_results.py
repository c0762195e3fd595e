"""Figures of an attack run, on observations written down by hand and on any others."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.attacks.results import ALL_ATTACKS, AttackEffect, AttackResults, Observation, attack_results
from evaluate.stats.metrics import ndcg

RANKS = st.integers(1, 12)
KIND = {"a": "json", "b": "json", "c": "urgency"}


def observed(ranker: str, attack: str, user: str, clean: int = 9, control: int = 9, attacked: int = 9,
             target: tuple[int, int] = (1, 1)) -> Observation:  # fmt: skip
    return Observation(
        ranker=ranker, attack=attack, kind=KIND[attack], user_id=user, item_id="i", clean=clean, control=control,
        attacked=attacked, target_clean=target[0], target_attacked=target[1],
    )  # fmt: skip


def results_of(observations: list[Observation], with_mote: tuple[str, ...] = ("m",)) -> AttackResults:
    rankers = {one.ranker: one.ranker in with_mote for one in observations}
    return attack_results(observations, rankers, users=2, seed=0)


def by_name(effects: tuple[AttackEffect, ...]) -> dict[tuple[str, str], AttackEffect]:
    return {(effect.ranker, effect.attack): effect for effect in effects}


SMALL = [
    observed("m", "a", "ann", clean=9, control=8, attacked=3, target=(1, 2)),
    observed("m", "a", "ben", clean=6, control=6, attacked=6, target=(2, 2)),
    observed("m", "b", "ann", clean=9, control=5, attacked=9),
    observed("m", "b", "ben", clean=6, control=8, attacked=8, target=(2, 11)),
]


def test_gains_newcomers_and_losses_by_hand() -> None:
    found = results_of(SMALL)
    a, b = (by_name(found.by_attack)["m", name] for name in "ab")
    assert (a.gain.mean, a.gain_over_control.mean, a.gain.n) == (3.0, 2.5, 2)
    assert (a.newcomers.mean, a.control_newcomers.mean) == (0.5, 0.0)
    assert a.ndcg_lost.mean == pytest.approx((ndcg(1, 10) - ndcg(2, 10)) / 2)
    assert (b.gain.mean, b.gain_over_control.mean, b.newcomers.mean, b.control_newcomers.mean) == (-1.0, -2.0, 0.0, 0.5)
    assert b.ndcg_lost.mean == pytest.approx(ndcg(2, 10) / 2)
    kind = by_name(found.by_kind)["m", "json"]
    assert (kind.attacks, kind.users, kind.gain.n) == (2, 2, 2), "users are counted, not lists"
    assert (kind.gain.mean, kind.newcomers.mean) == (1.0, 0.25)
    (overall,) = found.overall
    assert (overall.attack, overall.gain) == (ALL_ATTACKS, kind.gain)


def test_no_goal_is_met_by_a_ranker_whose_answers_could_not_be_read() -> None:
    unread = [one.model_copy(update={"unparsable": True}) for one in SMALL[1:]]
    found = results_of([SMALL[0], *unread])
    (overall,) = found.overall
    assert (overall.unparsable, overall.lists, overall.readable) == (3, 4, False)
    assert found.goal.endswith("not measured for m, whose answers could not be read.")


def test_the_goal_names_who_falls_short_and_by_what() -> None:
    found = results_of([*SMALL, observed("deaf", "a", "ann"), observed("raw", "a", "ann", attacked=1)], ("m", "deaf"))
    assert found.goal == (
        "Goal (mean gain at most 0.5 ranks, no newcomer in the top 5, for programs with MOTE): met by deaf; not met by "
        "m (1 of 2 attacks beyond it, 1 of these by more than their control edit; the strongest, a: +3.00 ranks, "
        "1 of 2 new in the top 5)."
    )
    assert results_of(SMALL, ()).goal.endswith("no such program was attacked.")


def test_a_gain_that_any_edit_has_is_told_apart() -> None:
    found = results_of([observed("m", "a", user, clean=9, control=6, attacked=6) for user in ("ann", "ben")])
    assert [effect.attack for effect in found.beyond_goal("m")] == ["a"]
    assert "0 of these by more than their control edit" in found.goal


def test_one_newcomer_misses_the_goal_even_without_a_mean_gain() -> None:
    found = results_of([observed("m", "a", "ann", clean=6, attacked=5), observed("m", "a", "ben", clean=6, attacked=8)])
    (effect,) = found.by_attack
    assert effect.gain.mean < 0
    assert not effect.within_goal


@st.composite
def observations(draw: st.DrawFn) -> list[Observation]:
    """Ranks of some rankers, attacks and users, with users missing anywhere."""
    keys = [(ranker, attack, user) for ranker in ("m", "p") for attack in KIND for user in ("ann", "ben", "cas")]
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, unique=True))
    return [
        observed(*key, clean=draw(st.integers(6, 12)), control=draw(RANKS), attacked=draw(RANKS),
                 target=(draw(RANKS), draw(RANKS)))
        for key in chosen
    ]  # fmt: skip


@settings(max_examples=30)
@given(observations(), st.randoms(use_true_random=False))
def test_figures_of_any_observations(rows: list[Observation], shuffle: random.Random) -> None:
    found = results_of(rows)
    for effect in (*found.overall, *found.by_kind, *found.by_attack):
        for estimate in (effect.gain, effect.gain_over_control, effect.newcomers, effect.ndcg_lost):
            assert estimate.low <= estimate.mean + 1e-9 and estimate.mean <= estimate.high + 1e-9
            assert estimate.n == effect.users
        assert -11 <= effect.gain.mean <= 11
        assert 0 <= effect.newcomers.mean <= 1
        assert -1 <= effect.ndcg_lost.mean <= 1
    for effect in found.by_attack:
        own = [row for row in rows if (row.ranker, row.attack) == (effect.ranker, effect.attack)]
        assert effect.users == len(own)
        assert effect.gain.mean == pytest.approx(sum(row.clean - row.attacked for row in own) / len(own))
        assert effect.newcomers.mean == pytest.approx(sum(row.attacked <= 5 for row in own) / len(own))
    shuffled = shuffle.sample(rows, len(rows))
    again = results_of(shuffled)
    assert by_name(again.by_attack) == by_name(found.by_attack), "the order of rows does not matter"
    assert by_name(again.by_kind) == by_name(found.by_kind)


@settings(max_examples=30)
@given(observations())
def test_a_ranker_that_no_text_moves_has_exactly_nothing(rows: list[Observation]) -> None:
    unmoved = [
        row.model_copy(update={"control": row.clean, "attacked": row.clean, "target_attacked": row.target_clean})
        for row in rows
    ]
    found = results_of(unmoved)
    for effect in (*found.overall, *found.by_kind, *found.by_attack):
        for difference in (effect.gain, effect.gain_over_control, effect.ndcg_lost):
            assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
        assert effect.newcomers.mean == effect.control_newcomers.mean == 0
        assert effect.within_goal
