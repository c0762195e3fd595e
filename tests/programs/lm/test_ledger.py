"""The layer every question passes: the ledger agrees with the server, nothing is paid twice, no key leaks."""

from __future__ import annotations

import copy
import datetime
import json
import math
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import example, given
from hypothesis import strategies as st

from programs.default_demos import RATINGS, TRAITS
from programs.lm.adapters import (
    AdapterName,
    CachedParseAdapter,
    CompactAdapter,
    PlainAdapter,
    RatingAdapter,
    StrictAdapter,
    complete_elements,
)
from programs.lm.backends import Backends, UnparsableError
from programs.lm.ledger import Budget, Ledger
from programs.lm.logprobs import expected_label
from programs.lm.prices import Price, PriceTable
from programs.lm.prompt_cache import CachedPromptAdapter
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import ROLE_NAMES, RoleConfig, Roles, local_roles
from programs.role_predictor import RolePredictor
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.mar import rank_candidates, score_candidate
from signatures.mope import infer_motivations
from signatures.mote import DistillTraits
from signatures.rows import Usage
from signatures.schema import CONSUMER
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, sensible

CANARY = "sk-canary-7f3a91"
LABELS = ("1", "2", "3", "4", "5")


def roles_for(server: FakeOpenAI, adapter: AdapterName = "compact", **settings: Any) -> Roles:
    config = RoleConfig(model=server.model(), adapter=adapter, max_tokens=320, **settings)
    return Roles.model_validate(dict.fromkeys(ROLE_NAMES, config))


def backends_for(server: FakeOpenAI, ledger: Ledger | None = None, **settings: Any) -> Backends:
    return Backends(roles_for(server, **settings), ledger)


def prices_for(server: FakeOpenAI, price: Price) -> PriceTable:
    return PriceTable(dated=datetime.date(2026, 1, 1), models={server.model(): price})


def distill(backends: Backends, product: str = "a cup", **options: Any) -> dspy.Prediction:
    return backends.ask("mote", dspy.Predict(DistillTraits), product=product, **options)


def rate(backends: Backends, product: str = "a cup") -> dspy.Prediction:
    return backends.ask("mar", dspy.Predict(score_candidate("profile", "traits")), shopper="- value", product=product)


def served(server: FakeOpenAI) -> tuple[int, int, int]:
    return len(server.bodies), server.tokens_in, server.tokens_out


def paid(usage: Usage) -> tuple[int, int, int]:
    return usage.calls, usage.tokens_in, usage.tokens_out


def in_threads(work: Callable[[int], Any], times: int, threads: int = 8) -> list[BaseException | None]:
    """What each of `times` calls raised, or None."""
    with ThreadPoolExecutor(threads) as pool:
        return [future.exception() for future in [pool.submit(work, n) for n in range(times)]]


@contextmanager
def answering(*replies: Reply) -> Iterator[FakeOpenAI]:
    """A server that sends these replies first and answers sensibly from then on."""
    left = list(replies)
    with FakeOpenAI(lambda body: left.pop(0) if left else sensible(body)) as server:
        yield server


class TestRatingAdapter:
    signature = score_candidate("profile", "traits")

    @pytest.mark.parametrize("text", ["4", " 4", "4.", "**4**", "4\n", '"4"', "`4`", "4 of 5", "4 - it lasts"])
    def test_a_digit_is_read_however_it_is_dressed(self, text: str) -> None:
        assert RatingAdapter().parse(self.signature, text) == {"rating": "4"}

    @pytest.mark.parametrize("text", ["", " ", "0", "6", "45", "four", "-4", "Rating: 4", "4/5", "**", "٤"])
    def test_anything_else_is_no_rating(self, text: str) -> None:
        with pytest.raises(AdapterParseError):
            RatingAdapter().parse(self.signature, text)

    @given(st.one_of(st.text(), st.text("12345. *`\"'\n", max_size=6)))
    @example("\x00")
    @example("{}")
    def test_any_text_is_a_rating_or_a_parse_error(self, text: str) -> None:
        try:
            parsed = RatingAdapter().parse(self.signature, text)
        except AdapterParseError:
            return
        assert set(parsed) == {"rating"}
        assert parsed["rating"] in LABELS

    def test_a_rating_is_a_bare_label_of_few_tokens_whatever_the_role_s_adapter(self, server: FakeOpenAI) -> None:
        rate(backends_for(server, adapter="json"))
        (body,) = server.bodies
        assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (4, True, 20)
        assert "response_format" not in body
        assert last_user(body).endswith("Rating:")

    def test_no_probabilities_are_asked_for_where_the_role_says_so(self, server: FakeOpenAI) -> None:
        rate(backends_for(server, logprobs=False))
        assert not server.bodies[0].get("logprobs")


