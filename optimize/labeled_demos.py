"""Labeled demos for MAR, made from dev users' targets and negatives."""

from __future__ import annotations

import random
from collections.abc import Sequence

import dspy
import numpy as np

from optimize.scoring import naming_user
from programs.fusion import head_of
from programs.lm.backends import UnparsableError
from programs.mar import Candidate, Listwise, Pointwise, draw_labels, render_candidates
from programs.prior.scorers import scores_of
from programs.program import MLLM3Rec
from signatures.rows import Case, seed_of

SHOWN = 8
"""Candidates in a listwise demo: the target and seven negatives, to keep prompts short."""


def labeled_demos(program: MLLM3Rec, cases: Sequence[Case], seed: int) -> list[dspy.Example]:
    """Demos for the aligner's predictor, with the program's own texts of users and items.

    Listwise: the target first, then negatives in the prior's order. Pointwise: alternately a target with rating 5 and a
    negative with rating 1. Aligners without a predictor get no demos. Users with unparsable answers are left out, and
    with a head those whose target is outside it: MAR reads candidates of the head alone.

    Raises:
        EvaluationError: if the infrastructure failed for a user.
    """
    examples = []
    for index, case in enumerate(cases):
        rng = random.Random(seed_of("labelled", seed, case.user_id))  # noqa: S311 - a reproducible draw, no secret
        try:
            with naming_user(case.user_id):
                examples += _demos_of(program, case, rng, positive=index % 2 == 0)
        except UnparsableError:
            continue
    return examples


def _demos_of(program: MLLM3Rec, case: Case, rng: random.Random, positive: bool) -> list[dspy.Example]:
    if case.target is None or not isinstance(program.aligner, Listwise | Pointwise):
        return []
    whole = np.asarray(scores_of(program.prior.value, case.blinded()), dtype=float)
    head = head_of(whole, program.fusion.head, seed_of("ties", case.user_id))
    read = [case.candidates[place] for place in head.tolist()]
    negatives = [item for item in read if item != case.target]
    if case.target not in read or not negatives:
        return []
    items = program.catalogue.value
    user = program.shopper(history=program.purchases(case), metadata=case.metadata).text
    if isinstance(program.aligner, Pointwise):
        item_id = case.target if positive else rng.choice(negatives)
        text = program.product(item=items[item_id]).text
        example = dspy.Example(shopper=user, product=text, rating="5" if positive else "1")
        return [example.with_inputs("shopper", "product")]
    shown = [case.target, *rng.sample(negatives, min(SHOWN - 1, len(negatives)))]
    prior = np.asarray(program.prior.value.scores(case.item_ids, shown), dtype=float)
    candidates = [Candidate(item_id=i, text=program.product(item=items[i]).text) for i in shown]
    labels = draw_labels(rng, len(shown))
    order = [0, *(1 + int(i) for i in np.argsort(-prior[1:], kind="stable"))]
    presented = rng.sample(list(zip(labels, candidates, strict=True)), len(shown))
    example = dspy.Example(
        shopper=user, products=render_candidates(presented), ranking=[labels[index] for index in order]
    )
    return [example.with_inputs("shopper", "products")]
