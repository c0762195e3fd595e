"""What `learned+mar` takes from the runs of programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluate.experiments.study_stacking import recorded_answers
from evaluate.runs.session import run_session
from programs.gate import recorded_scores
from programs.lm.ledger import Ledger
from programs.ranker import ranking_from_scores
from signatures.rows import Case, Ranking
from tests.support.cases import cases_file

SHOWN = 2


class FirstTwo:
    """A program that asks about two candidates; the others get one less than the lowest score."""

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates."""
        mar = [0.9, 0.5, *[-0.5] * (len(case.candidates) - SHOWN)]
        return ranking_from_scores(case, {"mar": mar, "prior": mar}, by="prior")


@pytest.mark.parametrize(("head", "unknown"), [(SHOWN, 10 - SHOWN), (None, 0)])
def test_rows_are_read_with_the_head_of_the_program(head: int | None, unknown: int, tmp_path: Path) -> None:
    for part in ("dev", "test"):
        cases = cases_file(tmp_path / f"{part}.jsonl", 2, part=part)
        folder = tmp_path / "learned+mar" / part / "chat-rec"
        run_session(folder, "chat-rec", FirstTwo(), {"head": head}, cases, Ledger())
    rows, found = recorded_answers(tmp_path / "learned+mar", "chat-rec")
    assert found == head
    assert len(rows) == 4
    for row in rows.values():
        assert np.isnan(recorded_scores(row, found)).sum() == unknown
