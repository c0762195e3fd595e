"""Each way in which targets can leak, planted into a small shop: found or warned about, and clean without the plant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluate.data.data_warnings import find_data_warnings, users_with_a_twin
from evaluate.data.dataset import Dataset
from evaluate.protocol.cases import Cases, draw_cases, load_cases, write_cases
from evaluate.protocol.leakage import find_changed, find_leaks, refuse_leaks
from evaluate.protocol.splits import Split, split_dataset
from programs.prior.scorers import ItemKNN, Training, histories_of
from programs.runtime.errors import InputError
from signatures.rows import Case

DAY = 86_400
USERS, ITEMS, LENGTH = 60, 120, 6


def shop(histories: dict[str, list[str]] | None = None, titles: dict[str, str] | None = None) -> Dataset:
    """A shop in which nobody buys like another; with `histories` added, and titles replaced."""
    rng = np.random.default_rng(0)
    bought = {f"user{n:02}": [f"item{i:03}" for i in rng.permutation(ITEMS)[:LENGTH]] for n in range(USERS)}
    bought |= histories or {}
    rows = [
        {"user_id": user, "item_id": item, "rating": 5.0, "timestamp": (100 + 3 * start + 10 * place) * DAY}
        for start, (user, items) in enumerate(bought.items())
        for place, item in enumerate(items)
    ]
    items = [
        {"item_id": item, "title": (titles or {}).get(item, f"Thing {item}")}
        for item in sorted({row["item_id"] for row in rows} | {f"item{i:03}" for i in range(ITEMS)})
    ]
    return Dataset.from_frames(pd.DataFrame(rows), pd.DataFrame(items), name="shop")


def drawn(data: Dataset) -> Cases:
    """Cases of all its users."""
    return draw_cases(data, part="all", negatives=9)


def split_of(cases: Cases) -> Split:
    """What is fitted on, and what is held out."""
    return split_dataset(cases.dataset, cases.protocol)


def fit_leaks(cases: Cases, training: Training) -> list[str]:
    """Problems that are found where this is fitted."""
    return [leak.problem for leak in find_leaks(cases.cases, cases.dataset, training, cases.protocol.setting)]


def kinds(data: Dataset) -> list[str]:
    """Kinds of warnings about data."""
    return [warning.kind for warning in find_data_warnings(data)]


def hit_rate(cases: Cases, training: Training) -> float:
    """HR@1 of item-kNN."""
    knn = ItemKNN.fit(histories_of(training))
    best = [case.candidates[int(np.argmax(knn.scores(case.item_ids, case.candidates)))] for case in cases]
    return float(np.mean([item == case.target for item, case in zip(best, cases, strict=True)]))


def changed(cases: Cases, user: int, **changes: object) -> Cases:
    """One case with other content, as if it had been drawn so."""
    case = cases[user].model_copy(update=changes)
    return replace(cases, cases=(*cases.cases[:user], case, *cases.cases[user + 1 :]))


@pytest.mark.parametrize("setting", ["warm", "item-cold", "user-cold"])
@pytest.mark.parametrize("sampling", ["uniform", "popularity", "matched"])
def test_a_shop_without_a_plant_is_clean(setting: str, sampling: str) -> None:
    cases = draw_cases(shop(), part="all", negatives=5, setting=setting, sampling=sampling)
    assert cases.leaks == []
    assert cases.training
    assert [warning.kind for warning in cases.warnings() if warning.kind != "the target is what nobody has"] == []


def test_targets_in_the_fit_under_ids_of_nobody_are_found() -> None:
    cases = drawn(shop())
    own = split_of(cases).training
    aliases = {f"alias {case.user_id}": cases.dataset.sequences[case.user_id] for case in cases}
    nobody = {"nobody": [cases.dataset.sequences[case.user_id][-1] for case in cases]}
    assert hit_rate(cases, own) < 0.4 < hit_rate(cases, {**own, **aliases})
    for planted in (aliases, nobody):
        found = fit_leaks(cases, {**own, **planted})
        assert found == ["is in the training data, but not a user of the data"] * len(planted)
    assert fit_leaks(cases, own) == []


def test_a_target_in_the_fit_of_its_user_or_of_another_user_is_found() -> None:
    cases = drawn(shop())
    own, first, second = split_of(cases).training, cases[0].user_id, cases[1].user_id
    target = cases.dataset.sequences[first][-1]
    assert target.item_id == cases[0].target
    late = fit_leaks(cases, {**own, first: cases.dataset.sequences[first]})
    assert late == [f"the training data has '{target.item_id}', bought at or after the target"]
    (other,) = fit_leaks(cases, {**own, second: (*own[second], target)})
    assert other.startswith(f"the training data has '{target.item_id}' of time")


def test_a_fit_on_other_dates_or_in_another_order_is_found() -> None:
    cases = drawn(shop())
    own, user = split_of(cases).training, cases[0].user_id
    later = tuple(event.model_copy(update={"timestamp": (event.timestamp or 0) + DAY}) for event in own[user])
    for planted in (later, own[user][::-1], (*own[user], own[user][0])):
        assert len(fit_leaks(cases, {**own, user: planted})) == 1
    assert fit_leaks(cases, {**own, user: own[user][1::2]}) == []


def test_sales_of_the_test_window_in_the_fit_of_user_cold_start_are_found() -> None:
    cases = draw_cases(shop(), part="all", negatives=5, setting="user-cold")
    own = split_of(cases).training
    user = next(user for user, events in own.items() if len(events) < LENGTH)
    (problem,) = fit_leaks(cases, {**own, user: cases.dataset.sequences[user]})
    assert "not older than the first target" in problem
    assert fit_leaks(cases, own) == []


def test_targets_and_other_users_targets_in_a_shown_history_are_found() -> None:
    cases = drawn(shop())
    assert cases.leaks == []
    own = cases.dataset.sequences[cases[0].user_id][-1]
    others = cases.dataset.sequences[cases[1].user_id][-1]
    for shown, said in ((own, "bought at or after the target"), (others, "which the user has not before the target")):
        planted = changed(cases, 0, history=(*cases[0].history, shown))
        problems = [leak.problem for leak in planted.leaks]
        assert any(said in problem for problem in problems)
        assert "the history is not what data and protocol give; draw the cases again" in problems
        with pytest.raises(InputError, match="held-out interactions leak"):
            _ = planted.training


def test_owned_negatives_are_found() -> None:
    cases = drawn(shop())
    candidates = [item for item in cases[0].candidates if item != cases[0].target]
    candidates = [cases[0].item_ids[0], *candidates[1:], str(cases[0].target)]
    problems = [leak.problem for leak in changed(cases, 0, candidates=tuple(candidates)).leaks]
    assert any("is a negative, but the user bought it" in problem for problem in problems)


def picked(cases: Cases) -> list[Case]:
    """Every user's negatives are the least popular items, so that the target stands out."""
    counts = cases.dataset.interactions["item_id"].value_counts()
    rare = sorted(counts.index, key=lambda item: (counts[item], item))

    def of(case: Case) -> tuple[str, ...]:
        mine = set(cases.dataset.histories[case.user_id])
        return (*[item for item in rare if item not in mine][: len(case.candidates) - 1], str(case.target))

    return [case.model_copy(update={"candidates": of(case)}) for case in cases]


