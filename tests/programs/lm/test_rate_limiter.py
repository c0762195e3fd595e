"""Limits of backends: pure parts on a clock of their own, then four real servers that each misbehave in their way."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMAuthError, LMInvalidRequestError, LMRateLimitError, LMServerError, LMTransportError
from hypothesis import given
from hypothesis import strategies as st

from programs.lm.adaptive_concurrency import START, AdaptiveConcurrency
from programs.lm.backends import Backends
from programs.lm.circuit_breaker import COOL_DOWN, FAILURES, BackendDownError, CircuitBreaker
from programs.lm.ledger import Budget, Call, Ledger, read_calls
from programs.lm.limits import DEFAULT_CONCURRENCY, Limits, limits_for, stated_limits
from programs.lm.llama_cpp import ENGINE
from programs.lm.prices import Price, PriceTable
from programs.lm.rate_limiter import RateLimiter
from programs.lm.response_cache import ResponseCache, use_response_cache
from programs.lm.roles import ROLE_NAMES, RoleConfig, RoleName, Roles, local_roles
from programs.lm.sliding_window import MINUTE, SlidingWindow
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.mote import DistillTraits
from tests.support.fake_server import FakeOpenAI, Reply, sensible
from tests.support.flaky_server import Misbehaving


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def too_many(retry_after: float | None = None) -> LMRateLimitError:
    return LMRateLimitError("too many", status=429, retry_after=retry_after)


def refused_connection() -> LMTransportError:
    error = LMTransportError("failed to connect")
    error.__cause__ = ConnectionRefusedError()
    return error


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A thread that has begun, and where its result or exception will be."""
    came: list[Any] = []

    def note() -> None:
        try:
            came.append(work())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    return thread, came