class TestExpectedLabel:
    @staticmethod
    def at(token: str, *top: tuple[str, float]) -> dict[str, Any]:
        return {"token": token, "top_logprobs": [{"token": t, "logprob": p} for t, p in top]}

    def test_by_hand(self) -> None:
        # (2 * 0.1 + 4 * 0.5 + 5 * 0.2) / 0.8 = 4.0; "ok" is no label and stays out of the mass.
        top = [("4", math.log(0.5)), ("5", math.log(0.2)), ("2", math.log(0.1)), ("ok", math.log(0.15))]
        assert expected_label({"content": [self.at("4", *top)]}, LABELS) == pytest.approx((4.0, 0.8))

    def test_spellings_of_one_label_add_up(self) -> None:
        # (4 * (0.3 + 0.3) + 1 * 0.2) / 0.8 = 3.25
        top = [("4", math.log(0.3)), (" 4", math.log(0.3)), ("1", math.log(0.2))]
        assert expected_label({"content": [self.at(" 4", *top)]}, LABELS) == pytest.approx((3.25, 0.8))

    def test_white_space_before_the_label_is_skipped(self) -> None:
        content = [self.at("\n", ("\n", 0.0)), self.at(" ", ("1", 0.0)), self.at("3", ("3", 0.0))]
        assert expected_label({"content": content}, LABELS) == (3.0, 1.0)

    @pytest.mark.parametrize("logprob", [math.nan, -math.inf, math.inf])
    def test_a_probability_that_is_none_is_left_out(self, logprob: float) -> None:
        top = [("5", logprob), ("2", math.log(0.25))]
        assert expected_label({"content": [self.at("2", *top)]}, LABELS) == pytest.approx((2.0, 0.25))

    @pytest.mark.parametrize(
        "logprobs",
        [
            None,
            {},
            {"content": None},
            {"content": []},
            {"content": [{"token": "4"}]},
            {"content": [{"token": "4", "top_logprobs": None}]},
            {"content": [{"token": "4", "top_logprobs": [{"token": "ok", "logprob": -0.1}]}]},
            {"content": [{"token": "4", "top_logprobs": [{"token": "4", "logprob": -math.inf}]}]},
            {"content": [{"token": "The", "top_logprobs": [{"token": "4", "logprob": -0.1}]}]},
            {"content": [{"token": " ", "top_logprobs": []}]},
        ],
    )
    def test_without_label_probabilities_there_is_no_expectation(self, logprobs: dict[str, Any] | None) -> None:
        assert expected_label(logprobs, LABELS) is None

    @given(st.lists(st.tuples(st.sampled_from([*LABELS, " 1", "x"]), st.floats(-40, 0)), max_size=8))
    def test_it_stays_within_the_labels(self, top: list[tuple[str, float]]) -> None:
        found = expected_label({"content": [self.at("3", *top)]}, LABELS)
        assert (found is None) == all(token == "x" for token, _ in top)
        if found is not None:
            value, mass = found
            assert 1 - 1e-9 <= value <= 5 + 1e-9
            assert 0 < mass <= 1