def test_picked_negatives_are_found_although_the_hash_of_the_file_is_right(tmp_path: Path) -> None:
    cases = drawn(shop())
    write_cases(tmp_path / "picked.jsonl", cases.protocol, picked(cases))
    loaded = load_cases(tmp_path / "picked.jsonl", cases.dataset)
    assert len(loaded.leaks) == len(cases)
    with pytest.raises(InputError, match="the candidates are not what data and protocol give"):
        _ = loaded.training
    # The same in memory, with the hash of the cases that were drawn.
    assert len(replace(cases, cases=tuple(picked(cases))).leaks) == len(cases)
    write_cases(tmp_path / "drawn.jsonl", cases.protocol, cases.cases)
    assert load_cases(tmp_path / "drawn.jsonl", cases.dataset).leaks == []


def test_users_left_out_added_or_reordered_are_found() -> None:
    cases = drawn(shop())
    redrawn = cases.cases
    assert find_changed(redrawn, redrawn) == []
    (left_out,) = find_changed(redrawn[1:], redrawn)
    assert left_out.user_id == redrawn[0].user_id
    assert "has no case" in left_out.problem
    (added,) = find_changed(redrawn, redrawn[1:])
    assert "give no case of this user" in added.problem
    (moved,) = find_changed(redrawn[::-1], redrawn)
    assert "another order" in moved.problem
    refuse_leaks(find_changed(redrawn, redrawn))


def test_an_earlier_purchase_of_the_target_is_dropped_by_the_loader() -> None:
    data = shop()
    user = "user00"
    target = data.histories[user][-1]
    rows = data.interactions.loc[:, ["user_id", "item_id", "rating", "timestamp"]]
    again = pd.DataFrame([{"user_id": user, "item_id": target, "rating": 5.0, "timestamp": 50 * DAY}])
    twice = Dataset.from_frames(pd.concat([rows, again]), None, name="shop")
    assert twice.histories[user] == (target, *data.histories[user][:-1])
    assert any("1 " in note for note in twice.notes)
    assert next(case for case in drawn(twice) if case.user_id == user).target != target


# Warnings


