"""Demonstrations for MAR out of what dev shoppers really chose: the target above what they did not choose."""

from __future__ import annotations

import random
from collections.abc import Sequence

import dspy
import numpy as np

from programs.lm.backends import UnparsableError
from programs.mar import Candidate, Listwise, Pointwise, draw_labels, render_candidates
from programs.program import MLLM3Rec
from signatures.rows import Case, seed_of

SHOWN = 8
"""Candidates in a demonstrated list: the target and seven others. Thirty would fill the prompt with one example."""


def labelled_demos(program: MLLM3Rec, cases: Sequence[Case], seed: int) -> list[dspy.Example]:
    """Gold examples for the aligner's predictor, in the program's own words for shoppers and products.

    Listwise: the target first, then the others in the prior's order. Pointwise: the target is a 5, and for every
    second shopper a candidate that was not chosen is a 1. An aligner without predictor has none.

    Shoppers or products that cannot be read are left out.
    """
    examples = []
    for place, case in enumerate(cases):
        rng = random.Random(seed_of("labelled", seed, case.user_id))  # noqa: S311 - a reproducible draw, no secret
        try:
            examples += _of(program, case, rng, chosen=place % 2 == 0)
        except UnparsableError:
            continue
    return examples


def _of(program: MLLM3Rec, case: Case, rng: random.Random, chosen: bool) -> list[dspy.Example]:
    if case.target is None or not isinstance(program.aligner, Listwise | Pointwise):
        return []
    items = program.catalogue.value
    history = [(items[i.item_id], i) for i in case.history if i.item_id in items]
    shopper = program.shopper(history=history, metadata=case.metadata).text
    others = [item for item in case.candidates if item != case.target]
    if isinstance(program.aligner, Pointwise):
        item_id = case.target if chosen else rng.choice(others)
        text = program.product(item=items[item_id]).text
        example = dspy.Example(shopper=shopper, product=text, rating="5" if chosen else "1")
        return [example.with_inputs("shopper", "product")]
    shown = [case.target, *rng.sample(others, min(SHOWN - 1, len(others)))]
    prior = np.asarray(program.prior.value.scores([i.item_id for i in case.history], shown), dtype=float)
    candidates = [Candidate(item_id=i, text=program.product(item=items[i]).text) for i in shown]
    labels = draw_labels(rng, len(shown))
    order = [0, *(1 + int(i) for i in np.argsort(-prior[1:], kind="stable"))]
    presented = rng.sample(list(zip(labels, candidates, strict=True)), len(shown))
    example = dspy.Example(
        shopper=shopper, products=render_candidates(presented), ranking=[labels[index] for index in order]
    )
    return [example.with_inputs("shopper", "products")]
