"""Calls on an event loop keep the rules of calls in threads: budget, limits, retries, one flight, ledger, keys."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMError

from programs.lm.backends import Backends, RefusedTextError, UnparsableError
from programs.lm.circuit_breaker import FAILURES, BackendDownError
from programs.lm.ledger import Budget, Call, Ledger, read_calls
from programs.lm.limits import Limits
from programs.lm.prices import Price
from programs.lm.rate_limiter import Permit
from programs.lm.response_cache import use_response_cache
from programs.lm.role_lm import ATTEMPTS
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.mote import DistillTraits
from tests.support.backends import backends_on, distill, prices_for, rate, roles_on, served
from tests.support.bulk import in_bulk, mapped
from tests.support.failures import too_many
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, replying, sensible

PREDICTOR = dspy.Predict(DistillTraits)


def traits(backends: Backends, product: str, **options: Any) -> list[str]:
    found: list[str] = backends.ask("mote", PREDICTOR, product=product, **options).traits
    return found


def lines(ledger: Ledger) -> list[dict[str, Any]]:
    """What the ledger's file says, without what differs from run to run."""
    assert ledger.path is not None
    calls = [Call.model_validate_json(line) for line in ledger.path.read_text().splitlines()]
    return [call.model_dump(exclude={"id", "at", "seconds", "waited"}) for call in calls]


class TestSameAsInThreads:
    def test_predictions_and_the_lines_of_the_ledger(self, tmp_path: Path) -> None:
        def moody() -> FakeOpenAI:
            left = [Reply("no", status=503)]

            def respond(body: Body) -> Reply:
                if left:
                    return left.pop()
                if "unreadable" in last_user(body):
                    return sensible(body) if body["temperature"] else Reply("not JSON")
                return Reply("no", status=400) if "unwanted" in last_user(body) else sensible(body)

            return FakeOpenAI(respond)

        price = Price(input=1.0, output=2.0)

        def results(ask: Any, ledger: Ledger) -> tuple[list[Any], list[dict[str, Any]]]:
            found = []
            for product in ("a", "unreadable", "unwanted", "a"):
                try:
                    found.append(ask(product))
                except LMError as error:
                    found.append((type(error), str(error).partition("] ")[2]))  # without the server's name
            ledger.close()
            return found, lines(ledger)

        with moody() as server:
            general = backends_on(server, Ledger(tmp_path / "general.jsonl"), prices_for(server, price))
            expected = results(lambda product: traits(general, product), general.ledger)
        use_response_cache(":memory:")
        with moody() as other:
            other_prices = prices_for(other, price)
            with in_bulk(backends_on(other, Ledger(tmp_path / "bulk.jsonl"), other_prices)) as bulk:
                got = results(lambda product: mapped(bulk, lambda p: traits(bulk, p), [product])[0], bulk.ledger)
        assert got[0] == expected[0]
        assert [without(line, "model") for line in got[1]] == [without(line, "model") for line in expected[1]]

    def test_an_answer_without_text_is_paid_once(self) -> None:
        """It is not stored, so that nothing finds it in the response cache."""
        thoughts = {"role": "assistant", "content": "", "reasoning_content": "hm"}
        cut = {"choices": [{"index": 0, "finish_reason": "length", "message": thoughts}], "model": "fake", "id": "x"}

        def respond(body: Body) -> Reply:
            return Reply(raw=json.dumps(cut).encode()) if body["max_tokens"] < 512 else sensible(body)

        caps = []
        for bulk in (False, True):
            use_response_cache(":memory:")
            with FakeOpenAI(respond) as server, in_bulk(backends_on(server, terse=True)) as in_loop:
                for product in "ab":
                    if bulk:
                        mapped(in_loop, lambda name: traits(in_loop, name, enough=60), [product])
                    else:
                        traits(in_loop, product, enough=60)
                caps.append([body["max_tokens"] for body in server.bodies])
        assert caps == [[60, 512, 512]] * 2

    def test_log_probabilities_are_read(self, server: FakeOpenAI) -> None:
        expected = rate(backends_on(server)).logprobs
        use_response_cache(":memory:")
        with in_bulk(backends_on(server)) as bulk:
            assert mapped(bulk, lambda _: rate(bulk).logprobs, [0]) == [expected]

    def test_a_refused_parameter_is_left_out_from_then_on(self) -> None:
        def respond(body: Body) -> Reply:
            return Reply("temperature is not supported", status=400) if "temperature" in body else sensible(body)

        with FakeOpenAI(respond) as server, in_bulk(backends_on(server)) as bulk:
            assert all(mapped(bulk, lambda n: traits(bulk, f"cup {n}"), range(3), ahead=1))
            assert ["temperature" in body for body in server.bodies] == [True, False, False, False]
            assert bulk.left_out("mote") == ("temperature",)

    def test_a_text_that_the_provider_refuses_is_no_failure(self) -> None:
        with (
            replying(Reply("blocked by our content policy", status=400)) as server,
            in_bulk(backends_on(server)) as bulk,
            pytest.raises(RefusedTextError),
        ):
            mapped(bulk, lambda n: traits(bulk, "a cup"), [0])

    def test_two_unreadable_answers(self) -> None:
        with replying(Reply("nothing"), Reply("nothing")) as server, in_bulk(backends_on(server)) as bulk:
            with pytest.raises(UnparsableError, match="2 answers"):
                mapped(bulk, lambda n: traits(bulk, "a cup"), [0])
            assert len(server.bodies) == 2

    @pytest.mark.parametrize(("text", "new", "stored"), [("not JSON", 2, 2), (None, 1, 1)])
    def test_with_retries_a_new_answer_is_not_asked_for_as_if_it_were_stored(
        self, text: str | None, new: int, stored: int
    ) -> None:
        """One that cannot be parsed, and one that can but says nothing; first new, then stored."""

        def tried(backends: Backends) -> None:
            with suppress(UnparsableError):
                backends.ask("mote", PREDICTOR, product="a", accept=lambda _: False)

        sent = []
        for bulk in (False, True):
            use_response_cache(":memory:")
            with FakeOpenAI(lambda body: sensible(body) if text is None else Reply(text)) as server:
                backends = backends_on(server)
                backends.retry_unparsable = True
                with in_bulk(backends) as in_loop:
                    for _ in range(2):
                        if bulk:
                            mapped(in_loop, lambda _: tried(in_loop), [0])
                        else:
                            tried(backends)
                        sent.append(len(server.bodies))
        assert sent == [new, new + stored] * 2

    def test_a_wrong_key_ends_the_work(self) -> None:
        with (
            replying(*[Reply("wrong key", status=401)] * 9) as server,
            in_bulk(backends_on(server)) as bulk,
            pytest.raises(InputError, match="set the environment variable"),
        ):
            mapped(bulk, lambda n: traits(bulk, f"cup {n}"), range(3))


