"""HR@K and NDCG@K as metrics for `dspy.Evaluate` and DSPy's optimizers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import dspy

from evaluate.stats.metrics import hit, ndcg, rank_of
from programs.runtime.errors import InputError
from signatures.rows import Case, Status

Metric = Callable[..., Any]
"""metric(example, prediction, trace=None, pred_name=None, pred_trace=None)"""

_NAME = re.compile(r"(HR|NDCG)@([1-9]\d*)")


def metric(name: str = "NDCG@10") -> Metric:
    """A metric by name, for examples of `Cases.examples` and predictions of a program.

    Args:
        name: `HR@K` or `NDCG@K`, any K of at least 1.

    Returns:
        A function that returns the metric of one user, 0 to 1. When DSPy bootstraps demos (with a trace), it returns
        whether the answers could be read and the target is among the first K. When GEPA asks about a predictor, it also
        returns feedback in words.

    Raises:
        InputError: if there is no such metric.

    >>> from signatures.rows import Ranking
    >>> case = Case(user_id="u", history=(), candidates=("a", "b"), target="b")
    >>> example = dspy.Example(case=case).with_inputs("case")
    >>> prediction = dspy.Prediction(ranking=Ranking(user_id="u", order=("a", "b")))
    >>> round(metric("NDCG@5")(example, prediction), 3), metric("HR@1")(example, prediction)
    (0.631, 0.0)
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise InputError(f"no metric {name!r}: write HR@K or NDCG@K, for example NDCG@10")
    k, compute = int(found[2]), {"HR": hit, "NDCG": ndcg}[found[1]]

    def measured(
        example: dspy.Example,
        prediction: dspy.Prediction,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        case: Case = example.case
        if case.target is None:
            raise InputError(f"user {case.user_id!r}: the case has no target to score against")
        rank = rank_of(prediction.ranking.order, case.target)
        if trace is not None and pred_name is None:
            return rank <= k and prediction.ranking.status is Status.OK
        value = compute(rank, k)
        if pred_name is None:
            return value
        return dspy.Prediction(
            score=value, feedback=f"The item chosen next is ranked {rank} of {len(case.candidates)}."
        )

    return measured
