"""Item codes: what they say about items, and that they know nothing of what is to be predicted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from evaluate.baselines import TrainingData
from evaluate.baselines.networks.item_codes import (
    ItemCodes,
    cluster_codes,
    collaborative_codes,
    semantic_codes,
    sequential_codes,
)
from evaluate.protocol.splits import split_dataset
from tests.support.datasets import make_dataset, protocol_for

Histories = Sequence[Sequence[str]]
BOTH = pytest.mark.parametrize("codes_of", [collaborative_codes, sequential_codes])

RNG = np.random.default_rng(0)
USERS = {
    f"{kind} {user}": [f"{kind}{n}" for n in RNG.permutation(30)[:6]] for kind in ("ball", "doll") for user in range(60)
}


def training(targets: Mapping[str, str]) -> TrainingData:
    """Training data of users who at last buy their targets, as a protocol cuts it."""
    dataset = make_dataset({user: [(item, 5.0) for item in (*own, targets[user])] for user, own in USERS.items()})
    return TrainingData(split_dataset(dataset, protocol_for(dataset, target="last")).training, dataset.items)


def written(codes: ItemCodes) -> bytes:
    return json.dumps([*codes.of.items()]).encode()


@BOTH
def test_codes_do_not_change_with_the_targets(codes_of: Callable[[Histories], ItemCodes]) -> None:
    """In P5's published data items were numbered along whole sequences, so that the target was often the next one."""
    targets = {user: f"{user.split()[0]}{n % 30}" for n, user in enumerate(USERS)}
    mixed = dict(zip(targets, RNG.permutation(list(targets.values())).tolist(), strict=True))
    assert targets != mixed
    codes, others = (codes_of([*training(own).histories.values()]) for own in (targets, mixed))
    assert written(codes) == written(others) and codes.sha256 == others.sha256


def test_numbers_along_whole_sequences_would_be_found() -> None:
    """The check above fails for codes that see targets."""
    targets = {user: f"new{n}" for n, user in enumerate(USERS)}
    mixed = dict(zip(targets, reversed(targets.values()), strict=True))
    whole = [[[*own, given[user]] for user, own in USERS.items()] for given in (targets, mixed)]
    assert written(sequential_codes(whole[0])) != written(sequential_codes(whole[1]))


@BOTH
def test_an_item_that_is_only_a_target_has_no_code(codes_of: Callable[[Histories], ItemCodes]) -> None:
    data = training(dict.fromkeys(USERS, "only a target"))
    assert "only a target" in data.items
    assert set(codes_of([*data.histories.values()]).of) == {item for own in USERS.values() for item in own}


@BOTH
def test_other_items_get_codes_that_no_history_decides(
    codes_of: Callable[[Histories, Sequence[str]], ItemCodes],
) -> None:
    """OpenP5 gives a user's unseen items consecutive numbers; here they come in the order of their ids."""
    histories = [*USERS.values()]
    assert written(codes_of(histories, ["y", "x", "z"])) == written(codes_of(histories, ["z", "y", "x"]))
    codes = codes_of(histories, ["y", "x", "z"])
    assert {"x", "y", "z"} < set(codes.of)
    if codes_of is sequential_codes:
        known = len(codes.of) - 3
        assert [codes.of[item] for item in "xyz"] == [divmod(1001 + known + n, 100) for n in range(3)]


@BOTH
def test_every_item_has_a_code_of_its_own(codes_of: Callable[[Histories], ItemCodes]) -> None:
    codes = codes_of([*USERS.values()])
    assert len(set(codes.of.values())) == len(codes.of) == 60
    assert {token for code in codes.of.values() for token in code} <= set(range(codes.tokens))


def test_items_of_the_same_users_share_a_group() -> None:
    codes = collaborative_codes([*USERS.values()], dimensions=4, size=8).of
    groups = {kind: Counter(codes[f"{kind}{n}"][0] for n in range(30)) for kind in ("ball", "doll")}
    assert not groups["ball"].keys() & groups["doll"].keys()
    clusters = {code[1]: code[0] for code in codes.values()}
    assert all(clusters[code[1]] == code[0] for code in codes.values()), "a cluster is in one group"


def test_the_last_token_counts_down_the_purchases() -> None:
    vectors = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    codes = cluster_codes(["a", "b", "c", "d", "e", "f"], vectors, [1, 3, 2, 5, 5, 9], size=3).of
    first, second = codes["b"][2], codes["a"][2]
    assert [codes[item][2] - first for item in "bcafde"] == [0, 1, 2, 0, 1, 2] and second == first + 2


@BOTH
@pytest.mark.parametrize("histories", [[["a"]], [["a", "a"]], [["a"], ["a"]], [["a", "b"]]])
def test_the_smallest_data_have_codes(codes_of: Callable[[Histories], ItemCodes], histories: Histories) -> None:
    assert set(codes_of(histories).of) == {item for own in histories for item in own}


def test_numbers_are_written_two_digits_to_a_token() -> None:
    many = [f"i{n}" for n in range(9100)]
    codes = sequential_codes([many]).of
    assert codes["i0"] == (10, 1) and codes["i8998"] == (99, 99)
    assert codes["i8999"] == (10, 0, 100) and codes["i9000"] == (10, 0, 101)


def test_similar_texts_share_first_tokens_and_equal_ones_all_but_the_last() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.eye(3), 12, axis=0)
    vectors = kinds + 0.01 * rng.standard_normal(kinds.shape)
    vectors[1] = vectors[0]
    items = [f"{kind}{n}" for kind in "abc" for n in range(10, 22)]
    codes = semantic_codes(items, vectors, size=3)
    assert len({codes.of[item][0] for item in items}) == 3
    assert all(len({codes.of[item][0] for item in items if item[0] == kind}) == 1 for kind in "abc")
    assert codes.of["a10"][:3] == codes.of["a11"][:3] and codes.of["a10"][3] + 1 == codes.of["a11"][3]
    assert len(set(codes.of.values())) == len(items)
    assert {token for code in codes.of.values() for token in code} <= set(range(codes.tokens))
    assert semantic_codes(["a"], vectors[:1], size=3).of == {"a": (0, 1, 2, 3)}
