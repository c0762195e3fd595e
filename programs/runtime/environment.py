"""Environment variables of this project: all of them, documented and validated in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from programs.runtime.errors import InputError

PREFIX = "MLLM3REC_"
KEY_PREFIX = f"{PREFIX}KEY_"
"""Of the variables with the keys of servers, one for each host and port (`programs.lm.endpoints.key_variable`)."""


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


UserPath = Annotated[Path, AfterValidator(_expanded)]
"""A path in which `~` stands for a home folder."""


class Environment(BaseModel):
    """Values of the variables `MLLM3REC_CACHE`, `MLLM3REC_DATA`, ...; an empty variable counts as not set.

    Attributes:
        cache: Folder of downloaded weights, embeddings, traits and responses; see `cache_dir`.
        data: Folder with datasets, searched for a dataset given by its name.
        encoder: Sentence encoder: `minilm` (on this machine), `openai` (text-embedding-3-small), `hashing` (a bag of
            hashed words, needs no weights), or any other that docs/models.md describes.
        fresh: Salt in the keys of stored answers, set by `--fresh`; see `programs/lm/fresh_answers.py`.
        limits: TOML file with the limits of backends (`programs/lm/limits.py`).
        prices: TOML file with prices that replace or extend the shipped ones (`programs/lm/prices.py`).
        bearer: Key that callers of `mllm3rec serve` send as `Authorization: Bearer`.
        trace: Spans of calls (`programs/lm/call_spans.py`): `calls`, or `texts` for questions and answers, too.
        threads: CPU threads of the language model and of the sentence encoder on this machine; see `cpu_threads`.
    """

    model_config = ConfigDict(frozen=True)

    cache: UserPath | None = None
    data: UserPath | None = None
    encoder: str = "minilm"
    fresh: str | None = None
    limits: UserPath | None = None
    prices: UserPath | None = None
    bearer: SecretStr | None = None
    trace: Literal["calls", "texts"] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None


def environment() -> Environment:
    """The current environment; read again on every call.

    Raises:
        InputError: naming the variable whose value is invalid.
    """
    values = {name: os.environ.get(variable(name)) for name in Environment.model_fields}
    try:
        return Environment.model_validate({name: value for name, value in values.items() if value})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = f"{variable(str(first['loc'][0]))} is {first['input']!r}: {first['msg']}"
        raise InputError(message) from None


def variable(name: str) -> str:
    """The variable behind a field of `Environment`.

    >>> variable("cache")
    'MLLM3REC_CACHE'
    """
    return PREFIX + name.upper()


@contextmanager
def using(name: str, value: str) -> Iterator[None]:
    """Set the variable behind a field of `Environment` inside the block, in all threads.

    So there is one place that says which value is in use.
    """
    key = variable(name)
    before = os.environ.get(key)
    os.environ[key] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


def cache_dir() -> Path:
    """Where downloads, embeddings, traits and responses are kept. Not created here.

    `$MLLM3REC_CACHE`, else `$XDG_CACHE_HOME/mllm3rec`, else the folder of the platform (`~/.cache/mllm3rec` on Linux).
    """
    if (own := environment().cache) is not None:
        return own
    # platformdirs ignores a relative XDG_CACHE_HOME: caches made with one would not be found again.
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser() / "mllm3rec"
    import platformdirs

    return platformdirs.user_cache_path("mllm3rec", appauthor=False)


def cpu_threads() -> int:
    """Threads for work of our own on the CPU: `$MLLM3REC_THREADS`, else one for each core this process may use."""
    if (own := environment().threads) is not None:
        return own
    allowed = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(allowed(0)) if allowed else os.cpu_count() or 1
