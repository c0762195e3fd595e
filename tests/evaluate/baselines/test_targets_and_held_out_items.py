"""What no fit may learn from: targets of evaluated users, and what is held out to stop its training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluate.baselines import Baseline, TrainingData
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.network_baseline import NetworkBaseline
from evaluate.data.dataset import Dataset
from evaluate.protocol.cases import draw_cases
from evaluate.protocol.leakage import find_leaks, refuse_leaks
from evaluate.ranker_factory import RankerFactory
from programs.prior.encoders import HashingEncoder
from programs.prior.scorers import Training
from programs.runtime.errors import InputError
from signatures.types import Interaction
from tests.evaluate.baselines.test_baselines import ALL, NEEDS, SMALL, material
from tests.evaluate.protocol.test_planted_leaks import shop
from tests.support.cases import case, training_of

STOPPED_EARLY = [name for name, settings in SMALL.items() if isinstance(settings, NetworkBaseline)]
"""Rankers whose training stops by the last items of some users."""


def with_other_targets(data: Dataset) -> Dataset:
    """The same shop, but every user's last item is another one, which they do not have."""
    frame = data.interactions.copy()
    for _, own in frame.groupby("user_id"):
        frame.loc[own.index[-1], "item_id"] = next(item for item in data.items if item not in set(own.item_id))
    return replace(data, interactions=frame)


def training_data(data: Dataset) -> TrainingData:
    """What fits are given for cases of all users."""
    cases = draw_cases(data, part="all", negatives=9)
    factory = RankerFactory.create(data, cases.training, protocol=cases.protocol)
    factory.encoder_of = HashingEncoder
    return factory.training_data


def test_a_fit_is_given_the_same_whatever_the_targets_are() -> None:
    """Some codes choose the best epoch on test users. Ours is made from its training data alone."""
    one, other = training_data(shop()), training_data(with_other_targets(shop()))
    assert one.sha256 == other.sha256
    np.testing.assert_array_equal(one.content.matrix, other.content.matrix)


def test_training_data_that_hold_targets_are_others_and_are_refused() -> None:
    """So the comparison above can fail, and a fit on them cannot be made."""
    data, other = shop(), with_other_targets(shop())
    assert TrainingData(data.sequences, data.items).sha256 != TrainingData(other.sequences, other.items).sha256
    cases = draw_cases(data, part="all", negatives=9)
    with pytest.raises(InputError, match="leak"):
        refuse_leaks(find_leaks(cases.cases, data, data.sequences, "warm"))


def with_other_ends(training: Training, users: set[str], items: list[str]) -> dict[str, list[Interaction]]:
    """The same interactions, but the last item of some users is another one that they do not have."""
    found = {user: list(events) for user, events in training.items()}
    for user in sorted(users):
        own = {event.item_id for event in found[user]}
        other = next(item for item in reversed(items) if item not in own)
        found[user][-1] = found[user][-1].model_copy(update={"item_id": other})
    return found


@pytest.mark.parametrize("name", STOPPED_EARLY)
def test_held_out_items_are_in_no_step_of_a_training(name: str) -> None:
    """After one epoch the weights are the same whatever is held out, and others if a learned item is another one."""
    for package in ("torch", NEEDS[name]):
        pytest.importorskip(package)
    data, items = material(), [*ALL]
    first = {"first": training_of({"first": items})["first"]}  # has all items, so that their numbers stay the same
    data = replace(data, interactions={**first, **data.interactions})
    update: dict[str, Any] = {"validation": 12, "epochs": 1}
    settings: Baseline = SMALL[name].model_copy(update=update)
    users = list(data.histories)
    rows = hold_out_last([*data.histories.values()], 12, np.random.default_rng(0))[1]
    held_out = {users[row] for row in rows} - {"first"}
    learned = [user for user in users[1:] if user not in held_out]
    asked = case(data.histories[learned[0]], ALL, learned[0])

    def scores(changed: set[str]) -> list[float]:
        training = with_other_ends(data.interactions, changed, items)
        return settings.fit(replace(data, interactions=training), 0).rank(asked).scores[name]

    assert len(held_out) >= 11
    assert scores(held_out) == scores(set()) != scores({learned[1]})
