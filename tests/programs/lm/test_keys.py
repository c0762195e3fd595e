"""A key is in no error, however a server, a client or an address repeats it."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable

import dspy
import pytest

from programs.lm.ambient import AmbientBackends
from programs.lm.backends import Backends
from programs.lm.endpoints import key_variable
from programs.lm.model_options import ModelOptions
from programs.lm.roles import ROLE_NAMES, RoleConfig, Roles
from programs.lm.routes import RERANK
from programs.runtime.errors import InputError
from tests.support.backends import backends_on, distill
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible

KEY = "sk/canary+1234567890"
REPEATED = json.dumps({"error": {"message": f"no: {KEY}"}})


def wire(raw: str) -> Reply:
    def send(connection: socket.socket) -> None:
        connection.sendall(raw.encode())

    return Reply(wire=send)


def rerank(backends: Backends) -> object:
    return backends.ask_route("mar", backends.roles.mar, RERANK, query="a cup", documents=["a bowl"])


@pytest.mark.parametrize("ask", [distill, rerank])
@pytest.mark.parametrize(
    "reply",
    [
        lambda: Reply(raw=REPEATED.replace("/", "\\/").encode(), status=401),
        lambda: Reply(raw=REPEATED.replace("canary", "c\\u0061nary").encode(), status=400),
        lambda: Reply(status=302, headers={"Location": f"http://evil.example/{KEY}"}),
        lambda: Reply(status=302, headers={"Location": "http://evil.example/sk%2Fcanary%2B1234567890"}),
        lambda: Reply("no", status=401, headers={"x-request-id": KEY}),
        lambda: wire(f"HXTP {KEY}\r\n\r\n"),
        lambda: wire(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n"),
    ],
)
def test_a_server_repeats_it_in_any_spelling(
    reply: Callable[[], Reply], ask: Callable[[Backends], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(body: Body) -> Reply:
        return reply()

    with FakeOpenAI(respond) as server:
        monkeypatch.setenv(key_variable(server.model()), KEY)
        monkeypatch.setattr("programs.lm.role_lm.ATTEMPTS", 1)
        with pytest.raises(Exception, match=r".") as error:
            ask(backends_on(server))
    assert server.keys == [f"Bearer {KEY}"]
    assert "canary" not in "".join(traceback.format_exception(error.value))


def lm_of(server: FakeOpenAI, **settings: object) -> dspy.LM:
    """A `dspy.LM` object on a server, with the key unless the settings have another, or None."""
    where: dict[str, object] = {"api_base": server.url, "api_key": KEY, "max_tokens": 100, "cache": False}
    given = {name: value for name, value in (where | settings).items() if value is not None}
    return dspy.LM("openai/served", num_retries=0, **given)


class TestOfADspyObject:
    @pytest.mark.parametrize(
        "reply",
        [
            lambda: Reply(raw=REPEATED.encode(), status=400),
            lambda: Reply(raw=REPEATED.encode(), status=401),
            lambda: Reply(raw=REPEATED.replace("/", "\\/").encode(), status=403),
            lambda: Reply(f"I will not, {KEY}"),
        ],
    )
    @pytest.mark.parametrize("ambient", [False, True])
    def test_a_server_repeats_it(
        self, reply: Callable[[], Reply], ambient: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with FakeOpenAI(lambda body: reply()) as server:
            options = ModelOptions(model=lm_of(server))
            backends = AmbientBackends() if ambient else Backends(options.roles(), given=options.given)
            with dspy.context(lm=lm_of(server)), pytest.raises(Exception, match=r".") as error:
                distill(backends)
        assert f"Bearer {KEY}" in server.keys
        assert "canary" not in "".join(traceback.format_exception(error.value))

    @pytest.mark.parametrize(
        "settings", [{"extra_headers": {"Authorization": f"Bearer {KEY}"}, "api_key": "other-key"}, {"api_key": None}]
    )
    def test_it_may_come_from_a_header_or_the_environment(
        self, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with FakeOpenAI(lambda body: Reply(raw=REPEATED.encode(), status=400)) as server:
            options = ModelOptions(model=lm_of(server, **settings))
            lm = Backends(options.roles(), given=options.given).lm("mote")
            with pytest.raises(Exception, match=r"no: \[key\]") as error:
                lm("a cup")
        assert "canary" not in "".join(traceback.format_exception(error.value))

    def test_an_error_names_what_sets_another(self) -> None:
        with FakeOpenAI(lambda body: Reply("no", status=401)) as server:
            options = ModelOptions(model=lm_of(server))
            with pytest.raises(InputError, match=r"give the dspy\.LM object a key, or .* variable OPENAI_API_KEY$"):
                distill(Backends(options.roles(), given=options.given))

    @pytest.mark.parametrize("address", ["http://me:canary@127.0.0.1:1/v1", "http://127.0.0.1:1/v1?key=canary", "//[c"])
    def test_an_address_holds_no_secret(self, address: str) -> None:
        options = ModelOptions(model=dspy.LM("openai/served", api_base=address, api_key=KEY))
        backends = Backends(options.roles(), given=options.given)
        with pytest.raises(InputError, match=r"the address of the dspy\.LM object 'openai/served'") as error:
            backends.require("mar")
        assert "canary" not in str(error.value)


@pytest.mark.parametrize("key", ["sk-canary-1\n", "sk-canary-1\r\nX-Evil: 1", "sk canary", "sk-canary-\u6f22"])
def test_one_that_no_header_can_hold_is_refused_by_the_name_of_its_variable(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeOpenAI() as server:
        variable = key_variable(server.model())
        monkeypatch.setenv(variable, key)
        with pytest.raises(InputError, match=variable) as error:
            distill(backends_on(server))
        assert not server.bodies
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    "address", ["http://me:canary@127.0.0.1:1/v1", "http://127.0.0.1:1/v1?key=canary", "ftp://canary", "http://[canary"]
)
def test_an_address_of_a_gateway_holds_no_secret(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    backends = Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, RoleConfig(model="openai/gpt-4o"))))
    with pytest.raises(InputError, match="OPENAI_BASE_URL") as error:
        distill(backends)
    assert "canary" not in str(error.value)


def test_a_sound_key_and_answer_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOpenAI(sensible) as server:
        monkeypatch.setenv(key_variable(server.model()), KEY)
        assert distill(backends_on(server)).traits
