"""How much may be asked of a backend at a time and in a minute, as its provider or its owner says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from programs.lm.llama_cpp import ENGINE
from programs.lm.roles import RoleConfig
from programs.runtime.config_file import read_toml

LIMITS_VARIABLE = "MLLM3REC_LIMITS"
MOST_IN_FLIGHT = 64


class Limits(BaseModel):
    """Limits of one backend, whichever roles it speaks for. None is no limit.

    Attributes:
        concurrency: Most calls in flight. Fewer are, until the backend has shown that it can do with so many.
        rpm: Most requests sent in any 60 seconds, answered or not.
        tpm: Most tokens in any 60 seconds, of prompts and answers together. What a call may take at most is set
            aside before it is sent, and what it did not take is given back with its answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int | None = Field(default=None, ge=1)
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)


def limits_for(config: RoleConfig, stated: Mapping[str, Limits]) -> Limits:
    """The limits of a role's backend: as stated for its model string, with a concurrency in any case.

    Where none is stated, it is the slots of the engine on this machine, which would only queue what is above them,
    and 64 for servers and hosted models.
    """
    limits = stated.get(config.model, Limits())
    if limits.concurrency is not None:
        return limits
    return limits.model_copy(update={"concurrency": ENGINE.slots if config.is_local else MOST_IN_FLIGHT})


def stated_limits(path: Path | None = None) -> dict[str, Limits]:
    """The user's limits by model string, from a TOML file with a table for each; none where there is no file.

    Args:
        path: The file; the one the environment variable MLLM3REC_LIMITS names where None.

    Raises:
        InputError: naming file and field, if it cannot be used.
    """
    named = os.environ.get(LIMITS_VARIABLE)
    own = path or (Path(named).expanduser() if named else None)
    return {} if own is None else read_toml(own, dict[str, Limits])
