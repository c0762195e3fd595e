"""EASE against its definition, and NeuMF's negatives and new users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluate.baselines import TrainingData
from evaluate.baselines.networks.interactions import Pairs
from evaluate.baselines.systems import ease
from evaluate.baselines.systems.ease import EASE
from evaluate.baselines.systems.neumf import NeuMF
from programs.runtime.errors import InputError
from tests.support.cases import case, training_of

HISTORIES = {f"u{n}": [f"i{item}" for item in np.random.default_rng(n).permutation(12)[:5]] for n in range(20)}
DATA = TrainingData(training_of(HISTORIES), {})


class TestEASE:
    def test_is_the_closed_form(self) -> None:
        pytest.importorskip("threadpoolctl")
        ranker = EASE(penalty=3.0).fit(DATA, 0)
        x = np.zeros((20, 12))
        for user, history in enumerate(HISTORIES.values()):
            x[user, [ranker.rows[item] for item in history]] = 1
        inverse = np.linalg.inv(x.T @ x + 3.0 * np.eye(12))
        expected = np.eye(12) - inverse / np.diag(inverse)
        np.testing.assert_allclose(ranker.weights, expected, atol=1e-5)
        asked = case(["i1", "i2", "i1", "nowhere"], ["i3", "i4", "new"])
        rows = [ranker.rows[item] for item in ("i1", "i2")]
        own = expected[rows][:, [ranker.rows["i3"], ranker.rows["i4"]]].sum(axis=0)
        np.testing.assert_allclose(ranker.rank(asked).scores["ease"], [*own, own.min() - 1], atol=1e-5)

    def test_refuses_a_catalogue_that_memory_does_not_hold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("threadpoolctl")
        monkeypatch.setattr(ease, "MOST_ITEMS", 11)
        with pytest.raises(InputError, match=r"12 items have users: it takes at most 11 .* of memory\); use 'ials'"):
            EASE().fit(DATA, 0)


class TestNeuMF:
    def test_new_users_are_folded_in_by_the_users_of_their_items(self) -> None:
        pytest.importorskip("torch")
        ranker = NeuMF(epochs=1, validation=0).fit(DATA, 0)
        vectors = ranker.network.user.weight.detach().numpy()
        of_item = {
            item: vectors[[ranker.users[user] for user, own in HISTORIES.items() if item in own]].mean(axis=0)
            for item in ("i1", "i2")
        }
        folded = ranker.user_vector(case(["i1", "nowhere", "i2"], [], "stranger"))
        np.testing.assert_allclose(folded, (of_item["i1"] + of_item["i2"]) / 2, rtol=1e-5)
        nothing = ranker.user_vector(case(["nowhere"], [], "stranger"))
        np.testing.assert_allclose(nothing, vectors.mean(axis=0), rtol=1e-5)
        np.testing.assert_array_equal(ranker.user_vector(case(["i1"], [], "u3")), vectors[ranker.users["u3"]])

    def test_a_repeated_purchase_counts_where_it_was_made_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that what is held out is the last item; histories without repeats stay as they are."""
        pytest.importorskip("torch")
        from evaluate.baselines.networks import neumf_network

        learned: list[list[int]] = []
        train = neumf_network.train_neumf

        def seen(histories: list[np.ndarray], *given: Any) -> neumf_network.NeuMFNetwork:
            learned.extend(history.tolist() for history in histories)
            return train(histories, *given)

        monkeypatch.setattr(neumf_network, "train_neumf", seen)
        histories = {"u": ["a", "b", "c", "a"], "nobody": [], "v": ["c", "d", "a"]}
        ranker = NeuMF(epochs=1, validation=0).fit(TrainingData(training_of(histories), {}), 0)
        assert (ranker.users, ranker.rows) == ({"u": 0, "v": 1}, {"a": 0, "b": 1, "c": 2, "d": 3})
        assert learned == [[1, 2, 0], [2, 3, 0]]

    def test_a_held_out_item_stands_before_sampled_ones(self) -> None:
        pytest.importorskip("torch")
        from evaluate.baselines.networks.neumf_network import among_others

        histories = [np.arange(user % 4, user % 4 + 4) for user in range(20)]
        candidates = among_others(histories, [3, 5], 12, np.random.default_rng(0))
        assert candidates.shape == (2, 101)
        assert candidates[:, 0].tolist() == [histories[3][-1], histories[5][-1]]

    def test_negatives_are_items_that_the_user_has_not(self) -> None:
        pairs = Pairs([np.array([0, 1, 2]), np.array([3])], items=40)
        drawn = pairs.negatives(np.repeat([0, 1], 4000), np.random.default_rng(0))
        own = np.concatenate([np.isin(drawn[:4000], [0, 1, 2]), drawn[4000:] == 3])
        assert own.mean() < 0.01, "one that is drawn is drawn once more"
        assert set(drawn[4000:]) >= set(range(40)) - {3}