def eventually(true: Callable[[], bool]) -> None:
    """Wait until something that takes a moment has happened; for ever is a failure."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


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


class TestAdaptiveConcurrency:
    @staticmethod
    def round_of(window: AdaptiveConcurrency) -> int:
        """One round of answers while the whole limit is in use; the limit afterwards."""
        for _ in range(window.limit):
            window.record_success(window.limit)
        return window.limit

    def test_it_doubles_up_to_the_most(self) -> None:
        window = AdaptiveConcurrency(50)
        assert [window.limit, *(self.round_of(window) for _ in range(5))] == [START, 16, 32, 50, 50, 50]

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
            window.record_success(START - 1)
        assert window.limit == START

    @given(st.integers(1, 100), st.lists(st.booleans(), max_size=200))
    def test_it_stays_within_its_bounds(self, most: int, fates: list[bool]) -> None:
        window = AdaptiveConcurrency(most)
        for good in fates:
            if good:
                window.record_success(window.limit)
            else:
                window.record_overload(window.decreases)
            assert 1 <= window.limit <= most


class TestCircuit:
    def test_a_few_lost_calls_in_a_row_are_death(self) -> None:
        circuit = CircuitBreaker("it")
        error = LMServerError("on fire", status=500)
        for _ in range(FAILURES - 1):
            circuit.record_failure(error, 0.0)
        circuit.record(None, False, 0.0)
        for _ in range(FAILURES - 1):
            circuit.record_failure(error, 0.0)
            circuit.require(0.0)
        circuit.record_failure(error, 0.0)
        with pytest.raises(BackendDownError, match=r"^it does not answer \(on fire\); the next call is sent in 30 s$"):
            circuit.require(0.0)

    def test_one_is_if_nobody_listens(self) -> None:
        circuit = CircuitBreaker("it")
        circuit.record_failure(refused_connection(), 0.0)
        with pytest.raises(BackendDownError) as error:
            circuit.require(0.0)
        assert not error.value.refused

    def test_a_refusal_is_at_once(self) -> None:
        circuit = CircuitBreaker("it")
        circuit.record(LMAuthError("invalid key"), False, 0.0)
        with pytest.raises(BackendDownError, match="rejected the key, account or model") as error:
            circuit.require(0.0)
        assert error.value.refused

    def test_errors_of_the_call_are_not_the_backend_s(self) -> None:
        circuit = CircuitBreaker("it")
        for _ in range(2 * FAILURES):
            circuit.record_failure(LMInvalidRequestError("too long", status=400), 0.0)
            circuit.record_failure(ValueError("ours"), 0.0)
        circuit.require(0.0)

    def test_after_the_cool_down_one_call_finds_out(self) -> None:
        circuit = CircuitBreaker("it")
        circuit.record_failure(refused_connection(), 0.0)
        circuit.require(COOL_DOWN)
        assert circuit.start()
        with pytest.raises(BackendDownError, match="a probe is under way"):
            circuit.require(COOL_DOWN)
        circuit.record(refused_connection(), True, 31.0)
        with pytest.raises(BackendDownError, match="in 29 s"):
            circuit.require(32.0)
        circuit.require(31.0 + COOL_DOWN)
        assert circuit.start()
        circuit.record(None, True, 62.0)
        circuit.require(62.0)
        assert not circuit.start()


class TestRateLimiter:
    @staticmethod
    def make(clock: Clock | None = None, **limits: int) -> RateLimiter:
        return RateLimiter("it", Limits(**limits), clock or Clock(), jitter=lambda: 0.0)

    def test_never_more_are_in_flight_than_allowed_and_all_come_through(self) -> None:
        limiter = RateLimiter("it", Limits(concurrency=5))
        flying = 0
        most: list[int] = []
        lock = threading.Lock()

        def call(_: int) -> None:
            nonlocal flying
            permit = limiter.acquire(1, Ledger())
            with lock:
                flying += 1
                most.append(flying)
            time.sleep(0.002)
            with lock:
                flying -= 1
            limiter.release(permit, 1)

        with ThreadPoolExecutor(20) as pool:
            assert len(list(pool.map(call, range(200)))) == 200
        assert max(most) == 5

    def test_first_come_first_served(self) -> None:
        limiter = self.make(concurrency=1)
        permit = limiter.acquire(1, Ledger())
        order: list[int] = []
        threads = []
        for n in range(6):

            def call(n: int = n) -> None:
                mine = limiter.acquire(1, Ledger())
                order.append(n)
                limiter.release(mine, 1)

            threads.append(in_thread(call)[0])
            eventually(lambda n=n: len(limiter._queue) == n + 1)  # type: ignore[misc]
        limiter.release(permit, 1)
        for thread in threads:
            thread.join(60)
        assert order == list(range(6))

    def test_a_pause_holds_back_everybody_as_long_as_asked(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=20.0))
        clock.now += 3
        _, came = in_thread(lambda: limiter.acquire(1, Ledger()))
        clock.now += 16.5
        time.sleep(0.5)  # The rate limiter looks at the clock at least that often.
        assert came == []
        clock.now += 0.6
        eventually(lambda: bool(came))
        assert came[0].waited == pytest.approx(17.1)

    def test_without_a_time_the_pause_doubles_until_a_call_succeeds(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        pauses = []
        for _ in range(8):
            permit = limiter.acquire(1, Ledger())
            limiter.release(permit, None, too_many())
            pauses.append(limiter._paused_until - clock.now)
            clock.now = limiter._paused_until
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
        limiter.release(limiter.acquire(1, Ledger()), 1)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many())
        assert limiter._paused_until - clock.now == 1

    def test_who_asks_for_longer_than_a_run_should_wait_counts_as_dead_until_then(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=7200.0))
        clock.now += 3600
        limiter.reset()
        with pytest.raises(BackendDownError, match=r"is rate limiting us \(too many\); .* in 3600 s"):
            limiter.acquire(1, Ledger())
        clock.now += 3601
        limiter.release(limiter.acquire(1, Ledger()), 1)
        limiter.release(limiter.acquire(1, Ledger()), 1)

    def test_an_answer_that_was_under_way_does_not_end_the_rest(self) -> None:
        limiter = self.make(Clock())
        under_way = limiter.acquire(1, Ledger())
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=7200.0))
        limiter.release(under_way, 1)
        with pytest.raises(BackendDownError):
            limiter.acquire(1, Ledger())

    def test_what_was_dead_for_one_run_is_tried_by_the_next(self) -> None:
        limiter = self.make(Clock())
        limiter.record_failure(refused_connection())
        with pytest.raises(BackendDownError):
            limiter.acquire(1, Ledger())
        limiter.reset()
        limiter.release(limiter.acquire(1, Ledger()), 1)

    def test_many_turned_away_together_are_one_overload(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        permits = [limiter.acquire(1, Ledger()) for _ in range(START)]
        for permit in permits:
            limiter.release(permit, None, too_many())
        assert limiter._paused_until - clock.now == 1
        assert limiter.concurrency.limit == START // 2

    def test_jitter_makes_a_pause_longer_and_never_shorter(self) -> None:
        clock = Clock()
        limiter = RateLimiter("it", Limits(), clock, jitter=lambda: 1.0)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=5.0))
        assert limiter._paused_until - clock.now == 5.5

    def test_requests_and_tokens_a_minute(self) -> None:
        clock = Clock()
        limiter = self.make(clock, rpm=3, tpm=100)
        first = limiter.acquire(90, Ledger())
        _, came = in_thread(lambda: limiter.acquire(20, Ledger()))
        time.sleep(0.3)
        assert came == [], "110 tokens may be taken"
        limiter.release(first, 10)
        eventually(lambda: bool(came))
        assert limiter.acquire(20, Ledger()).waited == 0
        _, fourth = in_thread(lambda: limiter.acquire(1, Ledger()))
        clock.now += 59
        time.sleep(0.3)
        assert fourth == [], "three requests a minute"
        clock.now += 1
        eventually(lambda: bool(fourth))

    @pytest.mark.parametrize("held_by", ["a slot", "a pause", "a minute"])
    def test_a_stop_ends_every_wait(self, held_by: str) -> None:
        limiter = self.make(concurrency=1, **({"rpm": 1} if held_by == "a minute" else {}))
        permit = limiter.acquire(1, Ledger())
        if held_by != "a slot":
            limiter.release(permit, None, too_many(600.0) if held_by == "a pause" else None)
        stopped, other = Ledger(), Ledger()
        waiting = [in_thread(lambda: limiter.acquire(1, stopped)) for _ in range(4)]
        _, going = in_thread(lambda: limiter.acquire(1, other))
        eventually(lambda: len(limiter._queue) == 5)
        stopped.stop("interrupted")
        for thread, came in waiting:
            thread.join(60)
            assert isinstance(came[0], BudgetExceededError)
        assert going == [], "another run's calls wait on"
        other.stop("too")

    def test_death_ends_every_wait(self) -> None:
        limiter = self.make(concurrency=1)
        permit = limiter.acquire(1, Ledger())
        waiting = [in_thread(lambda: limiter.acquire(1, Ledger())) for _ in range(4)]
        eventually(lambda: len(limiter._queue) == 4)
        limiter.release(permit, None, LMAuthError("invalid key"))
        for thread, came in waiting:
            thread.join(60)
            assert isinstance(came[0], BackendDownError)

    def test_a_lone_call_finds_out_whether_a_dead_backend_is_back(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        limiter.record_failure(refused_connection())
        with pytest.raises(BackendDownError):
            limiter.acquire(1, Ledger())
        clock.now += COOL_DOWN
        probe = limiter.acquire(1, Ledger())
        with pytest.raises(BackendDownError):
            limiter.acquire(1, Ledger())
        limiter.release(probe, 1)
        limiter.release(limiter.acquire(1, Ledger()), 1)


class TestStated:
    def test_every_backend_has_a_concurrency(self) -> None:
        stated = {"openai/gpt-4o": Limits(rpm=500), "http://h/v1#m": Limits(concurrency=2)}
        found = {m: limits_for(RoleConfig(model=m), stated) for m in ("openai/gpt-4o", "http://h/v1#m", "local/x")}
        assert found["openai/gpt-4o"] == Limits(concurrency=DEFAULT_CONCURRENCY, rpm=500)
        assert found["http://h/v1#m"] == Limits(concurrency=2)
        assert found["local/x"] == Limits(concurrency=ENGINE.slots)

    def test_they_are_read_from_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "limits.toml"
        path.write_text('["openai/gpt-4o"]\nrpm = 500\ntpm = 30000\n')
        monkeypatch.setenv("MLLM3REC_LIMITS", str(path))
        assert stated_limits() == Backends(local_roles()).limits == {"openai/gpt-4o": Limits(rpm=500, tpm=30000)}
        path.write_text('["openai/gpt-4o"]\nrpm = 0\n')
        with pytest.raises(InputError, match=r"limits.toml: openai/gpt-4o.rpm: .* greater than or equal to 1"):
            stated_limits()

    def test_roles_of_one_model_share_a_rate_limiter_and_so_do_other_mixes(self) -> None:
        roles = local_roles("http://h/v1#m").with_models(mar="http://h/v1#n")
        backends = Backends(roles, limits={})
        one, two, other = (backends.rate_limiter(roles.of(role)) for role in ("mope", "mote", "mar"))
        assert one is two is not other
        mix = backends.with_roles(local_roles("http://h/v1#n"), Ledger())
        assert mix.rate_limiter(mix.roles.mope) is other
        assert mix.ledger is not backends.ledger
        assert backends.with_roles(local_roles("http://h/v1#n")).ledger is backends.ledger

    def test_a_ledger_from_before_waiting_was_recorded_still_loads(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        path.write_text('{"role": "mar", "model": "m", "tokens_in": 3, "seconds": 0.5, "at": 1.0}\n')
        assert next(iter(read_calls(path))) == Call(role="mar", model="m", tokens_in=3, seconds=0.5, at=1.0)


def mixed(servers: Mapping[RoleName, FakeOpenAI]) -> Roles:
    return Roles.model_validate(
        {role: RoleConfig(model=one.model(), adapter="compact") for role, one in servers.items()}
    )


def outcome(backends: Backends, role: RoleName, product: str) -> Exception | None:
    """What a call raised, or None."""
    try:
        backends.ask(role, dspy.Predict(DistillTraits), product=product)
    except Exception as error:
        return error
    return None


PRICES: dict[RoleName, Price] = {
    "mope": Price(input=1.0, output=3.0),
    "mote": Price(input=0.25, output=0.5),
    "mar": Price(input=10.0, output=40.0),
    "judge": Price(input=2.0, output=2.0),
}
TIMES = 24


class TestFourServers:
    """Priced servers, one for each role: MOPE's says when to come back, MOTE's does not, MAR's is slow, one dies."""

    @pytest.fixture
    def servers(self) -> Iterator[dict[RoleName, Misbehaving]]:
        with (
            Misbehaving((Reply("wait", status=429, headers={"Retry-After": "2"}),) * 3) as asking,
            Misbehaving((Reply("no", status=429),) * 5) as refusing,
            Misbehaving(seconds=0.1) as slow,
            Misbehaving(dies_after=TIMES // 2) as dying,
        ):
            yield {"mope": asking, "mote": refusing, "mar": slow, "judge": dying}

    @staticmethod
    def session(
        servers: Mapping[RoleName, Misbehaving], directory: Path
    ) -> tuple[Ledger, dict[RoleName, list[Exception]]]:
        """Ask every role `TIMES` questions from twelve threads, and the dead one another: ledger, what was raised."""
        store = use_response_cache(directory / "calls.sqlite")
        prices = {one.model(): PRICES[role] for role, one in servers.items()}
        limits = {servers["mar"].model(): Limits(concurrency=3), servers["mope"].model(): Limits(rpm=9999, tpm=10**7)}
        ledger = Ledger(directory / "ledger.jsonl")
        backends = Backends(mixed(servers), ledger, PriceTable(dated=datetime.date(2026, 1, 1), models=prices), limits)
        questions = [(role, f"{role} cup {n}") for n in range(TIMES) for role in ROLE_NAMES]
        with ThreadPoolExecutor(12) as pool:
            raised = list(pool.map(lambda question: (question[0], outcome(backends, *question)), questions))
        sent = ledger.total().calls
        down = outcome(backends, "judge", "one more cup")
        assert isinstance(down, BackendDownError)
        assert str(down).startswith(f"{servers['judge'].model()} does not answer (")
        assert ledger.total().calls == sent, "a dead backend's calls are not sent"
        ledger.close()
        store.close()
        errors = {role: [error for name, error in raised if name == role and error] for role in ROLE_NAMES}
        return ledger, errors

    def test_the_ledger_is_theirs_and_nothing_is_paid_twice(
        self, hurried: None, servers: dict[RoleName, Misbehaving], tmp_path: Path
    ) -> None:
        ledger, errors = self.session(servers, tmp_path)
        assert {role: len(found) for role, found in errors.items()} == {
            "mope": 0,
            "mote": 0,
            "mar": 0,
            "judge": TIMES // 2,
        }
        assert {role: one.answered for role, one in servers.items()} == {
            "mope": TIMES,
            "mote": TIMES,
            "mar": TIMES,
            "judge": TIMES // 2,
        }
        for role, usage in ledger.by_role().items():
            one = servers[role]
            assert (usage.tokens_in, usage.tokens_out) == (one.tokens_in, one.tokens_out)
            assert usage.usd == pytest.approx(PRICES[role].usd(one.tokens_in, one.tokens_out), abs=1e-9)
            # Attempts at a server that is gone are calls that were made, and no server has counted them.
            assert usage.calls >= len(one.bodies) if role == "judge" else usage.calls == len(one.bodies)

        assert all(isinstance(error, LMTransportError | BackendDownError) for error in errors["judge"])
        calls = list(read_calls(tmp_path / "ledger.jsonl"))
        failed = {role: sum(call.failed for call in calls if call.role == role) for role in ROLE_NAMES}
        assert (failed["mope"], failed["mote"], failed["mar"]) == (3, 5, 0)
        slow = [call for call in calls if call.role == "mar"]
        assert servers["mar"].most <= 3
        assert min(call.seconds for call in slow) >= 0.1
        assert max(call.waited for call in slow) > 0, "three slots for more threads"
        assert max(call.waited for call in calls if call.role == "mope") > 0.5, "two seconds were asked for"

        served = {role: len(one.bodies) for role, one in servers.items()}
        again, still = self.session(servers, tmp_path)
        assert {role: len(one.bodies) for role, one in servers.items()} == served
        assert {role: len(found) for role, found in still.items()} == {role: len(e) for role, e in errors.items()}
        assert again.total().usd == ledger.total().usd
        assert again.total().cache_hits == 3 * TIMES + TIMES // 2


class TestOneBackend:
    def test_roles_on_one_model_share_its_limit(self) -> None:
        with Misbehaving(seconds=0.02) as server:
            backends = Backends(local_roles(server.model()), limits={server.model(): Limits(concurrency=2)})
            questions = [(role, f"{role} cup {n}") for n in range(6) for role in ROLE_NAMES]
            with ThreadPoolExecutor(12) as pool:
                raised = list(pool.map(lambda question: outcome(backends, *question), questions))
            assert raised == [None] * 24
            assert server.most <= 2

    def test_the_next_call_goes_while_an_answer_is_being_stored(self, server: FakeOpenAI, tmp_path: Path) -> None:
        stored = threading.Event()

        class Slow(ResponseCache):
            def put(self, *arguments: Any, **named: Any) -> None:
                super().put(*arguments, **named)
                stored.wait()

        dspy.cache = store = Slow(tmp_path / "calls.sqlite")
        ledger = Ledger()
        backends = Backends(local_roles(server.model()), ledger, limits={server.model(): Limits(concurrency=1)})
        threads = [in_thread(lambda n=n: outcome(backends, "mote", f"cup {n}"))[0] for n in range(3)]
        eventually(lambda: len(server.bodies) == 3)
        assert ledger.total().calls == 0
        waited = 3 * 0.5
        time.sleep(waited / 3)
        stored.set()
        for thread in threads:
            thread.join()
        assert (ledger.total().calls, ledger.total().tokens_in) == (3, server.tokens_in)
        assert ledger.total().seconds < waited, "what storing takes is not the server's"
        store.close()

    def test_a_server_that_takes_too_long_is_asked_again(self, hurried: None) -> None:
        slow = [Reply(seconds=5)]
        with FakeOpenAI(lambda body: slow.pop() if slow else sensible(body)) as server:
            roles = mixed(dict.fromkeys(ROLE_NAMES, server))
            ledger = Ledger()
            backends = Backends(
                roles.model_copy(update={"mote": roles.mote.model_copy(update={"timeout": 0.2})}), ledger
            )
            assert outcome(backends, "mote", "a cup") is None
            assert (len(server.bodies), ledger.total().calls) == (2, 2)

    def test_a_pause_that_was_asked_for_holds_others_back_and_ends_with_the_run(self) -> None:
        with Misbehaving((Reply("wait", status=429, headers={"Retry-After": "600"}),)) as server:
            ledger = Ledger()
            backends = Backends(local_roles(server.model()), ledger)
            _, first = in_thread(lambda: backends.ask("mote", dspy.Predict(DistillTraits), product="a cup"))
            eventually(lambda: ledger.total().calls == 1)
            second, held = in_thread(lambda: backends.ask("mar", dspy.Predict(DistillTraits), product="a bowl"))
            second.join(0.5)
            assert (first, held) == ([], [])
            ledger.stop("interrupted")
            eventually(lambda: bool(first and held))
            assert {type(one) for one in (*first, *held)} == {BudgetExceededError}
            assert len(server.bodies) == 1

    def test_a_call_that_was_not_sent_takes_nothing_of_the_budget(self, server: FakeOpenAI) -> None:
        ledger = Ledger(budget=Budget(calls=1))
        backends = Backends(local_roles(server.model()), ledger)
        own = backends.rate_limiter(backends.roles.mote)
        own.record_failure(refused_connection())
        for _ in range(3):
            assert isinstance(outcome(backends, "mote", "a cup"), BackendDownError)
        assert (ledger.total().calls, ledger._reserved_calls, server.bodies) == (0, 0, [])

    def test_a_limit_a_minute_that_is_not_known_is_waited_for(self, hurried: None) -> None:
        with Misbehaving((Reply("no", status=429),) * 7) as server:
            assert outcome(Backends(local_roles(server.model())), "mote", "a cup") is None
            assert len(server.bodies) == 8

    def test_one_that_refuses_the_key_is_asked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeOpenAI(lambda body: Reply("invalid key", status=401)) as server, FakeOpenAI() as other:
            roles = local_roles(server.model()).with_models(mar=other.model())
            backends = Backends(roles)
            for product in ("a cup", "a bowl"):
                error = outcome(backends, "mote", product)
                assert isinstance(error, InputError)
                assert "invalid key" in str(error)
            assert len(server.bodies) == 1
            assert outcome(backends, "mar", "a cup") is None
