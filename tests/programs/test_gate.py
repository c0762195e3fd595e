"""Gates: the weight of a user, who is asked about, and what a program does with both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from programs.gate import LEAST_DEVIATION, Deviations, Gate, GateSignals, entropy, read_gate, recorded_scores
from programs.program import Fusion
from programs.runtime.errors import InputError
from signatures.rows import Case, Ranking, Status
from signatures.types import Interaction

CASE = Case(user_id="u", history=(Interaction(item_id="x"),), candidates=("a", "b", "c"))


def signals(margin: float = 1.0, history: int = 3, entropy: float | None = None) -> GateSignals:
    return GateSignals(history=history, cold=0, margin=margin, entropy=entropy)


def test_a_user_on_a_cut_belongs_to_the_lower_range() -> None:
    gate = Gate(signal="history", cuts=(2.0, 5.0), weights=(0.1, 0.2, 0.3))
    assert [gate.weight(signals(history=n)) for n in (1, 2, 3, 5, 6)] == [0.1, 0.1, 0.2, 0.2, 0.3]


def test_nobody_is_asked_where_the_answer_has_no_weight() -> None:
    gate = Gate(signal="margin", cuts=(1.0,), weights=(0.4, 0.0))
    assert [gate.asks(signals(margin)) for margin in (0.5, 1.5)] == [True, False]
    unsure = Gate(signal="entropy", cuts=(0.5,), weights=(0.4, 0.0))
    assert unsure.asks(signals()), "the entropy is known only after MAR was asked"
    assert unsure.weight(signals()) == 0
    assert not Gate(weights=(0.0,)).asks(signals())


def test_a_share_asks_those_below_the_margin_of_that_share_of_dev_users() -> None:
    gate = Gate(weights=(0.3,), margins=(0.0, 1.0, 2.0, 3.0, 4.0))
    asked = {share: [gate.asking(share).asks(signals(margin)) for margin in (0.0, 0.9, 1.9, 9.0)] for share in (0, 0.5)}
    assert asked == {0: [False] * 4, 0.5: [True, True, True, False]}
    assert gate.asking(0.5).asking(1) == gate
    with pytest.raises(InputError, match="from 0 to 1"):
        gate.asking(1.5)
    with pytest.raises(InputError, match="no margins"):
        Gate(weights=(0.3,)).asking(0.5)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=9))
def test_entropy_lies_between_0_and_1(scores: list[float]) -> None:
    found = entropy(scores)
    assert found is not None
    assert 0 <= found <= 1
    assert entropy([scores[0]] * len(scores)) == pytest.approx(1)


def test_scores_that_mar_did_not_give_are_found_in_a_row() -> None:
    row = Ranking(user_id="u", order=("a", "b", "c"), scores={"mar": [0.5, -0.75, 0.25]}, appended=1)
    assert np.isnan(recorded_scores(row, None)).tolist() == [False, True, False]
    assert not np.isnan(recorded_scores(row.model_copy(update={"appended": 0}), None)).any()
    assert np.isnan(recorded_scores(row.model_copy(update={"appended": 0}), 2)).sum() == 1
    assert np.isnan(recorded_scores(row.model_copy(update={"status": Status.UNPARSABLE}), None)).all()


def test_rows_of_before_there_was_a_gate_count_as_asked() -> None:
    row = Ranking.model_validate_json('{"user_id": "u", "order": ["a"]}')
    assert row.asked
    assert "asked" not in row.model_dump_json()
    assert not Ranking.model_validate_json(row.model_copy(update={"asked": False}).model_dump_json()).asked


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{}", "holds no gate"),
        ('{"gate": {"weights": [0.1, 0.2]}}', "0 cuts make 1 ranges"),
        ('{"gate": {"weights": [2]}}', "weights"),
        ('{"gate": {"weights": [0.1, 0.2], "cuts": [1]}}', "cuts need a signal"),
        ("[", "gate.json"),
    ],
)
def test_a_file_that_holds_no_gate_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "gate.json").write_text(content)
    with pytest.raises(InputError, match=problem):
        read_gate(tmp_path / "gate.json")


def test_cuts_ascend() -> None:
    with pytest.raises(ValidationError, match="ascending"):
        Gate(signal="margin", cuts=(2.0, 1.0), weights=(0.1, 0.2, 0.3))


def test_deviations_are_large_enough_to_divide_by() -> None:
    for wrong in (0.0, 1e-320, 1e-10):
        with pytest.raises(ValidationError, match="deviations below 1e-09"):
            Gate(weights=(0.3,), deviations=Deviations(mar=wrong, prior=1.0))
    assert Gate(weights=(0.3,), deviations=Deviations(mar=LEAST_DEVIATION, prior=1.0)).deviations is not None


def test_the_fusion_of_a_user_has_the_weight_of_the_gate() -> None:
    fusion = Fusion(0.3, 8, Gate(signal="margin", cuts=(1.0,), weights=(0.6, 0.2)))
    assert fusion.of_user(signals(0.5)) == Fusion(0.6, 8)
    assert Fusion(0.3).of_user(signals(0.5)) == Fusion(0.3)


def test_cold_candidates_are_those_that_nobody_has() -> None:
    assert GateSignals.of(CASE, [1, 2, 3], {"a", "x"}).cold == pytest.approx(2 / 3)
    assert GateSignals.of(CASE, [1, 2, 3], None).cold == 0