class TestLimits:
    def test_calls_never_exceed_the_budget(self, server: FakeOpenAI) -> None:
        with in_bulk(backends_on(server, Ledger(budget=Budget(calls=5)))) as bulk:
            with pytest.raises(BudgetExceededError, match="budget of 5 calls"):
                mapped(bulk, lambda n: traits(bulk, f"cup {n}"), range(20))
            assert len(server.bodies) == 5

    def test_dollars_are_reserved_and_settled(self, server: FakeOpenAI) -> None:
        ledger = Ledger(budget=Budget(usd=0.01))
        with (
            in_bulk(backends_on(server, ledger, prices_for(server, Price(input=1.0, output=1.0)))) as bulk,
            pytest.raises(BudgetExceededError),
        ):
            mapped(bulk, lambda n: traits(bulk, f"cup {n}"), range(200), ahead=50)
        calls, tokens_in, tokens_out = served(server)
        total = ledger.total()
        assert (total.calls, total.usd) == (calls, pytest.approx((tokens_in + tokens_out) / 1e6))
        assert 0.005 < (total.usd or 0) <= 0.01

    def test_no_more_are_in_flight_than_allowed(self) -> None:
        flying, most, lock = [0], [0], threading.Lock()

        def respond(body: Body) -> Reply:
            with lock:
                flying[0] += 1
                most[0] = max(most[0], flying[0])
            time.sleep(0.01)
            with lock:
                flying[0] -= 1
            return sensible(body)

        with FakeOpenAI(respond) as server:
            backends = Backends(roles_on(server), limits={server.model(): Limits(concurrency=3)})
            with in_bulk(backends) as bulk:
                assert len(mapped(bulk, lambda n: traits(bulk, f"cup {n}"), range(40), ahead=30)) == 40
        assert most[0] == 3

    @pytest.mark.parametrize("in_loop", [False, True])
    @pytest.mark.parametrize("says_usage", [False, True])
    def test_an_answer_that_does_not_say_its_tokens_counts_with_all_that_were_reserved(
        self, in_loop: bool, says_usage: bool
    ) -> None:
        message = {"role": "assistant", "content": json.dumps({"traits": ["keeps tea warm"]})}
        answer = {"id": "x", "model": "fake", "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        usage = {"usage": {"prompt_tokens": 9, "completion_tokens": 9}} if says_usage else {}

        with FakeOpenAI(lambda body: Reply(raw=json.dumps(answer | usage).encode())) as server:
            backends = Backends(roles_on(server), limits={server.model(): Limits(tpm=500)})
            with in_bulk(backends) as bulk:
                found = mapped(bulk, lambda name: traits(bulk, name), "a") if in_loop else [traits(backends, "a")]
        assert found == [["keeps tea warm"]]
        limiter = backends.rate_limiter(backends.roles.mote)
        assert isinstance(limiter.try_acquire(100, limiter.now()), Permit) == says_usage

    @pytest.mark.parametrize("in_loop", [False, True])
    def test_a_call_that_waits_for_its_permit_until_the_minutes_are_over_is_not_sent(
        self, in_loop: bool, server: FakeOpenAI
    ) -> None:
        backends = backends_on(server, Ledger(budget=Budget(minutes=0.5 / 60)))
        limiter = backends.rate_limiter(backends.roles.mote)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=1.0))
        with in_bulk(backends) as bulk, pytest.raises(BudgetExceededError, match="minutes of this session are over"):
            if in_loop:
                mapped(bulk, lambda name: traits(bulk, name), "a")
            else:
                traits(backends, "a")
        assert (server.bodies, backends.ledger._reserved_calls) == ([], 0)

    @pytest.mark.parametrize("in_loop", [False, True])
    def test_the_wait_for_a_permit_uses_up_no_retries(self, in_loop: bool, hurried: None) -> None:
        with replying(Reply("no", status=500)) as server:
            backends = backends_on(server, timeout=0.4)
            limiter = backends.rate_limiter(backends.roles.mote)
            limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=1.0))
            with in_bulk(backends) as bulk:
                found = mapped(bulk, lambda name: traits(bulk, name), "a") if in_loop else [traits(backends, "a")]
            assert found[0] and len(server.bodies) == 2

    @pytest.mark.parametrize("in_loop", [False, True])
    def test_an_answer_that_another_process_has_stored_while_this_one_waited_is_not_paid_again(
        self, in_loop: bool, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        store = use_response_cache(tmp_path / "calls.sqlite")
        first = traits(backends_on(server), "a")
        with sqlite3.connect(tmp_path / "calls.sqlite") as database:
            (stored,) = database.execute("SELECT key, answer FROM answers").fetchall()
            database.execute("DELETE FROM answers")
        backends = backends_on(server, Ledger(budget=Budget(calls=1)))
        limiter = backends.rate_limiter(backends.roles.mote)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=1.0))
        other = threading.Timer(0.3, lambda: store._store.put(stored[:1], stored[1:]))
        other.start()
        with in_bulk(backends) as bulk:
            (found,) = mapped(bulk, lambda name: traits(bulk, name), "a") if in_loop else [traits(backends, "a")]
        other.join()
        assert (found, len(server.bodies)) == (first, 1)
        total = backends.ledger.total()
        assert (total.calls, total.cache_hits, backends.ledger._reserved_calls, limiter._in_flight) == (0, 1, 0, 0)

    def test_a_pause_that_the_server_asks_for_is_kept(self) -> None:
        with replying(Reply("slow down", status=429, headers={"Retry-After": "1"})) as server:
            began = time.monotonic()
            with in_bulk(backends_on(server)) as bulk:
                assert mapped(bulk, lambda n: traits(bulk, f"cup {n}"), range(1))
            assert (time.monotonic() - began >= 1.0, len(server.bodies)) == (True, 2)

    def test_equal_questions_are_sent_once(self) -> None:
        def slow(body: Body) -> Reply:
            reply = sensible(body)
            reply.seconds = 0.05
            return reply

        with FakeOpenAI(slow) as server, in_bulk(backends_on(server)) as bulk:
            found = mapped(bulk, lambda _: traits(bulk, "the same cup"), range(20), ahead=20)
            assert (len(server.bodies), len(set(map(tuple, found)))) == (1, 1)
            assert bulk.ledger.total().cache_hits == 19

    def test_a_dead_backend_opens_the_circuit(self, hurried: None) -> None:
        with FakeOpenAI(lambda body: Reply("down", status=500)) as server:
            with in_bulk(backends_on(server)) as bulk:
                for n in range(FAILURES):
                    with pytest.raises(LMError):
                        mapped(bulk, lambda n: traits(bulk, f"cup {n}"), [n])
                    bulk.ledger._halt.clear()
                    bulk.ledger._stopped = None
                with pytest.raises(BackendDownError):
                    mapped(bulk, lambda n: traits(bulk, f"cup {n}"), [99])
            assert len(server.bodies) == FAILURES * ATTEMPTS


