"""The ledger: it agrees with the server, comes back from its file, and stops at the budget."""

from __future__ import annotations

import copy
import datetime
import json
import pickle
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import dspy
import pytest
from dspy.utils.exceptions import LMTransportError

from evaluate.runs.session import ledger_within
from programs.default_demos import TRAITS
from programs.lm.backends import Backends
from programs.lm.circuit_breaker import BackendDownError
from programs.lm.ledger import Budget, Call, Ledger, by_role, read_calls
from programs.lm.logprobs import expected_label
from programs.lm.model_options import ModelOptions
from programs.lm.prices import Price, PriceTable
from programs.lm.roles import ROLE_NAMES, RoleConfig, Roles
from programs.role_predictor import RolePredictor
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.mote import DistillTraits
from signatures.rows import Usage
from tests.support.backends import backends_on, distill, paid, prices_for, rate, roles_on, served
from tests.support.fake_server import Body, FakeOpenAI, Reply, replying, sensible
from tests.support.flaky_server import FlakyOpenAI
from tests.support.threads import in_threads

CANARY = "sk-canary-7f3a91"
LABELS = ("1", "2", "3", "4", "5")


class TestLedger:
    def test_it_agrees_with_the_server_under_eight_threads(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        assert in_threads(lambda n: distill(backends, f"cup {n} " * (n + 1)), 24) == [None] * 24
        assert in_threads(lambda n: rate(backends, f"cup {n}"), 16) == [None] * 16
        assert server.tokens_in > 0
        assert paid(backends.ledger.total()) == served(server)
        by_role = backends.ledger.by_role()
        assert {role: usage.calls for role, usage in by_role.items()} == {"mote": 24, "mar": 16}
        assert sum(usage.tokens_in for usage in by_role.values()) == server.tokens_in

    def test_calls_are_recorded_where_dspy_keeps_no_history(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        with dspy.context(disable_history=True):
            assert distill(backends).traits and distill(backends).traits
        assert paid(backends.ledger.total()) == served(server)
        assert backends.ledger.total().cache_hits == 1

    def test_copies_of_a_program_write_to_the_same_ledger(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        program = RolePredictor(DistillTraits, "mote", backends, 104, TRAITS)
        programs = [program, program.deepcopy(), program.reset_copy(), program.deepcopy().reset_copy()]
        assert [len(each.predict.demos) for each in programs] == [4, 4, 0, 0]
        for number, each in enumerate(programs):
            assert each(product=f"cup {number}").traits
        assert paid(backends.ledger.total()) == served(server)
        assert len(server.bodies) == 4

    def test_clients_and_ledgers_are_never_copied(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        for one in (backends, backends.ledger, backends.lm("mote")):
            assert copy.deepcopy(one) is one

    def test_a_second_identical_run_pays_nothing(self, server: FakeOpenAI) -> None:
        first, second = backends_on(server), backends_on(server)
        answers = [[rate(backends, f"cup {n}").rating for n in range(5)] for backends in (first, second)]
        assert answers[0] == answers[1]
        assert paid(first.ledger.total()) == served(server)
        assert second.ledger.total() == Usage(cache_hits=5)

    def test_answers_that_cannot_be_parsed_are_paid_for_as_well(self) -> None:
        with replying(Reply("no list here")) as server:
            backends = backends_on(server)
            assert distill(backends).unparsable == 1
            assert len(server.bodies) == 2
            assert paid(backends.ledger.total()) == served(server)

    def test_usage_of_case_sums_the_block_alone_in_its_own_thread(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        distill(backends, "before")
        charged = {}

        def one_case(n: int) -> None:
            with backends.ledger.usage_of_case() as usage:
                for part in range(n + 1):
                    distill(backends, f"cup {n} {part}")
            charged[n] = usage

        assert in_threads(one_case, 4) == [None] * 4
        assert {n: usage.calls for n, usage in charged.items()} == {0: 1, 1: 2, 2: 3, 3: 4}
        assert sum(usage.tokens_in for usage in charged.values()) < server.tokens_in
        assert backends.ledger.total().calls == 11

    def test_pricing_counts_stored_answers_and_what_a_block_inside_it_counts(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        distill(backends, "a cup")
        with backends.ledger.standalone_usage() as outer:
            rate(backends)
            with backends.ledger.standalone_usage() as inner:
                distill(backends, "a cup")
        assert {role: usage.calls for role, usage in inner.items()} == {"mote": 1}
        assert {role: usage.calls for role, usage in outer.items()} == {"mote": 1, "mar": 1}
        assert backends.ledger.by_role()["mote"].calls == 1

    def test_a_file_brings_the_sums_back(self, server: FakeOpenAI, tmp_path: Path) -> None:
        path = tmp_path / "run" / "ledger.jsonl"
        price = Price(input=2.0, output=8.0)
        ledger = Ledger(path)
        backends = Backends(roles_on(server), ledger, prices_for(server, price))
        for product in ("a cup", "a bowl", "a cup"):
            distill(backends, product)
        rate(backends)
        ledger.close()
        again = Ledger(path)
        assert again.by_role() == ledger.by_role()
        total = again.total()
        assert (paid(total), total.cache_hits) == (served(server), 1)
        assert total.usd == pytest.approx(price.usd(server.tokens_in, server.tokens_out))

    def test_what_was_paid_is_in_the_file_at_once_and_what_was_stored_when_its_case_ends(
        self, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        path = tmp_path / "ledger.jsonl"
        backends = backends_on(server, Ledger(path))

        def written() -> list[bool]:
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            return [line.get("hit", False) for line in lines if not line.get("in_flight")]

        distill(backends)
        distill(backends)
        assert written() == [False, True]
        with backends.ledger.usage_of_case():
            distill(backends)
            distill(backends)
        assert written() == [False, True, True, True]

    def test_a_torn_last_line_is_cut_off(self, server: FakeOpenAI, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        ledger = Ledger(path)
        distill(backends_on(server, ledger))
        ledger.close()
        whole = path.read_bytes()
        path.write_bytes(whole + whole[: len(whole) // 2])
        again = Ledger(path)
        assert again.total() == ledger.total()
        distill(backends_on(server, again), "a bowl")
        again.close()
        assert [call.role for call in read_calls(path)] == ["mote", "mote"]
        assert paid(Ledger(path).total()) == served(server)

    def test_one_slow_question_of_eight_threads_is_asked_once(self) -> None:
        def slow(body: Body) -> Reply:
            reply = sensible(body)
            reply.seconds = 0.3
            return reply

        with FakeOpenAI(slow) as server:
            backends = backends_on(server)
            together = threading.Barrier(8)
            traits: list[list[str]] = []

            def ask(_: int) -> None:
                together.wait()
                traits.append(distill(backends).traits)

            assert in_threads(ask, 8) == [None] * 8
            assert len(server.bodies) == 1
        assert len(traits) == 8
        assert all(answer == traits[0] for answer in traits)
        total = backends.ledger.total()
        assert (total.calls, total.cache_hits) == (1, 7)

    def test_samples_with_rollout_ids_of_their_own_are_drawn_anew(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        for _ in range(2):
            for rollout in range(3):
                distill(backends, rollout=rollout)
        assert len(server.bodies) == 3
        assert (backends.ledger.total().calls, backends.ledger.total().cache_hits) == (3, 3)
        assert all("rollout_id" not in body for body in server.bodies)


def kept(path: Path, lines: int) -> Path:
    """A copy of the first lines of a ledger: what a process leaves that is killed after them."""
    copied = path.with_name(f"first{lines}.jsonl")
    copied.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:lines]), "utf-8")
    return copied


class TestInFlight:
    PRICE = Price(input=2.0, output=8.0)

    @pytest.fixture
    def path(self, server: FakeOpenAI, tmp_path: Path) -> Path:
        """The ledger of two calls, four lines."""
        ledger = Ledger(tmp_path / "ledger.jsonl")
        backends = Backends(roles_on(server), ledger, prices_for(server, self.PRICE))
        for product in ("a cup", "a bowl"):
            distill(backends, product)
        ledger.close()
        return tmp_path / "ledger.jsonl"

    def test_the_line_before_a_call_is_there_while_it_is_under_way_and_bounds_it(self, tmp_path: Path) -> None:
        path, seen = tmp_path / "ledger.jsonl", []

        def look(body: Body) -> Reply:
            seen.extend(read_calls(path))
            return sensible(body)

        with FakeOpenAI(look) as server:
            ledger = Ledger(path)
            distill(Backends(roles_on(server), ledger, prices_for(server, self.PRICE)))
        (before,), (after,) = seen, read_calls(path)
        assert (before.in_flight, after.in_flight) == (True, False)
        assert before.id == after.id != ""
        assert (before.role, before.model, before.about) == (after.role, after.model, after.about)
        assert before.tokens_in >= after.tokens_in > 0
        assert before.tokens_out >= after.tokens_out > 0
        assert (before.usd or 0.0) >= (after.usd or 0.0) > 0

    @pytest.mark.parametrize("adapter", ["json", "compact"])
    def test_the_upper_estimate_counts_the_output_schema(
        self, adapter: str, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        ledger = Ledger(tmp_path / "ledger.jsonl")
        distill(backends_on(server, ledger, adapter=adapter))
        ledger.close()
        sent = Call.model_validate_json((tmp_path / "ledger.jsonl").read_text().splitlines()[0])
        (body,) = server.bodies
        assert "schema" in body["response_format"]["json_schema"]
        # Half a token for each letter, see `RoleLM`.
        assert sent.tokens_in >= (len(json.dumps(body["messages"])) + len(json.dumps(body["response_format"]))) // 2

    def test_an_answered_call_counts_once_and_one_in_flight_at_its_upper_estimate(self, path: Path) -> None:
        first, second = read_calls(path)
        upper = list(read_calls(kept(path, 3)))[-1]
        total = Ledger(kept(path, 3)).total()
        assert (total.calls, total.interrupted) == (2, 1)
        assert total.tokens_in == first.tokens_in + upper.tokens_in > first.tokens_in + second.tokens_in
        assert total.usd == pytest.approx((first.usd or 0.0) + (upper.usd or 0.0))
        whole = Ledger(path).total()
        assert (whole.calls, whole.interrupted) == (2, 0)
        assert whole.usd == pytest.approx((first.usd or 0.0) + (second.usd or 0.0))
        assert by_role(read_calls(path))["mote"] == whole

    def test_budgets_count_what_was_in_flight(self, path: Path, server: FakeOpenAI) -> None:
        prices = prices_for(server, self.PRICE)
        for budget in (Budget(calls=2), Budget(usd=Ledger(kept(path, 3)).total().usd)):
            with pytest.raises(BudgetExceededError):
                distill(Backends(roles_on(server), Ledger(kept(path, 3), budget), prices), "a plate")
        assert len(server.bodies) == 2

    def test_a_usage_without_interruptions_is_written_as_before(self) -> None:
        assert "interrupted" not in Usage(calls=1).model_dump()
        assert Usage.model_validate_json(Usage(calls=1, interrupted=1).model_dump_json()).interrupted == 1

    def test_what_the_server_refused_is_free_and_what_it_did_not_end_may_not_be(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        hung_up = Reply(raw=b"", headers={"Content-Length": "5"})
        with replying(Reply("no", status=400), hung_up) as server:
            backends = Backends(roles_on(server), Ledger(path), prices_for(server, self.PRICE))
            for _ in range(2):
                with suppress(Exception):
                    distill(backends)
        calls = list(read_calls(path))
        assert [call.failed for call in calls][:2] == [True, True]
        assert calls[0].usd is None
        assert (calls[1].usd or 0.0) > 0
        assert not any(call.in_flight for call in calls)

    def test_a_refused_connection_is_free(self, tmp_path: Path, hurried: None) -> None:
        path = tmp_path / "ledger.jsonl"
        with FlakyOpenAI(dies_after=1) as server:
            backends = Backends(roles_on(server), Ledger(path), prices_for(server, self.PRICE))
            distill(backends)
            for _ in range(2):  # it hangs up, and then nobody is there
                with pytest.raises((LMTransportError, BackendDownError)):
                    distill(backends, "a bowl")
        last = list(read_calls(path))[-1]
        assert (last.failed, last.usd, last.in_flight) == (True, None, False)

    def test_ids_differ_between_sessions(self, path: Path) -> None:
        for _ in range(2):
            ledger = Ledger(path)
            ledger.record_sent(Call(role="mar", model="m", in_flight=True))
            ledger.close()
        assert Ledger(path).total().interrupted == 2


class TestBudget:
    def test_of_calls(self, server: FakeOpenAI) -> None:
        backends = backends_on(server, Ledger(budget=Budget(calls=3)))
        for n in range(3):
            distill(backends, f"cup {n}")
        with pytest.raises(BudgetExceededError, match="budget of 3 calls"):
            distill(backends, "one cup too many")
        assert distill(backends, "cup 0").traits, "kept answers are free"
        assert len(server.bodies) == 3

    def test_of_calls_in_threads(self, server: FakeOpenAI) -> None:
        backends = backends_on(server, Ledger(budget=Budget(calls=5)))
        raised = in_threads(lambda n: distill(backends, f"cup {n}"), 24)
        assert {type(error) for error in raised} == {type(None), BudgetExceededError}
        assert 1 <= len(server.bodies) <= 5
        assert paid(backends.ledger.total()) == served(server)

    def test_of_dollars_in_threads(self) -> None:
        def long_and_slow(body: Body) -> Reply:
            # Every answer is as long as it may be, and all threads are under way before the first one is paid.
            return Reply(sensible(body).content.ljust(4 * 320), seconds=0.1)

        price = Price(input=1.0, output=2000.0)  # an answer of 320 tokens is $0.64
        ledger = Ledger(budget=Budget(usd=2.0))
        with FakeOpenAI(long_and_slow) as server:
            backends = Backends(roles_on(server), ledger, prices_for(server, price))
            raised = in_threads(lambda n: distill(backends, f"cup {n}"), 24)
        assert {type(error) for error in raised} == {type(None), BudgetExceededError}
        spent = price.usd(server.tokens_in, server.tokens_out)
        assert 0.64 < spent <= 2.0
        assert ledger.total().usd == pytest.approx(spent)

    def test_of_dollars_reckons_with_a_token_a_byte_where_letters_are_not_latin(self, server: FakeOpenAI) -> None:
        price, product = Price(input=1.0, output=0.0), 500 * "\u10d0"  # a Georgian letter has three bytes
        spare = Backends(roles_on(server), prices=prices_for(server, price))
        with spare.ledger.standalone_usage() as spent:
            distill(spare, 500 * "a")
        latin = spent["mote"].tokens_in * 4 / 2 / 1e6
        for usd, sent in ((latin + 1000 / 1e6, 1), (latin + 3000 / 1e6, 2)):
            backends = Backends(roles_on(server), Ledger(budget=Budget(usd=usd)), prices_for(server, price))
            with suppress(BudgetExceededError):
                distill(backends, product)
            assert len(server.bodies) == sent

    def test_of_dollars_stops_before_the_call_that_might_pass_it(self, server: FakeOpenAI) -> None:
        backends = Backends(
            roles_on(server), Ledger(budget=Budget(usd=0.01)), prices_for(server, Price(input=1000.0, output=2000.0))
        )
        with pytest.raises(BudgetExceededError, match=r"\$0.0000 of \$0.0100 spent"):
            distill(backends)
        assert server.bodies == []

    def test_a_failed_call_counts_because_it_was_sent(self) -> None:
        with replying(Reply("no", status=400)) as server:
            backends = backends_on(server, Ledger(budget=Budget(calls=2)))
            with pytest.raises(Exception, match="no") as error:
                distill(backends)
            assert not isinstance(error.value, BudgetExceededError)
            assert distill(backends).traits
            assert backends.ledger.total().calls == 2
            with pytest.raises(BudgetExceededError):
                distill(backends, "a bowl")
            assert len(server.bodies) == 2

    def test_retries_stop_at_the_budget(self) -> None:
        with FakeOpenAI(lambda body: Reply("busy", status=503, headers={"Retry-After": "0"})) as server:
            with pytest.raises(BudgetExceededError):
                distill(backends_on(server, Ledger(budget=Budget(calls=2))))
            assert len(server.bodies) == 2

    def test_a_stop_ends_the_wait_between_attempts(self) -> None:
        with FakeOpenAI(lambda body: Reply("busy", status=429, headers={"Retry-After": "600"})) as server:
            backends = backends_on(server)
            threading.Timer(0.5, backends.ledger.stop, ["interrupted"]).start()
            with pytest.raises(BudgetExceededError, match="interrupted"):
                distill(backends)
            assert len(server.bodies) == 1

    def test_a_model_behind_a_gateway_is_recorded_and_stored_alike(
        self, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An OPENAI_BASE_URL makes DSPy take LiteLLM, whose answers are objects of its own."""
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        backends = Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, RoleConfig(model="openai/gpt-4o"))))
        first, again = rate(backends), rate(backends)
        assert expected_label(first.logprobs, LABELS) == expected_label(again.logprobs, LABELS) is not None
        total = backends.ledger.total()
        assert (total.calls, total.cache_hits, len(server.bodies)) == (1, 1, 1)
        assert (total.tokens_in, total.tokens_out) == (server.tokens_in, server.tokens_out)

    def test_a_resumed_run_keeps_to_the_same_budget(self, server: FakeOpenAI, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        ledger = Ledger(path)
        distill(backends_on(server, ledger))
        ledger.close()
        with pytest.raises(BudgetExceededError):
            distill(backends_on(server, Ledger(path, Budget(calls=1))), "a bowl")
        assert len(server.bodies) == 1

    def test_minutes_are_those_of_all_runs_together(self, tmp_path: Path) -> None:
        budget = Budget(minutes=0.001)
        ledger_within(tmp_path, tmp_path / "first" / "ledger.jsonl", budget).reserve(None)
        time.sleep(0.1)
        copies = [budget, budget.model_copy(update={"calls": 5}), Ledger(None, budget).left(), copy.deepcopy(budget)]
        sent = [budget.to_send(), pickle.loads(pickle.dumps(budget))]  # noqa: S301
        for own in (*copies, *sent):
            with pytest.raises(BudgetExceededError, match="minutes of this session are over"):
                ledger_within(tmp_path, tmp_path / "second" / "ledger.jsonl", own).reserve(None)

    def test_another_process_gets_the_minutes_that_are_left(self) -> None:
        budget = Budget(minutes=1, calls=10)
        time.sleep(0.06)
        for sent in (budget.to_send(), pickle.loads(pickle.dumps(budget))):  # noqa: S301
            assert 0.9 < (sent.minutes or 0) <= 0.999
        read = Budget.model_validate_json(budget.to_send().model_dump_json())
        assert (read.calls, read.over) == (10, False)

    def test_stop_lets_no_further_call_be_made(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        distill(backends)
        backends.ledger.stop("interrupted")
        with pytest.raises(BudgetExceededError, match="interrupted"):
            distill(backends, "a bowl")
        assert distill(backends).traits
        assert len(server.bodies) == 1

    def test_of_dollars_is_refused_for_a_model_without_a_price(self, server: FakeOpenAI) -> None:
        with pytest.raises(InputError, match="fake' has no known price"):
            backends_on(server, Ledger(budget=Budget(usd=1.0)))

    @pytest.mark.parametrize(
        "forged", ['"usd":-1e6', '"usd":NaN', '"usd":"-Infinity"', '"tokens_out":-5', '"most_usd":-7']
    )
    def test_a_forged_line_is_no_credit(self, forged: str, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        path.write_text(f'{{"role":"mar","model":"x",{forged}}}\n')
        with pytest.raises(InputError, match=f"{path}:1: not a ledger line"):
            Ledger(path, Budget(usd=1.0))

    def test_of_dollars_is_refused_for_a_given_model_whose_answers_nothing_limits(self, server: FakeOpenAI) -> None:
        price = PriceTable(dated=datetime.date(2026, 1, 1), models={"openai/m": Price(input=1.0, output=1000.0)})
        for limit, refused in (({}, True), ({"max_tokens": 50}, False)):
            options = ModelOptions(model=dspy.LM("openai/m", api_base=server.url, api_key="k", **limit))
            with pytest.raises(InputError, match="nothing limits the answers") if refused else nullcontext():
                Backends(options.roles(), Ledger(budget=Budget(usd=1.0)), price, given=options.given)

    def test_spent_is_no_exception_that_an_evaluator_could_swallow(self) -> None:
        assert not issubclass(BudgetExceededError, Exception)
