"""Endpoint resolution: from a model string to a file, a server, or a provider with its key."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from programs.lm.hosted import HostedEngine, gateway, is_known
from programs.lm.keys import usable_key
from programs.lm.llama_cpp import EMBEDDER, ENGINE, gguf_identity
from programs.lm.openai_server import ServerEngine
from programs.lm.prices import shipped_prices
from programs.lm.roles import GIVEN, RoleConfig
from programs.lm.routes import EMBEDDINGS, Route, RouteEngine
from programs.lm.through_litellm import ThroughLiteLLM
from programs.runtime.environment import KEY_PREFIX
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore
from programs.runtime.weights import locate

_PATIENCE = 5.0
"""Seconds for a connection to a server, before the first call."""

_OPENAI = "https://api.openai.com/v1"
_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}


def model_name(config: RoleConfig) -> str:
    """The model string for DSPy: `provider/model`, independent of where a file is.

    DSPy's cache key does not contain the address, so for servers and files the provider part identifies it.

    Raises:
        InputError: if the weights are missing, the server's address is malformed, or a hosted model has no provider.
    """
    if config.is_local:
        identity = gguf_identity(_weights_of(config.model))
        return f"gguf-{identity[-8:]}/{identity}"
    if config.model.startswith(GIVEN):
        return config.model.removeprefix(GIVEN)
    if "://" in config.model:
        return _server_name(config.model)
    if "/" not in config.model:
        raise InputError(_without_provider(config.model))
    return config.model


def require_listening(model: str) -> None:
    """Check that something listens at a server's address, before the first call is sent to it.

    Raises:
        InputError: naming the address, if a connection is refused.
    """
    address = urlsplit(model.partition("#")[0])
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_PATIENCE).close()
    except (ConnectionRefusedError, socket.gaierror) as error:
        reason = "no server listens there" if isinstance(error, ConnectionRefusedError) else "there is no such host"
        raise InputError(
            f"model {model}: {reason} ({address.hostname}:{port}); start it, or correct the address"
        ) from None
    except OSError:
        pass  # Slow or unreachable for now: the call itself is retried.


def _without_provider(model: str) -> str:
    near = [name for name in shipped_prices().names() if name.partition("/")[2] == model]
    hint = f"did you mean {near[0]!r}?" if near else "docs/models.md has all forms"
    return f"model {model[:200]!r}: write a hosted model as PROVIDER/MODEL, for example openai/gpt-6-luna; {hint}"


@lru_cache
def _server_name(model: str) -> str:
    url, _, name = model.partition("#")
    if not is_server(url):
        url = ""  # of another scheme
    try:
        address = urlsplit(url)
        host, port = address.hostname, address.port
    except ValueError:
        host, port = None, None
    if host and (address.username or address.password or address.query or "?" in name):
        # Not repeated in the message: it may hold the key.
        raise InputError(
            f"the address of the server at {host} holds a user name, a password or a query: an address is written to "
            f"files and messages; give the key in the environment variable {_key_variable(host, port)} instead"
        )
    if not name or not host:
        raise InputError(
            f"model {_without_secret(model)[:200]!r}: write an OpenAI-compatible server as http://host:port/v1#model"
        )
    return f"server-{hashlib.sha256(url.encode()).hexdigest()[:8]}/{name}"


def _without_secret(address: str) -> str:
    """An address that may be malformed, without what may be a user name, a password or a query."""
    return re.sub(r"\?.*", "?...", re.sub(r"//.*@", "//...@", address, flags=re.DOTALL), flags=re.DOTALL)


def key_variable(model: str) -> str:
    """The environment variable that holds the key of a model's server or provider.

    That of a server contains its host and port, so that a key is sent to the server it was set for and to no other,
    whatever address an artifact or a file from elsewhere holds.

    >>> key_variable("http://127.0.0.1:8377/v1#qwen"), key_variable("openai/gpt-4.1")
    ('MLLM3REC_KEY_127_0_0_1_8377', 'OPENAI_API_KEY')
    """
    if is_server(model):
        address = urlsplit(model.partition("#")[0])
        return _key_variable(address.hostname or "", address.port)
    provider = model.removeprefix(GIVEN).split("/")[0]
    return _KEYS.get(provider, f"{provider.upper()}_API_KEY")


def _key_variable(host: str, port: int | None) -> str:
    # A name of its own for every host: "-" and "." differ.
    plain = host.replace("-", "__").replace(".", "_").replace(":", "_")
    return f"{KEY_PREFIX}{plain}{'' if port is None else f'_{port}'}".upper()


def connect(config: RoleConfig, on_event: OnEvent = ignore) -> dict[str, Any]:
    """Start or find the endpoint of `model_name(config)`; returns the connection settings for `dspy.LM`.

    Args:
        on_event: Told before a model is loaded into this process.
    """
    name, keys = model_name(config), credentials(config)
    if config.is_local:
        address, key = ENGINE.serve(_weights_of(config.model), on_event, config.deterministic)
        return {"engine": _server(name, address, config.timeout, key, empty_answers=True)}
    if is_server(config.model):
        return {"engine": _server(name, config.model.partition("#")[0], config.timeout, **keys)}
    if is_known(name):
        return {"engine": _hosted(name, config.timeout, **keys, address=gateway(name))}
    return {"engine": _through_litellm(name, config.timeout, **keys)}


def connect_route(config: RoleConfig, route: Route, on_event: OnEvent = ignore) -> RouteEngine:
    """Start or find the endpoint of a model that is asked by a route other than chat.

    Args:
        on_event: Told before a model is loaded into this process.

    Raises:
        InputError: if there is no such route for this kind of model.
    """
    name, keys = model_name(config), credentials(config)
    if is_server(config.model):
        return _route(name, config.model.partition("#")[0], route, config.timeout, **keys)
    if route is EMBEDDINGS and config.is_local:
        address, key = EMBEDDER.serve(_weights_of(config.model), on_event)
        return _route(name, address, route, config.timeout, key)
    if route is EMBEDDINGS and name.startswith("openai/"):
        return _route(name, gateway(name) or _OPENAI, route, config.timeout, **keys)
    raise InputError(
        f"model {config.model[:200]!r}: no server for {route.path}; write one as http://host:port/v1#model"
    )


# Roles on one model share its connections and its rate limiter.
_server = lru_cache(ServerEngine)
_hosted = lru_cache(HostedEngine)
_through_litellm = lru_cache(ThroughLiteLLM)
_route = lru_cache(RouteEngine)


def is_server(model: str) -> bool:
    """Whether a model string is the address of an OpenAI-compatible server."""
    return model.startswith(("http://", "https://"))


def credentials(config: RoleConfig) -> dict[str, str]:
    """The key for `dspy.LM`, if the model needs one.

    A server's is in the variable that `key_variable` names, if that is set; the configuration may name another one.
    """
    if config.api_key_env is None and is_server(config.model):
        own = key_variable(config.model)
        return {"api_key": usable_key(os.environ[own], own)} if os.environ.get(own) else {}
    variable = config.api_key_env or _KEYS.get(config.model.split("/")[0])
    return {"api_key": _key(variable, config.model)} if variable else {}


def _weights_of(model: str) -> Path:
    if model.startswith("gguf:"):
        return Path(model.removeprefix("gguf:")).expanduser()
    name = model.removeprefix("local/")
    files = locate(name)
    if files is None:
        raise InputError(f"the weights of {name!r} are not on this machine: run `mllm3rec models fetch {name}`")
    return next(path for path in files.values() if path.suffix == ".gguf")


def _key(variable: str, model: str) -> str:
    key = os.environ.get(variable)
    if not key:
        raise InputError(f"{model} needs a key: set the environment variable {variable}")
    return usable_key(key, variable)
