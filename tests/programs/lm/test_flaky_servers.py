"""Real servers that reject calls, are slow or die, asked through the whole stack."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMTransportError

from programs.lm.backends import Backends
from programs.lm.circuit_breaker import BackendDownError
from programs.lm.ledger import Budget, Ledger, read_calls
from programs.lm.limits import Limits
from programs.lm.prices import Price, PriceTable
from programs.lm.response_cache import ResponseCache, use_response_cache
from programs.lm.roles import ROLE_NAMES, RoleConfig, RoleName, Roles, local_roles
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.mote import DistillTraits
from tests.support.failures import refused_connection
from tests.support.fake_server import FakeOpenAI, Reply, sensible
from tests.support.flaky_server import FlakyOpenAI
from tests.support.threads import eventually, in_thread


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
    def servers(self) -> Iterator[dict[RoleName, FlakyOpenAI]]:
        with (
            FlakyOpenAI((Reply("wait", status=429, headers={"Retry-After": "2"}),) * 3) as asking,
            FlakyOpenAI((Reply("no", status=429),) * 5) as refusing,
            FlakyOpenAI(seconds=0.1) as slow,
            FlakyOpenAI(dies_after=TIMES // 2) as dying,
        ):
            yield {"mope": asking, "mote": refusing, "mar": slow, "judge": dying}

    @staticmethod
    def session(
        servers: Mapping[RoleName, FlakyOpenAI], directory: Path
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
        # Known to be dead since it died, or found dead when the session first needed it.
        expected = "{} does not answer (" if isinstance(down, BackendDownError) else "model {}: no server listens there"
        assert str(down).startswith(expected.format(servers["judge"].model()))
        assert ledger.total().calls == sent, "a dead backend's calls are not sent"
        ledger.close()
        store.close()
        errors = {role: [error for name, error in raised if name == role and error] for role in ROLE_NAMES}
        return ledger, errors

    def test_the_ledger_is_theirs_and_nothing_is_paid_twice(
        self, hurried: None, servers: dict[RoleName, FlakyOpenAI], tmp_path: Path
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
        calls = list(read_calls(tmp_path / "ledger.jsonl"))
        for role, usage in ledger.by_role().items():
            one = servers[role]
            assert (usage.tokens_in, usage.tokens_out) == (one.tokens_in, one.tokens_out)
            doubtful = sum(call.usd or 0.0 for call in calls if call.role == role and call.failed)
            assert (doubtful > 0) == (role == "judge"), "it hung up, and may have billed what it did not answer"
            assert usage.usd == pytest.approx(PRICES[role].usd(one.tokens_in, one.tokens_out) + doubtful, abs=1e-9)
            # Attempts at a server that is gone are calls that were made, and no server has counted them.
            assert usage.calls >= len(one.bodies) if role == "judge" else usage.calls == len(one.bodies)

        assert all(isinstance(error, LMTransportError | BackendDownError) for error in errors["judge"])
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
        with FlakyOpenAI(seconds=0.02) as server:
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
        with FlakyOpenAI((Reply("wait", status=429, headers={"Retry-After": "600"}),)) as server:
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
        assert (ledger.total().calls, server.bodies) == (0, [])
        own.reset()
        assert outcome(backends, "mote", "a cup") is None, "the one call of the budget is still there"
        assert len(server.bodies) == 1

    def test_a_limit_a_minute_that_is_not_known_is_waited_for(self, hurried: None) -> None:
        with FlakyOpenAI((Reply("no", status=429),) * 7) as server:
            assert outcome(Backends(local_roles(server.model())), "mote", "a cup") is None
            assert len(server.bodies) == 8

    def test_one_that_refuses_the_key_is_asked_once(self) -> None:
        with FakeOpenAI(lambda body: Reply("invalid key", status=401)) as server, FakeOpenAI() as other:
            roles = local_roles(server.model()).with_models(mar=other.model())
            backends = Backends(roles)
            for product in ("a cup", "a bowl"):
                error = outcome(backends, "mote", product)
                assert isinstance(error, InputError)
                assert "invalid key" in str(error)
            assert len(server.bodies) == 1
            assert outcome(backends, "mar", "a cup") is None