@pytest.mark.parametrize("in_loop", [False, True])
class TestRefusedParameters:
    """A request without a refused parameter is an attempt of its own, for budget, limits and time alike."""

    @staticmethod
    def asked(in_loop: bool, backends: Backends) -> list[str]:
        with in_bulk(backends) as bulk:
            (found,) = mapped(bulk, lambda name: traits(bulk, name), "a") if in_loop else [traits(backends, "a")]
        return found

    @staticmethod
    def refusing(body: Body) -> Reply:
        for name in ("response_format", "temperature"):
            if name in body:
                return Reply(f"{name} is not supported", status=400)
        return sensible(body)

    @pytest.mark.parametrize("calls", [1, 2])
    def test_it_counts_against_the_budget(self, in_loop: bool, calls: int) -> None:
        with FakeOpenAI(self.refusing) as server:
            backends = backends_on(server, Ledger(budget=Budget(calls=calls)))
            with pytest.raises(BudgetExceededError, match=f"budget of {calls} calls"):
                self.asked(in_loop, backends)
            assert len(server.bodies) == backends.ledger.total().calls == calls
            assert backends.ledger._reserved_calls == backends.rate_limiter(backends.roles.mote)._in_flight == 0

    def test_it_has_lines_of_its_own_in_the_ledger_and_a_permit(self, in_loop: bool, tmp_path: Path) -> None:
        with FakeOpenAI(self.refusing) as server:
            ledger = Ledger(tmp_path / "ledger.jsonl", Budget(usd=20.0))
            backends = backends_on(server, ledger, prices_for(server, Price(input=1.0, output=1.0)))
            assert self.asked(in_loop, backends)
            assert len(server.bodies) == 3
            limiter = backends.rate_limiter(backends.roles.mote)
            assert (ledger._reserved_calls, ledger._reserved_usd, limiter._in_flight) == (0, 0.0, 0)
        calls = list(read_calls(tmp_path / "ledger.jsonl"))
        assert [(call.failed, call.usd is None) for call in calls] == [(True, True)] * 2 + [(False, False)]
        assert len({call.id for call in calls}) == 3

    def test_none_is_sent_after_the_end_was_announced(self, in_loop: bool) -> None:
        ledger = Ledger()

        def respond(body: Body) -> Reply:
            ledger.stop("interrupted")
            return self.refusing(body)

        with FakeOpenAI(respond) as server:
            with pytest.raises(BudgetExceededError, match="interrupted"):
                self.asked(in_loop, backends_on(server, ledger))
            assert len(server.bodies) == 1

    def test_requests_per_minute_count_each(self, in_loop: bool) -> None:
        with FakeOpenAI(self.refusing) as server:
            backends = Backends(roles_on(server), limits={server.model(): Limits(rpm=2)})
            timer = threading.Timer(0.7, backends.ledger.stop, ("interrupted",))
            timer.start()
            with pytest.raises(BudgetExceededError, match="interrupted"):
                self.asked(in_loop, backends)
            assert len(server.bodies) == 2
            timer.join()

    def test_the_call_ends_after_twice_the_timeout(self, in_loop: bool) -> None:
        def respond(body: Body) -> Reply:
            return replace(Reply("max_tokens is too large", status=400), seconds=0.3)

        with FakeOpenAI(respond) as server:
            backends = backends_on(server, timeout=0.5)
            with pytest.raises(LMError, match="max_tokens"):
                self.asked(in_loop, backends)
            assert 2 <= len(server.bodies) <= 4, "of 512, 256, 128, 64, 32 and 16"
            assert backends.ledger._reserved_calls == 0