class TestOwnServer:
    def test_roles_on_one_server_share_its_connections(self, server: FakeOpenAI) -> None:
        backends = backends_for(server)
        assert backends.lm("mope").engine is backends.lm("mar").engine

    def test_half_a_character_among_the_likeliest_tokens_is_stored(self) -> None:
        top = [{"token": "4", "logprob": -0.2}, {"token": "\ud83d", "logprob": -2.0}]
        with answering(Reply("4", logprobs=[{"token": "4", "logprob": -0.2, "top_logprobs": top}])) as server:
            backends = backends_for(server)
            assert expected_label(rate(backends).logprobs, LABELS) == expected_label(rate(backends).logprobs, LABELS)
            assert (len(server.bodies), backends.ledger.total().cache_hits) == (1, 1)

    def test_a_reasoning_model_behind_one_has_one_limit(self, server: FakeOpenAI) -> None:
        config = RoleConfig(
            model=server.model("gpt-5-mini"), adapter="compact", temperature=None, max_tokens=16000, terse=True
        )
        backends = Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, config)))
        assert RolePredictor(DistillTraits, "mote", backends, 104)(product="a cup").traits
        assert rate(backends).rating
        limits = [{name: body[name] for name in body if name.startswith("max_")} for body in server.bodies]
        assert [list(limit.values()) for limit in limits] == [[104], [4]]

    def test_settings_a_model_refuses_are_named(self, server: FakeOpenAI) -> None:
        with pytest.raises(InputError, match=r"mote: .*gpt-5-mini: .*temperature"):
            distill(Backends(local_roles(server.model("gpt-5-mini"))))


class TestRendersOnce:
    """The messages are DSPy's own, however often and in whatever order they are asked for."""

    signature = score_candidate("profile", "traits")
    demos: tuple[Any, ...] = (
        dspy.Example(shopper="a", product="b", rating="4"),
        {"shopper": "c", "product": "d", "rating": "1"},
        {"shopper": "incomplete", "rating": "2"},
    )

    @given(st.text(max_size=30), st.text(max_size=30))
    @example("\x00product\x00", "[[ ## rating ## ]]\n")
    def test_same_messages(self, shopper: str, product: str) -> None:
        inputs = {"shopper": shopper, "product": product}
        for adapter in (CompactAdapter(), StrictAdapter(), PlainAdapter()):
            slow = super(CachedPromptAdapter, adapter)
            system, *demos, user = adapter.format(self.signature, list(self.demos), inputs)
            assert system["content"] == slow.format_system_message(self.signature)
            assert demos == slow.format_demos(self.signature, list(self.demos))
            assert user["content"] == slow.format_user_message_content(self.signature, inputs, main_request=True)

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_same_question_for_a_rating(self, shopper: str, product: str) -> None:
        inputs, adapter = {"shopper": shopper, "product": product}, RatingAdapter()
        slow = super(CachedPromptAdapter, adapter).format_user_message_content(
            self.signature, inputs, main_request=True
        )
        assert adapter.format(self.signature, [], inputs)[-1]["content"] == slow

    @pytest.mark.parametrize("product", [None, 3, ["a", "list"], {"a": 1}])
    def test_what_is_no_text_is_left_to_dspy(self, product: Any) -> None:
        inputs, adapter = {"shopper": "s", "product": product}, PlainAdapter()
        slow = super(CachedPromptAdapter, adapter).format_user_message_content(
            self.signature, inputs, main_request=True
        )
        assert adapter.format(self.signature, [], inputs)[-1]["content"] == slow

    def test_changed_demonstrations_are_rendered_anew(self) -> None:
        demo = dspy.Example(shopper="a", product="b", rating="4")
        adapter = RatingAdapter()
        labels = []
        for label in ("4", "1", "4"):
            demo.rating = label
            labels.append(adapter.format_demos(self.signature, [demo])[1]["content"])
        assert labels == ["4", "1", "4"]
        assert adapter.format_demos(self.signature, []) == []

    def test_what_becomes_of_messages_stays_with_who_asked_for_them(self) -> None:
        adapter, demo = CompactAdapter(), dspy.Example(product="a", traits=["b"])
        adapter.format(DistillTraits, [demo], {"product": "x"})[1]["content"] = "changed"
        assert "changed" not in str(adapter.format(DistillTraits, [demo], {"product": "x"}))

    @pytest.mark.parametrize("adapter", ["compact", "json"])
    def test_every_call_asks_for_the_same_schema(self, server: FakeOpenAI, adapter: AdapterName) -> None:
        backends = backends_for(server, adapter=adapter)
        for n in range(3):
            distill(backends, f"cup {n}")
        first, *others = [body["response_format"] for body in server.bodies]
        assert "traits" in first["json_schema"]["schema"]["properties"]
        assert others == [first, first]
        backends.ask("mar", dspy.Predict(infer_motivations(CONSUMER)), shopper="s", history="1. Cup")
        assert "motivations" in server.bodies[-1]["response_format"]["json_schema"]["schema"]["properties"]


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-9, 99), st.text(max_size=6), st.sampled_from(["3", "[1]", "strong"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["dimension", "description", "strength", "evidence"]), inner, max_size=4),
    ),
    max_leaves=6,
)


