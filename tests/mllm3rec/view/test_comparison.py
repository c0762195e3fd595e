"""The page that compares runs: differences only over all users that both have."""

from __future__ import annotations

from pathlib import Path

import mllm3rec as m3
from mllm3rec.view.comparison_page import _columns, _difference, _indexed, _state
from mllm3rec.view.library import Library
from tests.support.cases import cases_file


def test_differences_wait_for_the_index_and_name_the_users_they_are_of(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "cases.jsonl", 6, part="test")
    users = [case.user_id for case in cases]

    class Ranks:
        def __init__(self, name: str, ranked: list[str]) -> None:
            self.name, self.ranked = name, ranked

        def rank(self, case: m3.Case) -> m3.Ranking:
            if case.user_id not in self.ranked:
                raise OSError
            return m3.Ranking(user_id=case.user_id, order=case.candidates)

    for name, ranked in (("all", users), ("first", users[:4]), ("last", users[2:])):
        m3.evaluate(cases, Ranks(name, ranked), out=tmp_path / name)
    library = Library(tmp_path)
    runs = [library.run(name) for name in ("first", "last", "all")]

    def shown(indexed: list[bool]) -> list[str]:
        first, *others = _columns(runs, "HR@5", indexed)
        return [_difference(one, first) for one in others]

    assert shown([True, False, True])[0] == "indexing…"
    assert shown([False, True, True]) == ["indexing…", "indexing…"]
    indexed = _indexed(runs)
    assert all(indexed)
    of_last, of_all = shown(indexed)
    assert of_last.endswith(", n = 2")
    assert "n =" not in of_all
    assert "indexing" not in of_all
    assert _state(library, runs, whole=True) == _state(library, runs, whole=True)
    assert _state(library, runs, whole=False) != _state(library, runs, whole=False)