def test_second_accounts_are_warned_about() -> None:
    data = shop()
    bought = {user: list(items) for user, items in data.histories.items()}
    assert kinds(data) == []
    some = [user for user, items in bought.items() if "item000" not in items][:5]
    accounts = {f"again {user}": [*bought[user], "item000"] for user in some}
    planted = shop(accounts)
    (warning,) = find_data_warnings(planted)
    assert (warning.kind, warning.count) == ("second accounts", 2 * len(accounts))
    assert set(warning.examples) < {*accounts, *data.histories}
    assert not any(user in warning.message for user in (*accounts, *data.histories))
    assert drawn(planted).leaks == []
    # Users with half of their items in common are no second accounts.
    half = {f"like {user}": [*items[:3], *(f"new {user} {n}" for n in range(3))] for user, items in bought.items()}
    assert kinds(shop(half)) == []


def test_second_accounts_are_found_as_by_comparing_everyone() -> None:
    rng = np.random.default_rng(1)
    popular = 1 / np.arange(1, 31)
    histories: dict[str, Sequence[str]] = {
        f"u{n:03}": [f"i{i}" for i in rng.choice(30, size=rng.integers(3, 9), replace=False, p=popular / popular.sum())]
        for n in range(300)
    }

    def alike(a: str, b: str) -> bool:
        one, other = set(histories[a]), set(histories[b])
        return a != b and len(one & other) >= max(4, 0.8 * len(one | other))

    slow = sorted(user for user in histories if any(alike(user, other) for other in histories))
    assert users_with_a_twin(histories) == slow
    assert 10 < len(slow) < 290


def test_user_ids_in_titles_are_warned_about() -> None:
    data = shop()
    titles = {items[-1]: f"Thing, liked by {user}" for user, items in data.histories.items()}
    (warning,) = find_data_warnings(shop(titles=titles))
    assert (warning.kind, warning.count) == ("user ids in texts", len(titles))
    # Ids that are ordinary words of many texts are no plant.
    words = {f"item{n:03}": f"Thing of user{n % USERS:02}" for n in range(ITEMS)}
    assert kinds(shop(titles=words)) == []


def test_one_product_under_two_ids_is_warned_about() -> None:
    data = shop()
    same = {items[-1]: f"thing  {items[0]} " for user, items in data.histories.items() if user < "user05"}
    cases = drawn(shop(titles=same))
    (warning,) = cases.warnings()
    assert warning.kind == "same title in history and target"
    assert warning.count >= 5
    assert drawn(data).warnings() == []


def test_dates_that_contradict_positions_are_warned_about() -> None:
    data = shop()
    rows = data.interactions.assign(position=-data.interactions["position"] + LENGTH)
    backwards = Dataset.from_frames(rows, None, name="shop")
    (warning,) = find_data_warnings(backwards)
    assert (warning.kind, warning.count) == ("dates against positions", USERS)
    assert drawn(backwards).leaks == []


def test_days_written_as_numbers_are_warned_about() -> None:
    rows = shop().interactions
    days = Dataset.from_frames(rows.assign(timestamp=20180700 + rows["position"] + 1), None, name="shop")
    (warning,) = find_data_warnings(days)
    assert (warning.kind, warning.count) == ("days as numbers", len(rows))
    assert "20180701" in warning.message
    one_more = rows.assign(timestamp=20180700 + rows["position"] + 1 + 40 * (rows.index == 0))
    assert kinds(Dataset.from_frames(one_more, None, name="shop")) == ["dates against positions"], "the 41st of July"


def test_a_missing_time_contradicts_no_position() -> None:
    rows = shop().interactions
    known = rows["timestamp"].where(rows["position"] % 2 == 0)
    assert kinds(Dataset.from_frames(rows.assign(timestamp=known), None, name="shop")) == []


# Item cold-start


def cold_shop() -> Dataset:
    """A shop with as many rare items as popular ones."""
    rng = np.random.default_rng(2)
    histories = {
        f"fan{n:03}": [
            *(f"item{i:03}" for i in rng.choice(60, size=5, replace=False)),
            *([f"rare{n:03}"] if n < 80 else []),
        ]
        for n in range(300)
    }
    return shop(histories)


def test_uniform_lists_of_item_cold_start_give_the_target_away_and_matched_ones_do_not() -> None:
    data = cold_shop()
    uniform = draw_cases(data, part="all", negatives=19, setting="item-cold", cold_share=0.3, sampling="uniform")
    matched = draw_cases(data, part="all", negatives=9, setting="item-cold", cold_share=0.3)
    assert (uniform.protocol.sampling, matched.protocol.sampling) == ("uniform", "matched")
    assert [warning.kind for warning in uniform.warnings()] == ["the target is what nobody has"]
    assert matched.warnings() == []


def test_the_default_is_matched_for_cold_items_only_and_what_is_given_counts() -> None:
    data = cold_shop()
    assert draw_cases(data, part="all", negatives=3).protocol.sampling == "uniform"
    assert draw_cases(data, part="all", negatives=3, setting="item-cold", sampling=None).protocol.sampling == "matched"
    given = draw_cases(data, part="all", negatives=3, setting="item-cold", sampling="popularity")
    assert given.protocol.sampling == "popularity"