class TestCachedParsing:
    """An answer means what it means to DSPy, whoever reads it."""

    @given(
        st.dictionaries(st.sampled_from(["traits", "motivations", "ranking", "other"]), JSON, max_size=2),
        st.integers(0, 5),
    )
    @example({"ranking": [12, "34", 5.0]}, 0)
    @example({"ranking": "[12, 34]"}, 0)
    @example({"traits": ["easy to use", 3]}, 0)
    def test_same_fields_or_the_same_refusal(self, answer: dict[str, Any], cut: int) -> None:
        text = json.dumps(answer)[: -cut or None]
        for signature in (DistillTraits, infer_motivations(CONSUMER), rank_candidates("profile", "traits")):
            for adapter in (CompactAdapter(), StrictAdapter()):
                shown = complete_elements(text) if isinstance(adapter, CompactAdapter) else text
                assert self.read(adapter.parse, signature, text) == self.read(
                    super(CachedParseAdapter, adapter).parse, signature, shown
                )

    @staticmethod
    def read(parse: Callable[..., dict[str, Any]], signature: type[dspy.Signature], text: str) -> Any:
        try:
            return parse(signature, text)
        except AdapterParseError:
            return "unparsable"

    def test_an_answer_in_a_fence_is_read(self, server: FakeOpenAI) -> None:
        text = '```json\n{"traits": ["easy to use"]}\n```'
        assert StrictAdapter().parse(DistillTraits, text) == {"traits": ["easy to use"]}


class TestTruncatedAnswers:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ('{"traits": ["light", "sturdy", "kind to', '{"traits": ["light", "sturdy"]}'),
            ('{"traits": ["light", "sturdy"', '{"traits": ["light", "sturdy"]}'),
            ('{"traits": ["light", "sturdy", ', '{"traits": ["light", "sturdy"]}'),
            ('{"traits": ["a, [b", "say \\"c', '{"traits": ["a, [b"]}'),
            ('{"ranking": [12, 34, 5', '{"ranking": [12, 34]}'),
            ('{"m": [{"d": "x", "e": [1]}, {"d": "y", "e": [1, 2', '{"m": [{"d": "x", "e": [1]}]}'),
            ('{"m": [{"d": "x", "e": [1]}', '{"m": [{"d": "x", "e": [1]}]}'),
            ('{"a": ["x"], "b": ["y", "z', '{"a": ["x"], "b": ["y"]}'),
            ('Sure!\n```json\n{"traits": ["light", "stur', '{"traits": ["light"]}'),
        ],
    )
    def test_the_unfinished_element_is_left_out_and_no_other(self, text: str, read: str) -> None:
        assert complete_elements(text) == read

    @pytest.mark.parametrize(
        "text",
        [
            '{"traits": ["light", "sturdy"]}',
            '```json\n{"traits": ["light", "sturdy"]}\n```',
            '{"traits": ["light", "sturdy"]} as asked [1, 2',
            '{"traits": ["lig',  # nothing complete in it
            '{"a": ["x", "y"], "b": ["half',
            '{"traits": ["light", "sturdy"], "why": "beca',
            '{"reason": "half a sentence',
            "[1, 2",
            "I cannot do that (see [1] or 2]",
            "",
        ],
    )
    def test_all_else_is_left_as_it_is(self, text: str) -> None:
        assert complete_elements(text) == text

    @given(st.text(alphabet='{}[]",\\a1 :', max_size=30))
    def test_any_text_is_taken(self, text: str) -> None:
        assert complete_elements(text).removesuffix("]}") in text

    @given(st.lists(JSON, min_size=1, max_size=4), st.integers(0, 200))
    def test_wherever_it_was_cut_off_it_keeps_the_elements_before(self, elements: list[Any], cut: int) -> None:
        whole = json.dumps({"list": elements})
        text = whole[: 1 + cut % (len(whole) - 2)]  # before the list is closed
        read = complete_elements(text)
        # What is certainly complete: the elements after which more text follows.
        ends = [len(json.dumps({"list": elements[:n]})) - 2 for n in range(1, len(elements) + 1)]
        complete = sum(end < len(text) for end in ends)
        if not complete:
            assert read == text or json.loads(read)["list"] == elements[:1]
        else:
            assert json.loads(read)["list"] in (elements[:complete], elements[: complete + 1])

    @pytest.mark.parametrize("piece", ["[", '{"a":', '[{"a":', '["x", ', '{"traits": ["x", ', '\\"', "{ "])
    def test_no_answer_is_too_long_or_too_deep(self, piece: str) -> None:
        for text in (piece * 20_000, '{"traits": ["' + piece * 20_000):
            complete_elements(text)
            with suppress(AdapterParseError):
                CompactAdapter().parse(DistillTraits, text[:4000])


