"""Endpoint resolution: from a model string to a file, a server, or a provider with its key."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from programs.lm.llama_cpp import ENGINE, gguf_identity
from programs.lm.openai_server import ServerEngine
from programs.lm.roles import GIVEN, RoleConfig
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore
from programs.runtime.weights import locate

_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}


def model_name(config: RoleConfig) -> str:
    """The model string for DSPy: `provider/model`, independent of where a file is.

    DSPy's cache key does not contain the address, so for servers and files the provider part identifies it.

    Raises:
        InputError: if the weights are missing or the server's address is malformed.
    """
    if config.is_local:
        identity = gguf_identity(_weights_of(config.model))
        return f"gguf-{identity[-8:]}/{identity}"
    if config.model.startswith(GIVEN):
        return config.model.removeprefix(GIVEN)
    return _server_name(config.model) if config.model.startswith(("http://", "https://")) else config.model


@lru_cache
def _server_name(model: str) -> str:
    url, _, name = model.partition("#")
    if not name or not urlsplit(url).netloc:
        raise InputError(f"model {model!r}: write an OpenAI-compatible server as http://host:port/v1#model")
    return f"server-{hashlib.sha256(url.encode()).hexdigest()[:8]}/{name}"


def connect(config: RoleConfig, on_event: OnEvent = ignore) -> dict[str, Any]:
    """Start or find the endpoint of `model_name(config)`; returns the connection settings for `dspy.LM`.

    Args:
        on_event: Told before a model is loaded into this process.
    """
    name, keys = model_name(config), credentials(config)
    if config.is_local:
        return {"engine": _engine(name, ENGINE.serve(_weights_of(config.model), on_event), config.timeout)}
    if name != config.model:
        return {"engine": _engine(name, config.model.partition("#")[0], config.timeout, **keys)}
    return {"timeout": config.timeout, **keys}


# Roles on one model share its connections and its rate limiter.
_engine = lru_cache(ServerEngine)


def credentials(config: RoleConfig) -> dict[str, str]:
    """The key for `dspy.LM`, if the model needs one; servers and files need one only if `api_key_env` is set."""
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
    return key
