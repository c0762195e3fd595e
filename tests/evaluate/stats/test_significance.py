"""The paired test and Holm's correction against hand-counted fractions, and properties of any p-value."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.stats.intervals import paired_difference
from evaluate.stats.metrics import per_user
from evaluate.stats.significance import PairedComparison, compare_to, holm, paired_test
from programs.runtime.errors import InputError

# Gains of ranks 1, 2, 3 and beyond the cutoff: as in real frames, differences tie and add up to ties.
GAINS = (1.0, 1 / math.log2(3), 0.5, 0.0)
pairs_of_users = st.dictionaries(
    st.text(min_size=1, max_size=3), st.tuples(st.sampled_from(GAINS), st.sampled_from(GAINS)), min_size=1, max_size=30
)
p_values = st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=12)


def p_of(differences: list[float], resamples: int = 9999) -> float:
    a = {f"u{i}": each for i, each in enumerate(differences)}
    return paired_test(a, dict.fromkeys(a, 0.0), seed=0, resamples=resamples)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 0.5, 0.25], Fraction(2, 8)),  # only +++ and --- are as far from 0 as what was seen
        ([1.0, 0.5, -0.25], Fraction(4, 8)),  # ±1 ±0.5 alike, the last sign free
        ([1.0, -0.5, -0.5], Fraction(1)),  # sums to 0
        ([0.1, 0.2, -0.3], Fraction(1)),  # likewise, but not in floats
        ([1.0] * 5 + [-1.0], Fraction(2 * (1 + 6), 64)),  # McNemar
        ([0.0] * 50 + [1.0, 0.5, 0.25], Fraction(2, 8)),  # who does not differ decides nothing
        ([0.7], Fraction(1)),
        ([0.0], Fraction(1)),
    ],
)
def test_hand_counted_patterns(differences: list[float], p: Fraction) -> None:
    assert p_of(differences) == pytest.approx(float(p), abs=1e-15)


@given(st.lists(st.sampled_from([-1.0, -0.63, -0.5, -0.13, 0.13, 0.37, 0.5, 1.0]), min_size=1, max_size=9))
@settings(max_examples=30)
def test_exact_p_is_the_share_of_all_patterns(differences: list[float]) -> None:
    hundredths = [round(100 * each) for each in differences]
    sums = [np.dot(signs, hundredths) for signs in product((-1, 1), repeat=len(hundredths))]
    share = np.mean(np.abs(sums) >= abs(sum(hundredths)))
    assert p_of(differences) == pytest.approx(share, abs=1e-12)


def test_drawn_patterns_agree_with_counted_ones() -> None:
    rng = np.random.default_rng(2)
    for differences in (rng.normal(0.4, 1, 12), rng.choice([-0.5, 0.37, 1.0], 12)):
        exact, drawn = p_of(list(differences)), p_of(list(differences), resamples=4000)
        assert drawn != exact
        assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))


def test_p_is_never_zero() -> None:
    assert p_of([1.0] * 20_000) > 0
    assert p_of(list(np.linspace(0.5, 1, 200)), resamples=99) == 1 / 100
    assert p_of([1.0] * 30) == pytest.approx(2 / 2**30)


@given(pairs_of_users, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_p_knows_neither_side_nor_order(pairs: dict[str, tuple[float, float]], random: object) -> None:
    a, b = ({user: pair[side] for user, pair in pairs.items()} for side in (0, 1))
    shuffled = list(a.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    p = paired_test(a, b, seed=1, resamples=200)
    assert 0 < p <= 1
    assert p == paired_test(b, a, seed=1, resamples=200) == paired_test(dict(shuffled), b, seed=1, resamples=200)
    scaled = [{user: 4 * value for user, value in side.items()} for side in (a, b)]
    assert p == paired_test(*scaled, seed=1, resamples=200)


def test_a_larger_difference_has_a_smaller_p() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 60)
    found = [p_of(list(noise - noise.mean() + shift)) for shift in (0.0, 0.1, 0.2, 0.3)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0
    assert found[-1] < 0.05


def test_pairs_that_cannot_be_tested() -> None:
    with pytest.raises(InputError, match="no user is in both"):
        paired_test({"a": 1.0}, {"b": 1.0}, seed=0)
    with pytest.raises(InputError, match="'a' is repeated"):
        paired_test(pd.Series([1.0, 0.0], index=["a", "a"]), {"a": 1.0}, seed=0)
    with pytest.raises(InputError, match="1 of 1 values are not finite"):
        paired_test({"a": math.nan}, {"a": 1.0}, seed=0)
    with pytest.raises(InputError, match="0 resamples"):
        paired_test({"a": 1.0}, {"a": 0.0}, seed=0, resamples=0)


# --- Holm


def test_holm_by_hand() -> None:
    # Sorted: 1/100·4, 2/100·3, 3/100·2 held up by the one before, 1/2·1.
    raw = {"d": 0.5, "a": 0.01, "c": 0.03, "b": 0.02}
    assert holm(raw) == pytest.approx({"d": 0.5, "a": 0.04, "c": 0.06, "b": 0.06})
    assert list(holm(raw)) == list(raw)
    assert holm({"only": 0.04}) == {"only": 0.04}
    assert holm({"a": 0.5, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@given(p_values, st.randoms(use_true_random=False))
def test_holm_keeps_order_and_never_helps(raw: dict[str, float], random: object) -> None:
    adjusted = holm(raw)
    for name, p in raw.items():
        assert p <= adjusted[name] <= min(1.0, len(raw) * p)
    by_raw = [adjusted[name] for name in sorted(raw, key=lambda name: raw[name])]
    assert by_raw == sorted(by_raw)
    shuffled = list(raw.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert holm(dict(shuffled)) == adjusted


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value(p: float) -> None:
    with pytest.raises(InputError, match="of 'x'"):
        holm({"fine": 0.5, "x": p})


# --- the table


def frame(seed: int, shift: int = 0, users: int = 60) -> pd.DataFrame:
    places = np.random.default_rng(seed).integers(1, 31, users)
    return per_user({f"u{i}": max(1, int(place) - shift) for i, place in enumerate(places)})


def test_the_table_is_corrected_as_one_family() -> None:
    reference, others = frame(0), {"same": frame(1), "better": frame(2, shift=8)}
    table = compare_to(reference, others, seed=3)
    assert list(table) == ["same", "better"]
    raw = {f"{name} {metric}": cell.p for name, row in table.items() for metric, cell in row.items()}
    assert len(raw) == 8
    assert holm(raw) == {f"{name} {metric}": cell.p_holm for name, row in table.items() for metric, cell in row.items()}
    cell = table["better"]["NDCG@10"]
    assert cell.p == paired_test(others["better"]["NDCG@10"], reference["NDCG@10"], seed=3)
    difference = paired_difference(others["better"]["NDCG@10"], reference["NDCG@10"], seed=3)
    assert cell.model_dump(exclude={"p", "p_holm"}) == difference.model_dump()
    assert PairedComparison.model_validate_json(cell.model_dump_json()) == cell


def test_a_method_against_itself_is_no_difference() -> None:
    cells = compare_to(frame(0), {"itself": frame(0)}, seed=0)["itself"].values()
    assert {(cell.mean, cell.p, cell.p_holm) for cell in cells} == {(0.0, 1.0, 1.0)}
    assert compare_to(frame(0), {}, seed=0) == {}


def test_a_table_that_cannot_be_made_names_the_method() -> None:
    with pytest.raises(InputError, match="'mar' has the metrics HR@5, NDCG@5, the reference HR@5, NDCG@5, HR@10"):
        compare_to(frame(0), {"mar": per_user({"u1": 1}, ks=(5,))}, seed=0)
    with pytest.raises(InputError, match="'mar' against the reference: no user is in both"):
        compare_to(frame(0), {"mar": per_user({"stranger": 1})}, seed=0)
