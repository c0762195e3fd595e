"""The fit of a gate: finds who the model helps, and keeps to the prior where it helps nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluate.runs.journal import Journal, RunManifest
from optimize.fusion_fit import TRIED_WEIGHTS
from optimize.gate_fit import fit_gate, fit_on_lists, fit_on_run, fit_on_scores
from optimize.likelihood import ListScores
from optimize.objective import UserScore
from programs.gate import Deviations, GateSignals
from programs.runtime.errors import InputError
from tests.support.cases import cases_file

WEIGHTS = np.array(TRIED_WEIGHTS)


def people(n: int, slope_short: float, slope_long: float, noise: float = 0.0) -> tuple[np.ndarray, list[GateSignals]]:
    """Half of the users have short histories; quality changes with the weight by a slope that depends on it."""
    rng = np.random.default_rng(1)
    signals = [
        GateSignals(
            history=(1 if i % 2 else 9) + int(rng.integers(2)), cold=0, margin=rng.random(), entropy=rng.random()
        )
        for i in range(n)
    ]
    slopes = np.array([slope_short if one.history < 5 else slope_long for one in signals])
    curves = 0.5 + slopes[:, None] * WEIGHTS + noise * rng.normal(size=(n, 1)) * WEIGHTS
    return curves, signals


def names(n: int) -> list[str]:
    return [f"u{i}" for i in range(n)]


def test_a_model_that_helps_users_with_short_histories_is_asked_about_them_only() -> None:
    values, signals = people(60, 0.3, -0.3, noise=0.05)
    fitted = fit_gate(values, signals, names(60))
    assert fitted.gate.signal == "history"
    assert fitted.gate.weights[0] > 0.8
    assert fitted.gate.weights[1] == 0
    assert fitted.gain.mean > 0.1
    assert fitted.over_one_weight.low > 0
    assert sum(fitted.in_range) == fitted.users == 60


def test_a_model_that_helps_all_alike_gets_one_weight() -> None:
    values, signals = people(60, 0.3, 0.3, noise=0.02)
    fitted = fit_gate(values, signals, names(60))
    assert (fitted.gate.signal, fitted.gate.weights) == (None, (1.0,))


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_says_nothing_gets_no_weight(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, signals = people(60, 0, 0)
    values = 0.5 - 0.05 * WEIGHTS + 0.2 * rng.normal(size=(60, 1)) * WEIGHTS
    fitted = fit_gate(values, signals, names(60))
    assert fitted.gate.weights == (0.0,)
    assert fitted.gain.mean <= 0.02


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(("nats", "asks"), [(1.0, False), (5.0, True), (20.0, True)])
def test_one_weight_needs_a_bayes_factor_above_one(nats: float, asks: bool, noise: float) -> None:
    """The likelihood of all dev users decides, however different single users are: e^5 is more than 20 weights."""
    draws = np.random.default_rng(2).normal(size=(60, 1))
    values = nats / 60 - nats / 60 * ((WEIGHTS - 0.2) / 0.2) ** 2 + noise * (draws - draws.mean()) * WEIGHTS
    _, signals = people(60, 0, 0)
    assert fit_gate(values, signals, names(60)).gate.weights == ((0.2,) if asks else (0.0,))


def test_the_margins_of_dev_users_are_kept_for_shares() -> None:
    values, signals = people(60, 0.3, 0.3)
    gate = fit_gate(values, signals, names(60)).gate
    asked = [gate.asking(0.25).asks(one) for one in signals]
    assert 14 <= sum(asked) <= 16


@pytest.mark.parametrize("seed", [6, 11, 56, 57, 68, 108])
def test_ranges_are_used_only_where_choosing_them_gains_on_other_users(seed: int) -> None:
    """A small effect in much noise: chosen on all users, ranges look good; chosen on others, one weight is better."""
    rng = np.random.default_rng(seed)
    _, signals = people(60, 0, 0)
    slopes = np.array([0.06 if one.history < 5 else 0.0 for one in signals])[:, None] + 0.2 * rng.normal(size=(60, 1))
    fitted = fit_gate(0.5 + slopes * WEIGHTS - 0.05 * WEIGHTS**2, signals, names(60))
    assert fitted.gate.signal is None or fitted.over_one_weight.mean > 0


@pytest.mark.parametrize("seed", range(12))
def test_the_same_rows_three_times_say_no_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, signals = people(24, 0, 0)
    values = 0.5 + 0.2 * rng.normal(size=(24, 1)) * WEIGHTS
    once = fit_gate(values, signals, names(24))
    thrice = fit_gate(np.tile(values, (3, 1)), signals * 3, names(24) * 3)
    assert thrice.gate.margins == pytest.approx(once.gate.margins)
    assert thrice.gate.model_copy(update={"margins": once.gate.margins}) == once.gate
    assert thrice.gain.mean == pytest.approx(once.gain.mean)


def test_rows_of_one_user_count_as_one_user() -> None:
    values, signals = people(20, 0.3, 0.3)
    fitted = fit_gate(np.vstack([values, values]), [*signals, *signals], [*names(20), *names(20)])
    assert fitted.users == fitted.gain.n == 20
    with pytest.raises(InputError, match="at least 20"):
        fit_gate(np.vstack([values] * 2)[:38], [*signals, *signals][:38], [*names(19), *names(19)])


def test_scores_of_older_compiles_have_no_gate() -> None:
    old = [UserScore(user_id=f"u{n}", score=0, rank=1, mar_rank=1, ndcg=0, mar=0, hit=0) for n in range(30)]
    assert fit_on_scores(old) is None


def drawn_lists(n: int, sure: float, seed: int = 5) -> list[ListScores]:
    """Targets drawn by scores of which every second list has `sure` times as large ones; the prior says nothing."""
    rng = np.random.default_rng(seed)
    lists = []
    for number in range(n):
        size = sure if number % 2 else 1.0
        mar, prior = rng.normal(size=(2, 10))
        mar, prior = (mar - mar.mean()) / mar.std(), (prior - prior.mean()) / prior.std()
        chances = np.exp(size * mar)
        target = int(rng.choice(10, p=chances / chances.sum()))
        lists.append(
            ListScores(
                mar=tuple(mar),
                prior=tuple(prior),
                target=target,
                deviations=Deviations(mar=size, prior=float(1 + number % 3)),
            )
        )
    return lists


def test_a_model_that_knows_how_sure_it_is_has_the_same_deviations_for_all_lists() -> None:
    lists = drawn_lists(300, 6.0)
    _, signals = people(300, 0, 0)
    gate = fit_on_lists(lists, signals, names(300)).gate
    assert gate.deviations is not None
    assert gate.deviations.mar == pytest.approx(3.5)
    assert gate.deviations.prior == pytest.approx(2)
    older = [one.model_copy(update={"deviations": None}) for one in lists]
    assert fit_on_lists(older, signals, names(300)).gate.deviations is None


def test_a_model_whose_deviations_say_nothing_keeps_those_of_each_list() -> None:
    alike = [
        one.model_copy(update={"deviations": Deviations(mar=1.0 + n % 7, prior=1.0)})
        for n, one in enumerate(drawn_lists(300, 1.0))
    ]
    _, signals = people(300, 0, 0)
    assert fit_on_lists(alike, signals, names(300)).gate.deviations is None


def test_a_run_on_other_data_with_the_same_lists_is_refused(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    manifest = RunManifest(cases_sha256=cases.sha256, dataset_sha256="f" * 64, ranker="listwise")
    Journal.open(tmp_path / "run", manifest).close()
    with pytest.raises(InputError, match="ranked with other data"):
        fit_on_run(cases, tmp_path / "run")