class TestCaps:
    def test_an_answer_that_was_cut_off_is_read_as_far_as_it_is_whole(self) -> None:
        with answering(Reply('{"traits": ["easy to use", "kind to skin", "sturdy every')) as server:
            answer = distill(backends_for(server))
            assert (answer.traits, answer.unparsable, len(server.bodies)) == (["easy to use", "kind to skin"], 0, 1)

    def test_half_a_motivation_does_not_cost_the_whole_profile(self) -> None:
        whole = {"dimension": "value", "description": "much for little", "strength": "strong", "evidence": [1]}
        cut = json.dumps({"motivations": [whole, whole]}).removesuffix(', "strength": "strong", "evidence": [1]}]}')
        with answering(Reply(cut)) as server:
            asked = RolePredictor(infer_motivations(CONSUMER), "mope", backends_for(server), 240)
            answer = asked(shopper="nothing known", history="1. Cup")
            assert [draft.model_dump() for draft in answer.motivations] == [whole]
            assert answer.unparsable == 0

    def test_a_terse_role_caps_an_answer_at_what_is_enough(self, server: FakeOpenAI) -> None:
        roles = local_roles(server.model())
        for terse, expected in ((True, 104), (False, 512)):
            config = roles.mote.model_copy(update={"terse": terse})
            backends = Backends(roles.model_copy(update={"mote": config}))
            RolePredictor(DistillTraits, "mote", backends, 104, TRAITS)(product="cup")
            assert server.bodies[-1]["max_tokens"] == expected
        assert len(server.bodies) == 2