class TestTransport:
    def test_redirects_are_not_followed_and_keys_stay_out_of_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeOpenAI() as target, FakeOpenAI() as server:
            server.respond = lambda body: Reply(
                "sk-canary-1234", status=307, headers={"Location": target.url + "?secret"}
            )
            monkeypatch.setenv("MLLM3REC_KEY_127_0_0_1_" + server.url.split(":")[2].split("/")[0], "sk-canary-1234")
            with in_bulk(backends_on(server)) as bulk, pytest.raises(LMError, match="never followed") as caught:
                mapped(bulk, lambda n: traits(bulk, "a cup"), [0])
            assert not target.bodies
            assert server.keys == ["Bearer sk-canary-1234"]
        assert "canary" not in str(caught.value) and "secret" not in str(caught.value)

    def test_a_server_that_repeats_the_key_does_not_get_it_into_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with replying(*[Reply("no: sk-canary-1234", status=422)] * 3) as server:
            monkeypatch.setenv("MLLM3REC_KEY_127_0_0_1_" + server.url.split(":")[2].split("/")[0], "sk-canary-1234")
            with in_bulk(backends_on(server)) as bulk, pytest.raises(LMError) as caught:
                mapped(bulk, lambda n: traits(bulk, "a cup"), [0])
        assert "[key]" in str(caught.value) and "canary" not in repr(caught.value.__cause__)

    def test_the_deadline_is_that_of_the_whole_call(self, hurried: None) -> None:
        def trickle(connection: Any) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(40):
                connection.sendall(b" ")
                time.sleep(0.05)

        with FakeOpenAI(lambda body: Reply(wire=trickle)) as server, in_bulk(backends_on(server, timeout=0.3)) as bulk:
            began = time.monotonic()
            with pytest.raises(LMError, match=r"no complete answer within 0\.3 s"):
                mapped(bulk, lambda n: traits(bulk, "a cup"), [0])
            assert time.monotonic() - began < 3

    def test_an_answer_that_is_too_large(self, hurried: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("programs.bulk.client.MOST_BYTES", 1000)
        with (
            FakeOpenAI(lambda body: Reply("x" * 2000)) as server,
            in_bulk(backends_on(server)) as bulk,
            pytest.raises(LMError, match="larger than"),
        ):
            mapped(bulk, lambda n: traits(bulk, "a cup"), [0])

    def test_an_error_with_status_200_is_a_failure(self, hurried: None) -> None:
        raw = json.dumps({"error": {"message": "Unexpected endpoint"}}).encode()
        with (
            replying(*[Reply(raw=raw)] * ATTEMPTS) as server,
            in_bulk(backends_on(server)) as bulk,
            pytest.raises(LMError, match="Unexpected endpoint"),
        ):
            mapped(bulk, lambda n: traits(bulk, "a cup"), [0])


class TestStop:
    def test_a_stopped_ledger_ends_calls_that_wait(self) -> None:
        with (
            FakeOpenAI(lambda body: Reply("slow down", status=429, headers={"Retry-After": "300"})) as server,
            in_bulk(backends_on(server)) as bulk,
        ):
            threading.Timer(0.3, bulk.ledger.stop, ["enough"]).start()
            began = time.monotonic()
            with pytest.raises(BudgetExceededError, match="enough"):
                mapped(bulk, lambda n: traits(bulk, f"cup {n}"), range(4))
            assert time.monotonic() - began < 5

    def test_what_was_in_flight_is_in_the_ledger_at_its_worst(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        with (
            FakeOpenAI(lambda body: Reply("", wire=lambda connection: time.sleep(2))) as server,
            in_bulk(backends_on(server, Ledger(path), timeout=0.5)) as bulk,
            pytest.raises(BudgetExceededError),
        ):
            threading.Timer(0.2, bulk.ledger.stop, ["enough"]).start()
            mapped(bulk, lambda n: traits(bulk, "a cup"), [0])
        calls = list(read_calls(path))
        assert [call.failed for call in calls] == [True]


def without(line: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != name}


def test_the_general_path_answers_outside_the_loop(server: FakeOpenAI) -> None:
    with in_bulk(backends_on(server)) as bulk:
        assert distill(bulk).traits
        assert last_user(server.bodies[0])
