"""The held-out check: who is held out, and when a winner is better."""

from __future__ import annotations

from pathlib import Path

import pytest

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
