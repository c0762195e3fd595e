"""What may be taken in any window of sixty seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from programs.lm.sliding_window import MINUTE, SlidingWindow


class TestSlidingWindow:
    def test_by_hand(self) -> None:
        limit = SlidingWindow(100)
        limit.reserve(60, 0.0)
        late = limit.reserve(40, 10.0)
        assert limit.delay(1, 10.0) == 50.0, "when the first 60 leave the window"
        assert limit.delay(61, 10.0) == 60.0, "when the later 40 do, too"
        limit.settle(late, 5)
        assert limit.delay(35, 20.0) == 0.0
        assert limit.delay(36, 20.0) == 40.0
        assert limit.delay(95, 60.0) == 0.0
        assert limit.delay(100, 70.0) == 0.0

    def test_what_can_never_fit_goes_alone(self) -> None:
        limit = SlidingWindow(10)
        assert limit.delay(500, 0.0) == 0.0
        limit.reserve(500, 0.0)
        assert limit.delay(1, 30.0) == 30.0
        assert limit.delay(500, 60.0) == 0.0

    def test_settling_what_has_left_the_window_changes_nothing(self) -> None:
        limit = SlidingWindow(10)
        old = limit.reserve(10, 0.0)
        assert limit.delay(10, 60.0) == 0.0
        limit.reserve(10, 60.0)
        limit.settle(old, 0)
        assert limit.delay(1, 61.0) == 59.0

    @given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 40), st.integers(0, 9)), max_size=40))
    def test_no_window_of_sixty_seconds_holds_more(self, calls: list[tuple[int, float, int]]) -> None:
        limit, now, most = SlidingWindow(20), 0.0, 20
        sent: list[tuple[float, int]] = []
        for amount, pause, settled in calls:
            now += pause
            now += limit.delay(amount, now)
            assert limit.delay(amount, now) <= 1e-6
            taken = limit.reserve(amount, now)
            final = min(settled, amount)
            limit.settle(taken, final)
            sent.append((now, final))
            inside = sum(n for at, n in sent if at > now - MINUTE + 1e-6)
            assert inside - final + amount <= most, "before it was settled"