class TestLedger:
    def test_it_agrees_with_the_server_under_eight_threads(self, server: FakeOpenAI) -> None:
        backends = backends_for(server)
        assert in_threads(lambda n: distill(backends, f"cup {n} " * (n + 1)), 24) == [None] * 24
        assert in_threads(lambda n: rate(backends, f"cup {n}"), 16) == [None] * 16
        assert server.tokens_in > 0
        assert paid(backends.ledger.total()) == served(server)
        by_role = backends.ledger.by_role()
        assert {role: usage.calls for role, usage in by_role.items()} == {"mote": 24, "mar": 16}
        assert sum(usage.tokens_in for usage in by_role.values()) == server.tokens_in

    def test_copies_of_a_program_write_to_the_same_ledger(self, server: FakeOpenAI) -> None:
        backends = backends_for(server)
        program = RolePredictor(DistillTraits, "mote", backends, 104, TRAITS)
        programs = [program, program.deepcopy(), program.reset_copy(), program.deepcopy().reset_copy()]
        assert [len(each.predict.demos) for each in programs] == [4, 4, 0, 0]
        for number, each in enumerate(programs):
            assert each(product=f"cup {number}").traits
        assert paid(backends.ledger.total()) == served(server)
        assert len(server.bodies) == 4

    def test_clients_and_ledgers_are_never_copied(self, server: FakeOpenAI) -> None:
        backends = backends_for(server)
        for one in (backends, backends.ledger, backends.lm("mote")):
            assert copy.deepcopy(one) is one

    def test_a_second_identical_run_pays_nothing(self, server: FakeOpenAI) -> None:
        first, second = backends_for(server), backends_for(server)
        answers = [[rate(backends, f"cup {n}").rating for n in range(5)] for backends in (first, second)]
        assert answers[0] == answers[1]
        assert paid(first.ledger.total()) == served(server)
        assert second.ledger.total() == Usage(cache_hits=5)

    def test_answers_that_cannot_be_parsed_are_paid_for_as_well(self) -> None:
        with answering(Reply("no list here")) as server:
            backends = backends_for(server)
            assert distill(backends).unparsable == 1
            assert len(server.bodies) == 2
            assert paid(backends.ledger.total()) == served(server)

    def test_usage_of_case_sums_the_block_alone_in_its_own_thread(self, server: FakeOpenAI) -> None:
        backends = backends_for(server)
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
        backends = backends_for(server)
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
        backends = Backends(roles_for(server), ledger, prices_for(server, price))
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
        backends = backends_for(server, Ledger(path))

        def written() -> list[bool]:
            return [json.loads(line).get("hit", False) for line in path.read_text("utf-8").splitlines()]

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
        distill(backends_for(server, ledger))
        ledger.close()
        whole = path.read_bytes()
        path.write_bytes(whole + whole[: len(whole) // 2])
        again = Ledger(path)
        assert again.total() == ledger.total()
        distill(backends_for(server, again), "a bowl")
        again.close()
        lines = path.read_text("utf-8").splitlines()
        assert [json.loads(line)["role"] for line in lines] == ["mote", "mote"]
        assert paid(Ledger(path).total()) == served(server)

    def test_one_slow_question_of_eight_threads_is_asked_once(self) -> None:
        def slow(body: Body) -> Reply:
            reply = sensible(body)
            reply.seconds = 0.3
            return reply

        with FakeOpenAI(slow) as server:
            backends = backends_for(server)
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
        backends = backends_for(server)
        for _ in range(2):
            for rollout in range(3):
                distill(backends, rollout=rollout)
        assert len(server.bodies) == 3
        assert (backends.ledger.total().calls, backends.ledger.total().cache_hits) == (3, 3)
        assert all("rollout_id" not in body for body in server.bodies)


class TestBudget:
    def test_of_calls(self, server: FakeOpenAI) -> None:
        backends = backends_for(server, Ledger(budget=Budget(calls=3)))
        for n in range(3):
            distill(backends, f"cup {n}")
        with pytest.raises(BudgetExceededError, match="budget of 3 calls"):
            distill(backends, "one cup too many")
        assert distill(backends, "cup 0").traits, "kept answers are free"
        assert len(server.bodies) == 3

    def test_of_calls_in_threads(self, server: FakeOpenAI) -> None:
        backends = backends_for(server, Ledger(budget=Budget(calls=5)))
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
            backends = Backends(roles_for(server), ledger, prices_for(server, price))
            raised = in_threads(lambda n: distill(backends, f"cup {n}"), 24)
        assert {type(error) for error in raised} == {type(None), BudgetExceededError}
        spent = price.usd(server.tokens_in, server.tokens_out)
        assert 0.64 < spent <= 2.0
        assert ledger.total().usd == pytest.approx(spent)

    def test_of_dollars_reckons_with_a_token_a_byte_where_letters_are_not_latin(self, server: FakeOpenAI) -> None:
        price, product = Price(input=1.0, output=0.0), 500 * "\u10d0"  # a Georgian letter has three bytes
        spare = Backends(roles_for(server), prices=prices_for(server, price))
        with spare.ledger.standalone_usage() as spent:
            distill(spare, 500 * "a")
        latin = spent["mote"].tokens_in * 4 / 2 / 1e6
        for usd, sent in ((latin + 1000 / 1e6, 1), (latin + 3000 / 1e6, 2)):
            backends = Backends(roles_for(server), Ledger(budget=Budget(usd=usd)), prices_for(server, price))
            with suppress(BudgetExceededError):
                distill(backends, product)
            assert len(server.bodies) == sent

    def test_of_dollars_stops_before_the_call_that_might_pass_it(self, server: FakeOpenAI) -> None:
        backends = Backends(
            roles_for(server), Ledger(budget=Budget(usd=0.01)), prices_for(server, Price(input=1000.0, output=2000.0))
        )
        with pytest.raises(BudgetExceededError, match=r"\$0.0000 of \$0.0100 spent"):
            distill(backends)
        assert server.bodies == []

    def test_a_failed_call_counts_because_it_was_sent(self) -> None:
        with answering(Reply("no", status=400)) as server:
            backends = backends_for(server, Ledger(budget=Budget(calls=2)))
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
                distill(backends_for(server, Ledger(budget=Budget(calls=2))))
            assert len(server.bodies) == 2

    def test_a_stop_ends_the_wait_between_attempts(self) -> None:
        with FakeOpenAI(lambda body: Reply("busy", status=429, headers={"Retry-After": "600"})) as server:
            backends = backends_for(server)
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
        distill(backends_for(server, ledger))
        ledger.close()
        with pytest.raises(BudgetExceededError):
            distill(backends_for(server, Ledger(path, Budget(calls=1))), "a bowl")
        assert len(server.bodies) == 1

    def test_stop_lets_no_further_call_be_made(self, server: FakeOpenAI) -> None:
        backends = backends_for(server)
        distill(backends)
        backends.ledger.stop("interrupted")
        with pytest.raises(BudgetExceededError, match="interrupted"):
            distill(backends, "a bowl")
        assert distill(backends).traits
        assert len(server.bodies) == 1

    def test_of_dollars_is_refused_for_a_model_without_a_price(self, server: FakeOpenAI) -> None:
        with pytest.raises(InputError, match="fake' has no known price"):
            backends_for(server, Ledger(budget=Budget(usd=1.0)))

    def test_spent_is_no_exception_that_an_evaluator_could_swallow(self) -> None:
        assert not issubclass(BudgetExceededError, Exception)


class TestCallStore:
    def test_kept_answers_survive_reopening(self, server: FakeOpenAI, tmp_path: Path) -> None:
        path = tmp_path / "kept" / "calls.sqlite"
        runs = []
        for _ in range(2):
            store = use_response_cache(path)
            backends = backends_for(server)
            runs.append([rate(backends).toDict(), distill(backends).toDict()])
            store.close()
        assert len(server.bodies) == 2
        assert backends.ledger.total() == Usage(cache_hits=2)
        assert runs[0] == runs[1]
        assert expected_label(runs[1][0]["logprobs"], LABELS) is not None

    def test_it_holds_neither_prompts_nor_keys(
        self, server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OUR_KEY", CANARY)
        path = tmp_path / "calls.sqlite"
        store = use_response_cache(path)
        rate(backends_for(server, api_key_env="OUR_KEY"), "a marzipan submarine")
        for file in sorted(tmp_path.glob("calls.sqlite*")):  # before the close, while the write-ahead log is there
            assert b"marzipan" not in file.read_bytes()
            assert CANARY.encode() not in file.read_bytes()
        store.close()
        assert b'"logprob"' in path.read_bytes()

    def test_two_servers_do_not_share_answers(self, server: FakeOpenAI) -> None:
        distill(backends_for(server))
        with FakeOpenAI() as other:
            distill(backends_for(other))
            assert (len(server.bodies), len(other.bodies)) == (1, 1)

    @pytest.mark.parametrize("change", [{"temperature": 0.5}, {"top_p": 0.5}, {"adapter": "json"}])
    def test_other_sampling_is_another_question(self, server: FakeOpenAI, change: dict[str, Any]) -> None:
        distill(backends_for(server))
        distill(backends_for(server, **change))
        assert len(server.bodies) == 2


class TestKeys:
    def test_a_key_reaches_the_server_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("OUR_KEY", CANARY)
        store = use_response_cache(tmp_path / "calls.sqlite")
        failures = [Reply(status=400), Reply("nonsense"), Reply("nonsense"), Reply(status=401)]
        with answering(*failures) as server:
            ledger = Ledger(tmp_path / "ledger.jsonl")
            backends = backends_for(server, ledger, api_key_env="OUR_KEY")
            program = RolePredictor(DistillTraits, "mote", backends, 104)
            said = []
            for n in range(3):
                with pytest.raises(Exception) as error:
                    program(product=f"cup {n}")
                said.append("".join(traceback.format_exception(error.value)))
            assert len(server.bodies) == 4
            with pytest.raises(InputError, match="rejected the key, account or model") as refused:
                program(product="a bowl")
            said.append("".join(traceback.format_exception(refused.value)))
            assert server.keys == [f"Bearer {CANARY}"] * 4
        ledger.close()
        store.close()
        said += [repr(backends.lm("mote")), repr(backends.roles), json.dumps(program.dump_state()), *capfd.readouterr()]
        assert not [text for text in said if CANARY in text]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"ledger.jsonl", "calls.sqlite"}
        assert not [path for path in files if CANARY.encode() in path.read_bytes()]

    def test_a_server_without_a_key_gets_none_of_ours(
        self, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        distill(backends_for(server))
        assert CANARY not in server.keys[0]

    def test_a_missing_key_is_named(self, server: FakeOpenAI) -> None:
        with pytest.raises(InputError, match="set the environment variable OUR_KEY"):
            distill(backends_for(server, api_key_env="OUR_KEY"))
        assert server.bodies == []

    def test_a_hosted_model_without_its_key_asks_for_it_and_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            pytest.fail("the network was used")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        backends = Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, RoleConfig(model="openai/gpt-4o"))))
        with pytest.raises(InputError, match="openai/gpt-4o needs a key: set the environment variable OPENAI_API_KEY"):
            distill(backends)

    @pytest.mark.parametrize("model", ["http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1#", "http://#name"])
    def test_a_malformed_server_address_is_explained(self, model: str) -> None:
        backends = Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, RoleConfig(model=model))))
        with pytest.raises(InputError, match="http://host:port/v1#model"):
            distill(backends)


