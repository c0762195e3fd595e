"""Stated limits of a backend: concurrent calls, requests and tokens per minute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from programs.lm.llama_cpp import ENGINE
from programs.lm.roles import GIVEN, RoleConfig
from programs.runtime.config_file import read_toml
from programs.runtime.environment import environment

DEFAULT_CONCURRENCY = 64
"""Concurrent calls to a server or a hosted model, where no limit is stated."""


_TOKENS_OF_A_CALL = 8192
"""Hardly a call may take more; one that may is sent alone, whatever the limit of tokens is."""


class Limits(BaseModel):
    """Limits of one backend, over all roles that use it. None is no limit.

    Attributes:
        concurrency: Most calls in flight. A run begins with fewer and adapts (`AdaptiveConcurrency`).
        rpm: Most requests sent in any 60 seconds, answered or not.
        tpm: Most tokens in any 60 seconds, of prompts and answers together. The most a call may take is reserved
            before it is sent, and the rest is released with its answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int | None = Field(default=None, ge=1)
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)

    def shared(self, workers: int) -> Limits:
        """What each of several processes may use, so that all of them together keep these limits.

        >>> Limits(concurrency=64, rpm=500).shared(3)
        Limits(concurrency=21, rpm=166, tpm=None)

        Args:
            workers: At most `most_workers`: one with a smaller part would pass it.
        """
        parts = {name: None if limit is None else max(1, limit // workers) for name, limit in self}
        return Limits.model_validate(parts)

    @property
    def most_workers(self) -> int | None:
        """Number of processes with parts that are large enough for a call; None for any number.

        >>> Limits(concurrency=3, rpm=500).most_workers, Limits(tpm=100_000).most_workers, Limits(tpm=1).most_workers
        (3, 12, 1)
        """
        parts = (self.concurrency, self.rpm, None if self.tpm is None else max(1, self.tpm // _TOKENS_OF_A_CALL))
        return min((part for part in parts if part is not None), default=None)


def limits_for(config: RoleConfig, stated: Mapping[str, Limits]) -> Limits:
    """The limits of a role's backend: as stated for its model string, with a concurrency in any case.

    Those stated for a model hold for a `dspy.LM` object of that name, unless the object (`dspy:NAME`) has its own.
    Where none is stated, it is the slots of the engine on this machine, which would only queue further calls, and
    `DEFAULT_CONCURRENCY` for servers and hosted models.
    """
    limits = stated.get(config.model) or stated.get(config.model.removeprefix(GIVEN)) or Limits()
    if limits.concurrency is not None:
        return limits
    return limits.model_copy(update={"concurrency": ENGINE.slots if config.is_local else DEFAULT_CONCURRENCY})


def stated_limits(path: Path | None = None) -> dict[str, Limits]:
    """The user's limits by model string, from a TOML file with a table for each; none where there is no file.

    Args:
        path: The file; None for the one named by MLLM3REC_LIMITS.

    Raises:
        InputError: naming file and field, if it cannot be used.
    """
    own = path or environment().limits
    return {} if own is None else read_toml(own, dict[str, Limits])
