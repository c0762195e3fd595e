"""What counts as an answer: the quirks of servers that call themselves OpenAI-compatible."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMError

from programs.lm.attempt import tokens_of
from programs.lm.backends import Backends, RefusedTextError, UnparsableError
from programs.lm.ledger import Budget, Ledger
from programs.lm.logprobs import expected_label
from programs.lm.prices import Price
from programs.lm.role_lm import ATTEMPTS
from programs.lm.roles import RoleConfig, Roles, local_roles
from programs.runtime.errors import InputError
from programs.runtime.events import Event, Note
from tests.support.backends import backends_on, distill, prices_for, rate
from tests.support.fake_server import Body, FakeOpenAI, Reply, replying, sensible

TRAITS = ["easy to use", "kind to skin"]
ANSWER = json.dumps({"traits": TRAITS})
LABELS = ("1", "2", "3", "4", "5")


def body_of(message: dict[str, Any] | None, **more: Any) -> Reply:
    choice = {"index": 0, "finish_reason": "stop", "message": message} | more.pop("choice", {})
    return Reply(raw=json.dumps({"model": "m", "choices": [choice], "usage": {"prompt_tokens": 9}} | more).encode())


class TestText:
    @pytest.mark.parametrize(
        "text",
        [
            f"```json\n{ANSWER}\n```",
            f"Sure! Here is the answer:\n\n{ANSWER}\n\nLet me know if you need anything else!",
            f'<think>\nPerhaps {{"draft": true}}, or {{"traits": ["no"]}}.\n</think>\n\n{ANSWER}',
            f"Hm, let me see.\n</think>\n{ANSWER}",
            f'A draft is {{"draft": [1]}}. {ANSWER}',
        ],
    )
    def test_json_inside_other_text_loses_nothing(self, text: str) -> None:
        with replying(Reply(text)) as server:
            prediction = distill(backends_on(server))
            assert (prediction.traits, prediction.unparsable, len(server.bodies)) == (TRAITS, 0, 1)

    def test_a_tag_in_a_string_of_the_answer_is_text(self) -> None:
        with replying(Reply(json.dumps({"traits": ["a <think> corner", "b </think>"]}))) as server:
            assert distill(backends_on(server)).traits == ["a <think> corner", "b </think>"]

    def test_a_list_that_was_cut_off_loses_its_last_element(self) -> None:
        with replying(Reply('{"traits": ["easy to use", "sturdy every')) as server:
            assert distill(backends_on(server)).traits == ["easy to use"]

    @pytest.mark.parametrize(
        "text",
        ['{"a":' * 300, "[" * 5000, '{"traits": ' + "9" * 5000 + "}", 'a" b ' * 20_000, '{"x": "' + "y" * 5_000_000],
        ids=["objects", "lists", "digits", "quotes", "megabytes"],
    )
    def test_no_text_ends_more_than_its_own_question(self, text: str) -> None:
        with replying(Reply(text), Reply(text)) as server:
            started = time.perf_counter()
            with pytest.raises(UnparsableError):
                distill(backends_on(server))
            assert time.perf_counter() - started < 10

    def test_half_a_character_is_replaced(self) -> None:
        with replying(
            Reply(raw=b'{"choices":[{"message":{"content":"{\\"traits\\": [\\"good \\ud83d\\"]}"}}]}')
        ) as server:
            (phrase,) = distill(backends_on(server)).traits
            assert phrase.encode().startswith(b"good ")

    def test_half_a_character_in_the_escapes_of_the_model_is_replaced(self) -> None:
        with replying(Reply(r'{"traits": ["good \ud83d x", "\ud83d\ude00 y", "a \\ud83d"]}')) as server:
            phrases = distill(backends_on(server)).traits
            assert phrases == ["good \ufffd x", "\U0001f600 y", r"a \ud83d"]

    @pytest.mark.parametrize(
        "text", ["<think>Four, or 5?</think>4", "4\n\nBecause it saves time.", "Rating: 4", "**4**"]
    )
    def test_a_rating_with_words_around_it(self, text: str) -> None:
        tokens = [{"token": one, "logprob": -0.1, "top_logprobs": [{"token": one, "logprob": -0.1}]} for one in text]
        with replying(Reply(text, logprobs=tokens)) as server:
            answer = rate(backends_on(server))
            assert (answer.rating, expected_label(answer.logprobs, LABELS)) == ("4", 4.0)

    def test_a_long_row_of_markup_is_read_once(self) -> None:
        """Read anew from every place in it, it would take minutes."""
        text = "rating" + "*" * 200_000
        with replying(Reply(text), Reply(text)) as server, pytest.raises(UnparsableError):
            rate(backends_on(server))


class TestMetadata:
    @pytest.mark.parametrize(
        "usage",
        [
            None,
            "many",
            {"prompt_tokens": -5, "completion_tokens": "7"},
            {"prompt_tokens": float("nan"), "completion_tokens": 1e300},
            {"prompt_tokens": 10**400, "prompt_tokens_details": 3},
            {"prompt_tokens": 4.0, "completion_tokens": 2, "total_tokens": 1, "completion_tokens_details": []},
        ],
    )
    def test_usage_that_cannot_be_read_costs_no_answer(self, usage: object) -> None:
        with replying(body_of({"content": ANSWER}, usage=usage)) as server:
            assert distill(backends_on(server)).traits == TRAITS

    def test_no_more_tokens_are_cached_than_there_are(self) -> None:
        usage = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1_000_000}}
        with replying(body_of({"content": ANSWER}, usage=usage)) as server:
            backends = backends_on(server)
            distill(backends)
            assert backends.ledger.total().tokens_cached == 5

    @pytest.mark.parametrize(
        "usage",
        [
            {"completion_tokens": 20},
            {"prompt_tokens": 9},
            {"prompt_tokens": None, "completion_tokens": 20},
            {"prompt_tokens": -1, "completion_tokens": 20},
            {"prompt_tokens": 1500.5, "completion_tokens": 20},
            {"input_tokens": 1500, "completion_tokens": 20},
            {"prompt_tokens": 9, "completion_tokens": None},
            {"prompt_tokens": 0, "completion_tokens": 20},
        ],
    )
    def test_half_a_report_of_usage_does_not_make_the_other_half_free(self, usage: Body) -> None:
        spent = {}
        for name, reported in (("none", None), ("half", usage)):
            with replying(body_of({"content": ANSWER}, usage=reported)) as server:
                ledger = Ledger(budget=Budget(usd=20.0))
                prices = prices_for(server, Price(input=1000.0, output=1000.0))
                distill(backends_on(server, ledger, prices))
                assert (ledger.total().usd, ledger.total().unpriced) == (None, 1)
                spent[name], _ = ledger.spent()
        assert spent["half"] == spent["none"] > 0.1, "the upper estimate"

    def test_tokens_from_the_cache_and_into_it_are_no_more_than_the_prompt(self) -> None:
        details = {"cached_tokens": 100, "cache_write_tokens": 100}
        usage = {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": details}
        with replying(body_of({"content": ANSWER}, usage=usage)) as server:
            price = Price(input=1000.0, output=1000.0, cached=100.0, cache_write=1250.0)
            ledger = Ledger(budget=Budget(usd=20.0))
            distill(backends_on(server, ledger, prices_for(server, price)))
        total = ledger.total()
        assert (total.tokens_in, total.tokens_cached, total.tokens_written) == (100, 100, 0)
        assert total.usd == pytest.approx((100 * 100 + 1 * 1000) / 1e6)

    @pytest.mark.parametrize(
        ("usage", "tokens", "both"),
        [
            ({"prompt_tokens": 5, "completion_tokens": 1}, (5, 1, 0, 0), True),
            ({"prompt_tokens": 5}, (5, 0, 0, 0), False),
            ({"completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 3}}, (0, 1, 0, 0), False),
            ({"prompt_tokens": "5", "completion_tokens": -1}, (0, 0, 0, 0), False),
            (
                {
                    "prompt_tokens": 5,
                    "completion_tokens": 1,
                    "prompt_tokens_details": {"cached_tokens": 3, "cache_creation_tokens": 50},
                },
                (5, 1, 3, 2),
                True,
            ),
            ({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": 7}, (5, 1, 0, 0), True),
            ("many", (0, 0, 0, 0), False),
            (None, (0, 0, 0, 0), False),
        ],
    )
    def test_a_stored_answer_of_any_kind_can_be_counted(
        self, usage: object, tokens: tuple[int, int, int, int], both: bool
    ) -> None:
        assert tokens_of({"usage": usage}, "x/y") == (*tokens, both)

    @pytest.mark.parametrize("value", [None, float("nan"), float("-inf"), "-1", True])
    def test_a_log_probability_that_is_no_number_is_left_out(self, value: object) -> None:
        top = [{"token": "4", "logprob": -0.4}, {"token": "1", "logprob": value}]
        content = [{"token": "4", "logprob": -0.4, "top_logprobs": top}]
        with replying(body_of({"content": "4"}, choice={"logprobs": {"content": content}})) as server:
            answer = rate(backends_on(server))
            assert (answer.rating, expected_label(answer.logprobs, LABELS)) == ("4", 4.0)

    def test_of_several_choices_the_first_counts(self) -> None:
        choices = [{"message": {"content": text}} for text in (ANSWER, '{"traits": ["second"]}')]
        with replying(Reply(raw=json.dumps({"choices": choices}).encode())) as server:
            assert distill(backends_on(server)).traits == TRAITS


class TestNoAnswer:
    @pytest.mark.parametrize(
        "reply",
        [
            body_of({"content": None}),
            body_of({"content": ""}),
            body_of({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}),
            body_of(None),
            Reply(raw=b'{"choices": []}'),
            Reply(raw=b'{"choices": null, "detail": "loading"}'),
            Reply(raw=b"<html>busy</html>"),
            Reply(raw=b'{"choices": [{"message": {"content": "{\\"trai'),
        ],
    )
    def test_it_is_a_failure_and_is_never_stored(self, reply: Reply, hurried: None) -> None:
        with replying(*[reply] * ATTEMPTS) as server:
            with pytest.raises(LMError):
                distill(backends_on(server))
            assert distill(backends_on(server)).traits  # by then the server is well
            assert len(server.bodies) == ATTEMPTS + 1

    @pytest.mark.parametrize(
        "reply",
        [
            body_of({"content": ""}, choice={"finish_reason": "content_filter"}),
            body_of({"content": None, "refusal": "I cannot help with that."}),
            Reply("The prompt triggered the content management policy.", status=400),
            Reply("This model's maximum context length is 4096 tokens.", status=400),
        ],
    )
    def test_a_refused_text_is_refused_once_and_for_itself(self, reply: Reply) -> None:
        with replying(reply) as server, pytest.raises(RefusedTextError):
            distill(backends_on(server))
        assert len(server.bodies) == 1


class TestThinking:
    def respond(self, body: Body) -> Reply:
        if body.get("max_tokens", 10**6) < 300:
            cut = {"finish_reason": "length"}
            return body_of({"content": "", "reasoning_content": "Okay, the user wants"}, choice=cut)
        return sensible(body)

    def test_a_model_that_thinks_gets_more_tokens_and_keeps_them(self) -> None:
        with FakeOpenAI(self.respond) as server:
            backends = backends_on(server)
            first, second = (distill(backends, product, enough=104) for product in ("a cup", "a bowl"))
            assert (first.unparsable, second.unparsable) == (1, 0)
            assert rate(backends).rating
            assert [body["max_tokens"] for body in server.bodies] == [104, 512, 512, 512]

    def test_one_that_needs_still_more_is_told_apart(self) -> None:
        cut = body_of({"content": "", "reasoning_content": "Hm"}, choice={"finish_reason": "length"})
        with replying(cut, cut) as server, pytest.raises(UnparsableError, match=r"still thinking.*--max-tokens"):
            distill(backends_on(server))


class TestRefusedParameters:
    def told(self, server: FakeOpenAI) -> tuple[Backends, list[str]]:
        notes: list[str] = []

        def on_event(event: Event) -> None:
            if isinstance(event, Note):
                notes.append(event.text)

        return Backends(local_roles(server.model()), on_event=on_event), notes

    def test_it_is_left_out_once_and_remembered(self) -> None:
        def respond(body: Body) -> Reply:
            refused = Reply("response_format is not supported by this model", status=400)
            return refused if "response_format" in body else sensible(body)

        with FakeOpenAI(respond) as server:
            backends, notes = self.told(server)
            assert distill(backends, "a cup").traits
            assert distill(backends, "a bowl").traits
            assert ["response_format" in body for body in server.bodies] == [True, False, False]
            assert len(notes) == 1
            assert "response_format" in notes[0]

    def test_fewer_log_probabilities_are_asked_for(self) -> None:
        def respond(body: Body) -> Reply:
            many = (body.get("top_logprobs") or 0) > 5
            return Reply("Cannot request more than 5 logprobs.", status=400) if many else sensible(body)

        with FakeOpenAI(respond) as server:
            backends, _ = self.told(server)
            assert expected_label(rate(backends).logprobs, LABELS) is not None
            assert server.bodies[-1]["top_logprobs"] == 5

    def test_a_server_that_is_never_content_is_not_asked_for_ever(self) -> None:
        def respond(body: Body) -> Reply:
            return Reply(f"max_tokens must be at most {(body.get('max_tokens') or 2) - 1}", status=400)

        with FakeOpenAI(respond) as server, pytest.raises(LMError):
            distill(backends_on(server))
        assert len(server.bodies) <= 10

    @pytest.mark.parametrize(
        ("rule", "caps"),
        [
            # Without a number: half of it, and half of that.
            (lambda body: body["max_tokens"] > 200, [512, 256, 128, 128]),
            # Under another name.
            (lambda body: "max_tokens" in body, [512, 512, 512]),
        ],
    )
    def test_a_limit_on_length_is_never_left_out(self, rule: Callable[[Body], bool], caps: list[int]) -> None:
        said = "max_tokens is not supported" if len(caps) == 4 else "use max_completion_tokens instead of max_tokens"

        def respond(body: Body) -> Reply:
            return Reply(said, status=400) if rule(body) else sensible(body)

        with FakeOpenAI(respond) as server:
            backends, notes = self.told(server)
            assert distill(backends).traits and distill(backends, "another").traits
            sent = [body.get("max_tokens") or body.get("max_completion_tokens") for body in server.bodies]
        assert sent == caps
        assert ["max_tokens" in note for note in notes] == [True]

    @pytest.mark.parametrize("before", ["", "gpt-5.1: ", "Error code: 400 - ", "litellm: gpt-5-mini: "])
    def test_a_number_in_a_refusal_of_a_name_is_no_limit(self, before: str) -> None:
        said = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."

        def respond(body: Body) -> Reply:
            return Reply(before + said, status=400) if "max_tokens" in body else sensible(body)

        with FakeOpenAI(respond) as server:
            assert distill(self.told(server)[0]).traits
        assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 512]

    def test_a_number_that_is_too_small_for_a_limit_is_none(self) -> None:
        def respond(body: Body) -> Reply:
            said = "qwen2.5: max_tokens is too large"
            return Reply(said, status=400) if body["max_tokens"] > 300 else sensible(body)

        with FakeOpenAI(respond) as server:
            assert distill(self.told(server)[0]).traits
        assert [body["max_tokens"] for body in server.bodies] == [512, 256]

    def test_a_call_that_is_refused_with_every_limit_fails_with_the_servers_words(self) -> None:
        def respond(body: Body) -> Reply:
            limited = {"max_tokens", "max_completion_tokens"} & {*body}
            return Reply("max_tokens: unknown parameter", status=400) if limited else sensible(body)

        with FakeOpenAI(respond) as server, pytest.raises(LMError, match="unknown parameter"):
            distill(backends_on(server))
        assert len(server.bodies) < 8

    def test_a_limit_that_is_too_low_is_raised_within_the_reserve(self) -> None:
        def respond(body: Body) -> Reply:
            low = body["max_tokens"] < 16
            return Reply("max_tokens: expected a value of at least 16", status=400) if low else sensible(body)

        with FakeOpenAI(respond) as server:
            backends, _ = self.told(server)
            assert expected_label(rate(backends).logprobs, LABELS) is not None
        assert [body["max_tokens"] for body in server.bodies] == [4, 16]
        assert backends.lm("mar")._most_tokens(b"", {"max_tokens": 4})[1] == 16

    def test_only_what_helped_is_remembered(self) -> None:
        def respond(body: Body) -> Reply:
            quoting = "mug" in body["messages"][-1]["content"]
            return Reply("not allowed: a mug at room temperature", status=400) if quoting else sensible(body)

        with FakeOpenAI(respond) as server:
            backends, notes = self.told(server)
            with pytest.raises(LMError, match="not allowed"):
                distill(backends, "a mug")
            assert distill(backends, "a cup").traits
            assert "temperature" in server.bodies[-1]
            assert not notes

    def test_another_400_still_fails(self) -> None:
        with (
            replying(Reply("messages must alternate", status=400)) as server,
            pytest.raises(LMError, match="alternate"),
        ):
            distill(backends_on(server))
        assert len(server.bodies) == 1


class TestAddressesAndKeys:
    def test_a_key_is_sent_to_the_server_it_was_set_for(
        self, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port = server.url.split(":")[2].split("/")[0]
        monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
        monkeypatch.setenv(f"MLLM3REC_KEY_127_0_0_1_{port}", "ours")
        distill(backends_on(server))
        assert server.keys == ["Bearer ours"]

    @pytest.mark.parametrize("address", ["http://ann:pw-canary@{}/v1#m", "http://{}/v1?api_key=pw-canary#m"])
    def test_a_secret_in_an_address_is_refused_and_not_repeated(self, address: str) -> None:
        with pytest.raises(InputError, match="MLLM3REC_KEY_LLM_LAN_8000") as refused:
            distill(Backends(local_roles(address.format("llm.lan:8000"))))
        assert "canary" not in str(refused.value)

    @pytest.mark.parametrize(
        "address",
        [
            "http://ann:pw-canary@host:port/v1#m",
            "http://ann:pw-canary@[host/v1#m",
            "http://ann:pw/canary@host:port/v1#m",
            "http://ann:pw-canary@host/v1",
            "http://host/v1#m?key=pw-canary",
            "http://host:port/v1?key=pw-canary#m",
            "htps://ann:pw-canary@host/v1#m",
        ],
    )
    @pytest.mark.parametrize("budget", [None, Budget(usd=1.0)])
    def test_nor_is_one_in_a_malformed_address(self, address: str, budget: Budget | None) -> None:
        with pytest.raises(InputError, match=r"http://host:port/v1#model|holds a user name") as refused:
            Backends(Roles.all_on(RoleConfig(model=address)), Ledger(None, budget)).require("mar")
        assert "canary" not in str(refused.value) and "ann" not in str(refused.value)

    def test_this_machine_is_reached_without_a_proxy(self, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert distill(backends_on(server)).traits

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    @pytest.mark.parametrize("hosted", [False, True])
    def test_no_redirect_is_followed(
        self, status: int, hosted: bool, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, hurried: None
    ) -> None:
        def redirect(body: Body) -> Reply:
            return Reply("moved", status=status, headers={"Location": f"{server.url}/chat/completions"})

        with FakeOpenAI(redirect) as moved, pytest.raises((LMError, InputError), match=f"HTTP {status}.*redirects to"):
            monkeypatch.setenv("OPENAI_BASE_URL", moved.url)
            monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
            distill(backends_on(moved) if not hosted else Backends(local_roles("openai/gpt-4.1-mini")))
        assert moved.bodies
        assert not server.bodies


@contextmanager
def dripping(head: bytes, seconds: float) -> Iterator[str]:
    """A server that sends its head and then one byte after another, for ever."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve(client: socket.socket) -> None:
        with client:
            client.recv(65536)
            try:
                client.sendall(head)
                while not done.wait(seconds):
                    client.sendall(b" ")
            except OSError:
                pass

    def accept() -> None:
        while not done.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1#m"
    finally:
        done.set()
        listener.close()


class TestDeadline:
    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-Header: ",
            b"",
        ],
        ids=["body", "header", "nothing"],
    )
    def test_a_trickle_of_bytes_does_not_move_it(self, head: bytes, hurried: None) -> None:
        with dripping(head, 0.05) as model:
            roles = local_roles(model)
            config = roles.mote.model_copy(update={"timeout": 0.5})
            backends = Backends(roles.model_copy(update={"mote": config}))
            started = time.monotonic()
            with pytest.raises(LMError, match=r"no complete answer within 0\.5 s"):
                distill(backends)
            assert time.monotonic() - started < 5


def test_a_hosted_model_keeps_the_key_of_its_stored_answers(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers stored by DSPy's own engine choice, whose requests held the timeout, are found again."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    backends = Backends(local_roles("openai/gpt-4.1-mini"))
    lm = backends.lm("mote")
    lm("a cup")
    call = dspy.cache.this_call
    before = dspy.cache.cache_key({**call.request, "timeout": 600.0}, ["api_key", "api_base", "base_url"])
    assert call.key == before
    assert server.keys == ["Bearer sk-test"]
