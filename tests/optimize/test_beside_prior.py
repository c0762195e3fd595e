"""Lists beside the prior: the head of a prior that never saw the targets, and the loss of the fused scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optimize.beside_prior import HEAD, HeadList, beside_prior, head_lists, training_head_lists
from programs.prior.prior import Prior
from programs.prior.scorers import Popularity, Training, histories_of
from programs.runtime.errors import InputError
from programs.tuned.settings import PromptList, TuningSettings
from signatures.rows import Case
from tests.support.cases import cases_file


def test_training_lists_are_the_head_of_a_prior_that_never_saw_their_targets(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    fitted: list[Training] = []

    def fit(training: Training) -> Prior:
        fitted.append(training)
        return Prior.fit(histories_of(training))

    lists = training_head_lists(cases, fit, 20, seed=0, read=())
    assert lists == training_head_lists(cases, fit, 20, seed=0, read=())
    assert 10 < len(lists) <= 20
    (training, _) = fitted
    for one in lists:
        assert one.case.target in one.case.candidates and len(one.case.candidates) == len(one.prior) == HEAD
        assert one.case.target not in {event.item_id for event in training[one.case.user_id]}
        assert one.case.target in {event.item_id for event in cases.training[one.case.user_id]}
    read = {(one.case.user_id, str(one.case.target)) for one in lists}
    others = training_head_lists(cases, fit, 20, seed=0, read=read)
    assert not read & {(one.case.user_id, str(one.case.target)) for one in others}, "lists that were read come last"
    every = training_head_lists(cases, fit, 10_000, seed=0, read=read)
    assert read <= {(one.case.user_id, str(one.case.target)) for one in every}


def test_lists_whose_target_the_prior_puts_below_the_head_are_left_out() -> None:
    items = tuple("abcdefghijklm")
    prior = Prior.fit({f"u{number}": items[: number + 1] for number in range(len(items))})
    cases = [Case(user_id=target, history=(), candidates=items, target=target) for target in ("a", "m")]
    (one,) = head_lists(cases, prior)
    assert one.case.user_id == "a" and one.case.candidates == items[:HEAD]
    assert isinstance(prior.popularity, Popularity) and list(one.prior) == sorted(one.prior, reverse=True)


def drawn(n: int) -> list[tuple[HeadList, PromptList]]:
    rng = np.random.default_rng(3)
    found = []
    for number in range(n):
        scores, target = rng.normal(size=4), int(rng.integers(4))
        case = Case(user_id=f"u{number}", history=(), candidates=tuple("abcd"), target="abcd"[target])
        found.append((HeadList(case, tuple(scores)), PromptList("", tuple("abcd"), target)))
    return found


def test_reader_and_prior_are_added_at_the_given_weight() -> None:
    lists = drawn(50)
    logits = {id(prompt): 7 * np.eye(4)[prompt.target] + np.arange(4.0) for _, prompt in lists}
    first, second = beside_prior(lists, lambda one: logits[id(one)], 0.25, lists[:3])
    assert second == first[:3]
    for (one, prompt), made in zip(lists, first, strict=True):
        assert made.beside is not None and made.suffixes == prompt.suffixes
        assert np.array(made.beside.prior) / one.prior == pytest.approx(made.beside.prior[0] / one.prior[0])
    beside = first[0].beside
    assert beside is not None
    in_reader = beside.share * float(np.mean([logits[id(prompt)].std() for _, prompt in lists]))
    in_prior = beside.prior[0] / lists[0][0].prior[0] * float(np.mean([np.std(one.prior) for one, _ in lists]))
    assert in_reader / in_prior == pytest.approx(0.25 / 0.75)
    assert first[0].facts != lists[0][1].facts
    with pytest.raises(InputError, match="no list to learn from"):
        beside_prior([], lambda one: np.zeros(4), 0.25, lists[:1])
    with pytest.raises(InputError, match="nothing tells its candidates apart"):
        beside_prior(lists, lambda one: np.zeros(4), 0.25, lists[:1])
    with pytest.raises(InputError, match="no list to judge the training"):
        beside_prior(lists, lambda one: logits[id(one)], 0.25, [])


def test_scores_that_put_the_targets_last_teach_nothing() -> None:
    lists = [(replace(one, prior=tuple(-np.eye(4)[prompt.target])), prompt) for one, prompt in drawn(50)]
    with pytest.raises(InputError, match="do not tell the targets of 50 training lists from their other candidates"):
        beside_prior(lists, lambda one: -np.eye(4)[one.target], 0.25, lists[:3])


def test_the_second_training_is_shorter_and_slower() -> None:
    settings = TuningSettings(lists=4000, beside_prior=800, rate=1e-3, block=100)
    second = settings.of_lists_beside_prior
    assert (second.lists, second.beside_prior, second.block, second.steps) == (800, 0, 50, 200)
    assert second.rate == pytest.approx(4e-4)
