"""Description of a stage: everything that it is built from, as data that can be written, sent and compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from evaluate.ranker_choice import named_models, refuse_ignored
from optimize.artifact import is_artifact, read_manifest
from optimize.resolve import resolve_ranker
from programs.lm.ledger import Budget
from programs.lm.limits import limits_for, stated_limits
from programs.lm.model_options import ModelOptions
from programs.lm.roles import ROLE_NAMES, RoleName, Roles
from programs.program import DEFAULT_WEIGHT, Fusion
from programs.runtime.config_file import load_schema

Task = Literal["distill", "profile", "recommend"]

_ALONE: dict[Task, RoleName] = {"distill": "mote", "profile": "mope"}
"""The role that a task asks, where it asks one alone."""


class StageOptions(TypedDict, total=False):
    """Program and models of a stage, see `StageSettings`."""

    program: str
    preset: str | None
    model: str | None
    mope: str | None
    mote: str | None
    mar: str | None
    judge: str | None
    timeout: float | None
    max_tokens: int | None
    schema_file: Path | None
    weight: float | None
    head: int | None
    ledger: Path | None
    retry_unparsable: bool
    cache: Path | None


class StageSettings(BaseModel):
    """What a stage does, with which models, and what it may spend.

    Attributes:
        task: `distill` (items to traits), `profile` (users to profiles) or `recommend` (users to items).
        program: Name of a program, or the folder of an artifact.
        preset, model, mope, mote, mar, judge: Models, as in `mllm3rec.program`; model strings only.
        timeout, max_tokens: Most seconds of a call, and most tokens of an answer.
        schema_file: Motivational schema; None for the program's own.
        weight, head: See `mllm3rec.program`.
        dataset: Directory, file or `demo`, for `recommend`.
        dataset_sha256: Its `Dataset.sha256`, which the data of every worker must have; None to check nothing.
        columns: Names of its columns by ours, see `load_dataset`.
        k: Items to recommend to each user.
        candidates: Items that the prior retrieves for each user.
        explain: Whether each recommended item gets a checked reason.
        ledger: File that gets every call; None to keep none.
        budget: What this stage may spend; calls that are in the ledger already do not count.
        workers: Number of stages that work at the same time, and share the limits of their models; not more than
            `most_workers`.
        retry_unparsable: Whether to ask again where a stored answer is unparsable.
        cache: Cache folder; None for the usual one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    program: str = "embedding"
    preset: str | None = None
    model: str | None = None
    mope: str | None = None
    mote: str | None = None
    mar: str | None = None
    judge: str | None = None
    timeout: float | None = None
    max_tokens: int | None = None
    schema_file: Path | None = None
    weight: float | None = Field(default=None, ge=0, le=1)
    head: int | None = None
    dataset: str | None = None
    dataset_sha256: str | None = None
    columns: dict[str, str] = {}
    k: int = Field(default=5, ge=1)
    candidates: int = Field(default=15, ge=1)
    explain: bool = False
    ledger: Path | None = None
    budget: Budget = Budget()
    workers: int = Field(default=1, ge=1)
    retry_unparsable: bool = False
    cache: Path | None = None

    @property
    def models(self) -> ModelOptions:
        """The models, as the user named them."""
        return ModelOptions(
            self.preset, self.model, self.mope, self.mote, self.mar, self.judge, self.timeout, self.max_tokens
        )

    @property
    def roles(self) -> Roles:
        """The models that the task asks; the others are never asked, and so need not be there."""
        roles: Roles = self.choice().roles
        alone = _ALONE.get(self.task)
        return roles if alone is None else Roles.all_on(roles.of(alone))

    def most_workers(self) -> int | None:
        """Number of stages among which the limits of the models can be divided; None for any number.

        A model in this process is another one in each of them: its slots are no limit for all.
        """
        stated = stated_limits()
        models = {(config := self.roles.of(role)).model: config for role in ROLE_NAMES}
        shared = [config for model, config in models.items() if model in stated or not config.is_local]
        parts = [limits_for(config, stated).most_workers for config in shared]
        return min((part for part in parts if part is not None), default=None)

    def choice(self) -> Any:
        """The program with its models, fusion and schema (`evaluate.ranker_choice.RankerChoice`).

        Raises:
            InputError: if there is no such program or preset, a file cannot be read, or the program would ignore an
                option.
        """
        schema = None if self.schema_file is None else load_schema(self.schema_file)
        fusion = Fusion(weight=self._weight, head=self.head)
        asked = (_ALONE[self.task],) if self.task in _ALONE else ROLE_NAMES
        choice = resolve_ranker(self.program, self.models, fusion, schema, asked)
        models = named_models(dict(self))
        refuse_ignored([choice.options_read], weight=self.weight, explain=self.explain or None, **models)
        return choice

    @property
    def _weight(self) -> float:
        return DEFAULT_WEIGHT if self.weight is None else self.weight

    def identity(self) -> str:
        """Hash of what decides the rows: two jobs with the same one may share their output."""
        choice = self.choice()
        program = read_manifest(Path(self.program)).sha256 if is_artifact(Path(self.program)) else self.program
        facts: dict[str, Any] = {
            "task": self.task,
            "program": program,
            "roles": {role: self.roles.of(role).model_dump(mode="json", exclude={"timeout"}) for role in ROLE_NAMES},
            "schema": choice.schema.model_dump(mode="json"),
        }
        if self.task == "recommend":
            facts |= {
                "weight": self._weight,
                "head": self.head,
                "k": self.k,
                "candidates": self.candidates,
                "explain": self.explain,
            }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
