"""Victims: seeded, never the target, never from the top; and the trials made of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evaluate.attacks.trials import LEAST_CANDIDATES, TOP, clean_trials, edited_trials, victim_of
from programs.ranker import ranking_from_scores
from signatures.rows import Case, Ranking, Status
from tests.support.attacks import HIDDEN, OPEN
from tests.support.runs import ITEMS, case


@given(
    order=st.integers(LEAST_CANDIDATES, 12).flatmap(lambda n: st.permutations(ITEMS[:n])),
    target=st.integers(0, LEAST_CANDIDATES - 1),
    seed=st.integers(0, 3),
    user=st.sampled_from(["ann", "ben"]),
)
def test_a_victim_is_below_the_top_and_not_the_target(order: list[str], target: int, seed: int, user: str) -> None:
    one = Case(user_id=user, history=(), candidates=tuple(sorted(order)), target=ITEMS[target])
    victim = victim_of(one, order, seed)
    assert victim != one.target
    assert order.index(victim) >= TOP
    assert victim == victim_of(one, order, seed)
    below = order[TOP:]
    assert victim == victim_of(one, [*reversed(order[:TOP]), *reversed(below)], seed), (
        "the order within does not matter"
    )


def test_the_seed_decides_the_victims() -> None:
    users = [case(f"u{number}") for number in range(20)]
    first, again, other = ([victim_of(one, ITEMS, seed) for one in users] for seed in (0, 0, 1))
    assert first == again != other


def test_rankers_that_agree_about_the_top_share_victims() -> None:
    users = [case(f"u{number}") for number in range(20)]
    swapped = (*ITEMS[:TOP], *reversed(ITEMS[TOP:]))
    assert [victim_of(one, ITEMS, 0) for one in users] == [victim_of(one, swapped, 0) for one in users]


def test_trials_of_users_whose_clean_list_is_there() -> None:
    users = [case(user) for user in ("ann", "ben", "cas")]
    rows = {
        trial.id: ranking_from_scores(trial.case, {"own": [-float(n) for n in range(len(ITEMS))]}, by="own")
        for trial in clean_trials("mine", users[:1])
    }
    rows["mine/clean/ben"] = Ranking(user_id="ben", order=(), status=Status.FAILED)
    trials = list(edited_trials("mine", users, [OPEN, HIDDEN], rows, seed=0))
    assert [trial.id for trial in trials] == [
        "mine/attack/open/ann", "mine/control/open/ann", "mine/attack/hidden/ann", "mine/control/hidden/ann",
    ]  # fmt: skip
    assert len({trial.victim for trial in trials}) == 1
