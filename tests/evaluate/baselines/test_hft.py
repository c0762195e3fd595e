"""HFT: its gradient, its pairs, and what texts and ratings do."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import approx_fprime

from evaluate.baselines import TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.systems import hft
from evaluate.baselines.systems.hft import HFT, _Objective, _Pairs
from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.splits import split_dataset
from programs.runtime.errors import InputError
from programs.runtime.events import Event, Progress
from signatures.types import Interaction, Item
from tests.support.cases import case, demo_cases, training_of
from tests.support.datasets import protocol_for

ITEMS = {
    f"{kind}{n}": Item(item_id=f"{kind}{n}", title=f"fine {kind} {kind}", categories=(("Toys", f"{kind} shelf"),))
    for kind in ("ball", "doll")
    for n in range(8)
}


def rated() -> TrainingData:
    """Users who like what one half of the users dislikes; `ball7` and `doll7` are nobody's."""
    rng, interactions = np.random.default_rng(0), {}
    for user in range(40):
        liked = ("ball", "doll")[user % 2]
        interactions[f"u{user}"] = tuple(
            Interaction(item_id=f"{kind}{n}", rating=5.0 if kind == liked else 1.0)
            for kind in ("ball", "doll")
            for n in rng.permutation(7)[:4]
        )
    return TrainingData(interactions, ITEMS)


def test_the_gradient_is_that_of_the_loss() -> None:
    """In cornac's HFT the text term uses factors of an earlier iteration, so its gradient is of no function."""
    rng = np.random.default_rng(0)
    pairs = _Pairs(rng.integers(5, size=20), rng.integers(6, size=20), rng.random(20))
    texts = sparse.csr_array(rng.integers(3, size=(6, 7)).astype(float))
    objective = _Objective(HFT(factors=3, text=0.7), pairs, (5, 6), texts, np.log(1 + rng.random(7)))
    at = rng.standard_normal(len(objective.start(rng)))
    np.testing.assert_allclose(objective(at)[1], approx_fprime(at, lambda x: objective(x)[0], 1e-6), atol=1e-3)


def test_the_likelihood_of_the_texts_is_that_of_a_mixture_and_counts_repetitions() -> None:
    """Cornac's takes each word of a text once."""
    rng = np.random.default_rng(1)
    counts = np.array([[2.0, 0, 1], [0, 3, 0]])
    none = _Pairs(np.zeros(1, dtype=int), np.zeros(1, dtype=int), np.zeros(1))
    losses = []
    for text in (0.0, 1.0):
        settings = HFT(factors=2, text=text)
        objective = _Objective(settings, none, (1, 2), sparse.csr_array(counts), np.log([2.0, 3.0, 1.0]))
        at = np.random.default_rng(2).standard_normal(len(objective.start(rng)))
        losses.append(objective(at)[0])
    parts = objective.parts(at)
    theta = np.exp(parts["kappa"][0] * parts["items"])
    phi = np.exp(parts["words"]) * np.array([2.0, 3.0, 1.0])
    likely = (theta / theta.sum(axis=1, keepdims=True)) @ (phi / phi.sum(axis=1, keepdims=True))
    assert losses[1] - losses[0] == pytest.approx(-np.sum(counts * np.log(likely)))


def test_zeros_are_drawn_once_and_never_a_users_own() -> None:
    data, settings = rated(), HFT(negatives=3)
    users = {user: row for row, user in enumerate(data.histories)}
    rows = {item: row for row, item in enumerate(ITEMS)}
    first, again, other = (
        settings._purchases(data, users, rows, len(rows), np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first.items.tolist() == again.items.tolist() != other.items.tolist()
    own = {(users[user], rows[item]) for user, history in data.histories.items() for item in history}
    for user, item, value in zip(first.users.tolist(), first.items.tolist(), first.values.tolist(), strict=True):
        assert ((user, item) in own) == bool(value)


@pytest.mark.parametrize("implicit", [True, False])
def test_held_out_pairs_are_in_no_step(implicit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one iteration the parameters are the same whatever is held out, and others if a learned pair is another."""
    purchases, ratings = HFT._purchases, hft._ratings
    settings = HFT(implicit=implicit, factors=2, least_items=2, iterations=1, validation=0.2)

    def parameters(changed: str) -> list[float]:
        def altered(pairs: _Pairs, rng: np.random.Generator) -> _Pairs:
            order = deepcopy(rng).permutation(len(pairs.values))
            held, learned = np.split(order, [int(0.2 * len(order))])
            values = pairs.values.copy()
            values[{"held out": held, "learned": learned[:1], "nothing": []}[changed]] += 3
            return replace(pairs, values=values)

        monkeypatch.setattr(HFT, "_purchases", lambda *given: altered(purchases(*given), given[-1]))
        monkeypatch.setattr(hft, "_ratings", lambda *given: altered(ratings(*given), np.random.default_rng(0)))
        factors = settings.fit(rated(), 0).factors
        return [*factors.user_vectors.ravel().tolist(), *factors.item_biases.tolist()]

    assert parameters("held out") == parameters("nothing") != parameters("learned")


def test_ratings_say_what_is_liked() -> None:
    settings = HFT(implicit=False, factors=2, least_items=2, penalty=0.1, validation=0)
    ranker = settings.fit(rated(), 0)
    for user, liked in (("u0", "ball"), ("u1", "doll")):
        order = ranker.rank(case([], [f"{kind}{n}" for kind in ("ball", "doll") for n in range(7)], user)).order
        assert all(liked in item for item in order[:7])
    with pytest.raises(InputError, match="'hft' is to learn ratings, and there are none"):
        settings.fit(TrainingData(training_of({"u": ("ball1", "ball2")}), ITEMS), 0)


def test_progress_tells_the_loss_and_the_fit_stops_early() -> None:
    events: list[Event] = []
    settings = HFT(factors=2, least_items=2, patience=3, iterations=500, validation=0.2)
    settings.fit(rated(), 0, Fitting(on_event=events.append))
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[0].done == 0 and progress[-1].done == progress[-1].total == 500
    assert 3 < len(progress) < 500, "stopped early"
    assert "loss" in progress[1].detail and "dev error" in progress[-1].detail


def test_a_catalogue_without_texts_is_a_plain_factor_model() -> None:
    histories = {f"u{n}": [f"i{item}" for item in np.random.default_rng(n).permutation(12)[:5]] for n in range(20)}
    scores = HFT(factors=2).fit(TrainingData(training_of(histories), {}), 0).rank(case(["i1"], ["i2", "new"])).scores
    assert scores["hft"][1] == scores["hft"][0] - 1


def test_the_demo_store_is_fitted_and_ranked() -> None:
    data = demo_dataset()
    split = split_dataset(data, protocol_for(data, part="test"))
    for implicit in (True, False):
        ranker = HFT(implicit=implicit, iterations=30).fit(TrainingData(split.training, data.items), 0)
        for one in demo_cases(20):
            assert sorted(ranker.rank(one).order) == sorted(one.candidates)
