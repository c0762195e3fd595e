"""Lists that a fine-tuned reader learns from beside the prior, so that it learns what the prior lacks.

The loss is that of the fused scores: the cross-entropy of the target with a softmax over the prior's scores plus a
share of the reader's. Where the prior alone puts the target first, little is left to learn (as in gradient boosting, a
residual). The candidates are the prior's first ones: those that the reader is asked about with a head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.training_lists import steps_back
from evaluate.protocol.cases import Cases
from optimize.likelihood import Likelihood, ListScores, mean_deviations
from programs.fusion import head_of
from programs.prior.scorers import CompositeScorer, Training
from programs.runtime.errors import InputError
from programs.tuned.settings import Beside, PromptList
from signatures.rows import Case, seed_of

HEAD = 10
"""Candidates of a list: the prior's first ones."""

LEAST_SCALE = 0.01
"""Smallest scale of the fused scores, in nats for a standard deviation; below it the loss is that of equal scores."""

SCALED_ON = 100
"""Lists that decide the share of the reader's scores."""


@dataclass(frozen=True)
class HeadList:
    """The prior's first candidates of a list, the target among them.

    Attributes:
        case: With these candidates alone.
        prior: The prior's scores of them.
    """

    case: Case
    prior: tuple[float, ...]


def head_lists(cases: Sequence[Case], prior: CompositeScorer) -> list[HeadList]:
    """The lists whose target is among the prior's first `HEAD` candidates."""
    found = []
    for case, parts in zip(cases, prior.parts_of(cases), strict=True):
        scores = np.asarray(prior.combine(parts), dtype=float)
        first = head_of(scores, HEAD, seed_of("ties", case.user_id))
        candidates = tuple(case.candidates[place] for place in first.tolist())
        if case.target in candidates:
            found.append(HeadList(case.model_copy(update={"candidates": candidates}), tuple(scores[first].tolist())))
    return found


def training_head_lists(
    cases: Cases, fit: Callable[[Training], CompositeScorer], count: int, seed: int, read: Collection[tuple[str, str]]
) -> list[HeadList]:
    """Lists of the cases' training data, in their setting's own shape and length, in a random order.

    Args:
        fit: Fits the prior; it never sees the targets of the lists that it scores.
        count: Most lists.
        seed: Decides negatives, choice and order.
        read: User and target of lists that the reader has learned from alone. They come last: it knows their targets
            better than those of users to come.
    """
    data = TrainingData(cases.training, cases.dataset.items, cases.dataset.metadata, protocol=cases.protocol)
    steps = steps_back(data, cases.protocol.negatives, seed)
    places = [(number, place) for number, step in enumerate(steps) for place in range(len(step.cases))]
    order = [places[place] for place in np.random.default_rng(seed).permutation(len(places)).tolist()]
    order.sort(key=lambda place: _key(steps[place[0]].cases[place[1]]) in read)
    order = order[: 2 * count]  # More than are wanted, as targets of some are outside the head.
    found: dict[tuple[int, int], HeadList] = {}
    for number, step in enumerate(steps):
        own = [place for other, place in order if other == number]
        if not own:
            continue
        chosen = {step.cases[place].user_id: (number, place) for place in own}
        for one in head_lists([step.cases[place] for place in own], fit(step.training)):
            found[chosen[one.case.user_id]] = one
    return [found[key] for key in order if key in found][:count]


def _key(case: Case) -> tuple[str, str]:
    return case.user_id, str(case.target)


def beside_prior(
    lists: Sequence[tuple[HeadList, PromptList]],
    logits: Callable[[PromptList], NDArray[np.float64]],
    weight: float,
    others: Sequence[tuple[HeadList, PromptList]],
) -> tuple[list[PromptList], list[PromptList]]:
    """The prompts of two groups of lists, with the prior's scores in nats and the share of the reader's.

    The first `SCALED_ON` lists of the first group decide both: their mean deviations, and the scale at which their
    targets are likeliest when the reader has the given weight.

    Args:
        lists: To learn from.
        logits: What the reader says of a list, before it learns from any.
        weight: Fusion weight that the training begins with.
        others: To judge by.

    Raises:
        InputError: if one of the groups is empty, the scores of all candidates are alike, or the fused scores say
            nothing about the targets, so that nothing would be learned.
    """
    if not others:
        raise InputError("there is no list to judge the training beside the prior by; give more dev users")
    scored = [
        found
        for one, prompt in lists[:SCALED_ON]
        if (found := ListScores.of(one.case, logits(prompt).tolist(), one.prior, None)) is not None
    ]
    deviations = mean_deviations(scored)
    if deviations is None:
        raise InputError("there is no list to learn from beside the prior, or nothing tells its candidates apart")
    likelihood = Likelihood([one.over(deviations) for one in scored])
    scale = likelihood.scale(weight, np.ones(len(scored), dtype=bool))
    if scale < LEAST_SCALE:
        raise InputError(
            f"the prior's scores with a share of {weight:g} of the reader's do not tell the targets of {len(scored)} "
            "training lists from their other candidates, so nothing can be learned beside the prior; give a larger "
            "--beside-prior or another --base, or leave out --beside-prior"
        )
    of_prior, share = scale * (1 - weight) / deviations.prior, scale * weight / deviations.mar

    def prompt_beside(one: HeadList, prompt: PromptList) -> PromptList:
        return replace(prompt, beside=Beside(tuple(of_prior * score for score in one.prior), share))

    first, second = ([prompt_beside(*both) for both in group] for group in (lists, others))
    return first, second
