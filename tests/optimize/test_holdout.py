"""The held-out check: who is held out, and when a winner is better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluate.stats.metrics import ndcg
from optimize.holdout import compare_on_holdout, split_dev
from programs.runtime.errors import InputError
from tests.support.cases import cases_file
from tests.support.compile_setup import score_of


def test_split_holds_the_last_out_and_refuses_what_cannot_be_split(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 5).cases
    searched, held_out = split_dev(cases, 0.3)
    assert (*searched, *held_out) == cases
    assert len(held_out) == 2
    with pytest.raises(InputError, match="cannot be split"):
        split_dev(cases[:1], 0.3)


def test_a_verdict_needs_a_clear_gain() -> None:
    users = [f"u{n}" for n in range(12)]
    low = [score_of(user, 0.1 + n / 100) for n, user in enumerate(users)]
    high = [score_of(user, 0.4 + n / 50) for n, user in enumerate(users)]
    assert compare_on_holdout(low, high).judgement == "better"
    assert compare_on_holdout(high, low).judgement == "not better"
    assert compare_on_holdout(low, low).judgement == "not better"
    assert compare_on_holdout(low[:3], high[:3]).judgement == "not clearly better", "three shoppers convince nobody"


def test_a_winner_is_compared_with_the_prior_alone_on_the_same_users() -> None:
    ranks = [(3 + n % 3, *(1,) * 20) for n in range(12)]
    won = [score_of(f"u{n}", 1.0).model_copy(update={"ranks": own}) for n, own in enumerate(ranks)]
    base = [score_of(f"u{n}", 0.9).model_copy(update={"ranks": own}) for n, own in enumerate(ranks)]
    found = compare_on_holdout(base, won).against_prior
    assert found is not None and found.judgement == "better"
    assert found.ndcg.mean == pytest.approx(1 - np.mean([ndcg(own[0], 99) for own in ranks]))
    assert (found.hit.mean, found.ndcg.n) == (0.0, 12)
    # Better than before, and still below the prior.
    low = [one.model_copy(update={"ndcg": 0.2, "ranks": (1,) * 21}) for one in won]
    verdict = compare_on_holdout(base, low)
    assert (verdict.judgement, verdict.against_prior and verdict.against_prior.judgement) == ("better", "not better")
    unknown = compare_on_holdout(base, [score_of(one.user_id, 1.0) for one in won])
    assert unknown.against_prior is None and "against_prior" not in unknown.model_dump()
