"""The concurrency limit: it doubles, halves on overload, and recovers one by one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from programs.lm.adaptive_concurrency import INITIAL_LIMIT, AdaptiveConcurrency


class TestAdaptiveConcurrency:
    @staticmethod
    def round_of(window: AdaptiveConcurrency) -> int:
        """One round of answers while the whole limit is in use; the limit afterwards."""
        for _ in range(window.limit):
            window.record_success(window.limit)
        return window.limit

    def test_it_doubles_up_to_the_most(self) -> None:
        window = AdaptiveConcurrency(50)
        assert [window.limit, *(self.round_of(window) for _ in range(5))] == [INITIAL_LIMIT, 16, 32, 50, 50, 50]

    def test_an_overload_halves_it_once_a_round_and_it_grows_by_one_a_round_from_there(self) -> None:
        window = AdaptiveConcurrency(64)
        while window.limit < 64:
            self.round_of(window)
        sent_in = window.decreases
        assert [window.record_overload(sent_in) for _ in range(64)] == [True] + [False] * 63
        sizes = [window.limit, *(self.round_of(window) for _ in range(6))]
        assert sizes[0] == 32
        assert all(after - before <= 1 for before, after in pairwise(sizes))
        assert sizes[-1] >= 37

    def test_it_never_falls_below_one(self) -> None:
        window = AdaptiveConcurrency(2)
        for _ in range(10):
            assert window.record_overload(window.decreases)
        assert window.limit == 1
        assert [self.round_of(window) for _ in range(3)] == [2, 2, 2]

    def test_answers_say_nothing_of_a_window_that_was_not_in_use(self) -> None:
        window = AdaptiveConcurrency(64)
        for _ in range(100):
            window.record_success(INITIAL_LIMIT - 1)
        assert window.limit == INITIAL_LIMIT

    @given(st.integers(1, 100), st.lists(st.booleans(), max_size=200))
    def test_it_stays_within_its_bounds(self, most: int, fates: list[bool]) -> None:
        window = AdaptiveConcurrency(most)
        for good in fates:
            if good:
                window.record_success(window.limit)
            else:
                window.record_overload(window.decreases)
            assert 1 <= window.limit <= most