class TestRetries:
    @pytest.mark.parametrize("statuses", [[429], [500], [503, 429]])
    def test_a_passing_failure_leaves_one_recorded_answer(self, statuses: list[int]) -> None:
        with answering(*(Reply(status=status, headers={"Retry-After": "0"}) for status in statuses)) as server:
            backends = backends_for(server)
            answer = distill(backends)
            assert (answer.unparsable, len(server.bodies)) == (0, len(statuses) + 1)
            assert paid(backends.ledger.total()) == (len(statuses) + 1, server.tokens_in, server.tokens_out)

    def test_a_refused_key_ends_it_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OUR_KEY", CANARY)
        with answering(Reply("invalid key", status=401)) as server:
            with pytest.raises(InputError, match=r"^mote: http://127\.0\.0\.1:\d+/v1#fake: .*invalid key"):
                distill(backends_for(server, api_key_env="OUR_KEY"))
            assert len(server.bodies) == 1

    @pytest.mark.parametrize("adapter", ["compact", "json", "chat"])
    def test_two_unparsable_answers_are_the_end(self, adapter: AdapterName) -> None:
        with FakeOpenAI(lambda body: Reply("I would rather not.")) as server:
            backends = backends_for(server, adapter=adapter)
            with pytest.raises(UnparsableError, match="mote: 2 answers could not be parsed") as error:
                distill(backends)
            assert (error.value.answers, len(server.bodies)) == (2, 2)
            assert backends.ledger.total().calls == 2

    def test_one_is_asked_again_at_another_temperature_and_counted(self) -> None:
        with answering(Reply("{")) as server:
            answer = distill(backends_for(server))
            assert (answer.unparsable, len(answer.traits)) == (1, 3)
            assert [body["temperature"] for body in server.bodies] == [0.0, 0.7]

    def test_a_model_that_takes_no_temperature_is_never_sent_one(self) -> None:
        with answering(Reply("{")) as server:
            assert distill(backends_for(server, temperature=None)).unparsable == 1
            assert [body.get("temperature") for body in server.bodies] == [None, None]

    def test_a_rating_that_is_none_is_asked_again(self) -> None:
        with answering(Reply("hard to say")) as server:
            answer = rate(backends_for(server))
            assert (answer.unparsable, answer.rating in LABELS) == (1, True)

    def test_worked_examples_travel_as_turns_of_the_conversation(self, server: FakeOpenAI) -> None:
        predict = dspy.Predict(score_candidate("profile", "traits"))
        predict.demos = RATINGS
        backends_for(server).ask("mar", predict, shopper="- value", product="a cup")
        turns = [(m["role"], m["content"]) for m in server.bodies[0]["messages"]]
        assert [role for role, _ in turns] == ["system", *["user", "assistant"] * 3, "user"]
        assert [text for role, text in turns if role == "assistant"] == ["5", "1", "3"]
