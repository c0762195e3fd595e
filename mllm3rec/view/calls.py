"""The calls of one user, made again from the response cache: exact messages, raw and parsed answers; nothing is sent.

Neither run folders nor the response cache keep prompts, only their hashes. So the run's own program, built from its
manifest, ranks the user once more, and each question is answered by the response cache or not at all. A question whose
hash is in the run's ledger is the very prompt that the run sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import dspy
import numpy as np
from dspy.utils.callback import BaseCallback
from numpy.typing import NDArray

from evaluate.runs.journal import RunManifest
from mllm3rec.view.case_lines import CaseLines
from mllm3rec.view.ledger_lines import LedgerLines
from optimize.artifact import restore_program
from programs.gate import Gate
from programs.lm.backends import Backends
from programs.lm.endpoints import is_server, model_name
from programs.lm.hosted import HostedEngine, is_known
from programs.lm.ledger import Call, Ledger
from programs.lm.openai_server import ServerEngine
from programs.lm.pending import PendingCall
from programs.lm.role_lm import RoleLM
from programs.lm.roles import RoleConfig, RoleName, Roles
from programs.lm.routes import Route, RouteLM
from programs.lm.through_litellm import ThroughLiteLLM
from programs.prior.default_encoder import stored_encoder
from programs.prior.scorers import histories_of
from programs.program import PROGRAMS, Fusion, MLLM3Rec, Parts
from programs.runtime.errors import InputError, one_line, quoted
from programs.trait_store import TraitStore
from signatures.rows import Ranking
from signatures.schema import MotivationSchema

_NOWHERE = "http://127.0.0.1:9/v1"
"""The address of the servers in `KeptAnswers`: no call is ever sent there."""

SentMessage = Mapping[str, Any]


@dataclass
class UserCall:
    """One question about a user, and its answer.

    Attributes:
        role: MOPE, MOTE, MAR or the judge.
        about: Its name in the ledger: the hash of the prompt, or of the item for MOTE.
        answer: The model's answer as it was; None where the response cache does not have it any more.
        parsed: What was read from it, by output field; None where it could not be read.
        problem: Why it could not be read; or empty.
        recorded: Its lines in the run's ledger; empty if the run did not ask this question.
    """

    role: str
    model: str
    about: str
    messages: Sequence[SentMessage]
    answer: str | None = None
    parsed: Mapping[str, Any] | None = None
    problem: str = ""
    recorded: Sequence[Call] = ()


@dataclass(frozen=True)
class UserCalls:
    """All questions about one user.

    Attributes:
        missing: What is not kept, in words; or empty.
        same: Whether the ranking that came out is the one of the run's journal; None if none came out.
    """

    calls: Sequence[UserCall] = ()
    missing: str = ""
    same: bool | None = None


class KeptAnswers(Backends):
    """Backends that answer from the response cache only: they need no key, no weights in memory and no server."""

    def require(self, role: RoleName) -> None:
        """See `Backends.require`: nobody is asked."""

    def connection(self, config: RoleConfig) -> dict[str, Any]:
        """A client that writes requests as that of the run did; it is never used to send them."""
        name = model_name(config)
        if config.is_local or is_server(config.model):
            return {"engine": ServerEngine(name, _NOWHERE, config.timeout, empty_answers=config.is_local)}
        client = HostedEngine if is_known(name) else ThroughLiteLLM
        return {"engine": client(name, config.timeout, api_key="not used")}

    def build(self, role: str, config: RoleConfig) -> RoleLM:
        """See `Backends.build`."""
        lm = super().build(role, config)
        lm.before_first = cache(_not_kept)
        return lm

    def _route_lm(self, role: str, config: RoleConfig, route: Route) -> RouteLM:
        # Before `RoleLM` looks at the connection: a miss is never sent.
        lm = super()._route_lm(role, config, route)
        lm.before_first = cache(_not_kept)
        return lm


def _not_kept() -> None:
    raise PendingCall


@dataclass
class _Listener(BaseCallback):
    """Notes every question to a model, and what its adapter read from the answer."""

    calls: list[UserCall] = field(default_factory=list)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        if isinstance(instance, RoleLM):
            messages = inputs.get("messages") or [{"role": "user", "content": inputs.get("prompt") or ""}]
            about = instance.ledger.about(instance.about)
            self.calls.append(UserCall(instance.role, instance.model, about, messages))

    def on_lm_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        if self.calls and exception is None and outputs:
            self.calls[-1].answer = _text(outputs[0])

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        if not self.calls:
            return
        if exception is not None:
            self.calls[-1].problem = one_line(exception)
        elif isinstance(outputs, Mapping):
            self.calls[-1].parsed = dict(outputs)


def _text(output: Any) -> str:
    if isinstance(output, Mapping):
        return str(output.get("text") or "")
    return str(output)


@dataclass(frozen=True)
class _RecordedPrior:
    """The prior's scores in a journal row, instead of fitting the prior again."""

    recorded: Sequence[float]

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> NDArray[np.float64]:
        """See `programs.prior.scorers.Scorer`."""
        return np.asarray(self.recorded, dtype=np.float64)


@dataclass(frozen=True)
class _EncoderWhenNeeded:
    """The chosen sentence encoder, loaded only by programs that compare embeddings; it sends nothing."""

    name: str = "when needed"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `programs.prior.encoders.Encoder`."""
        return stored_encoder().encode(texts)


def calls_of_user(
    manifest: RunManifest, cases: CaseLines, row: Ranking, ledger: LedgerLines, artifacts: Mapping[str, Path]
) -> UserCalls:
    """Every call about a user, as far as it is kept.

    Args:
        manifest: Of the run.
        cases: That it ranked.
        row: The user's row in its journal.
        ledger: Of the run.
        artifacts: Folders of artifacts by hash, one of which the run may have used.
    """
    if "roles" not in manifest.configuration:
        return UserCalls(missing="This ranker asks no language model, or is a function of somebody's own.")
    if not row.asked:
        return UserCalls(missing="The gate did not ask the models about this user: the prior alone ranked.")
    case, listener = cases.find(row.user_id), _Listener()
    if case is None:
        return UserCalls(missing="Not kept: the cases of this run do not hold this user.")
    try:
        program = _program(manifest, row, cases, artifacts)
        with dspy.context(callbacks=[listener]):
            again = program.rank(case.blinded())
    except PendingCall:
        return _noted(listener, ledger, "Answers that are not in the response cache of this machine are not kept.")
    except Exception as error:
        # An older version's run, weights on another machine, ...: the rest of the page is shown all the same.
        return _noted(listener, ledger, f"Not kept: {one_line(error)}")
    return _noted(listener, ledger, "", again.order == row.order)


def _noted(listener: _Listener, ledger: LedgerLines, missing: str, same: bool | None = None) -> UserCalls:
    for call in listener.calls:
        call.recorded = [found for found in ledger.about(call.about) if found.role == call.role]
    return UserCalls(listener.calls, missing, same)


def _program(manifest: RunManifest, row: Ranking, cases: CaseLines, artifacts: Mapping[str, Path]) -> MLLM3Rec:
    """The program of a run, on recorded answers."""
    made = dict(manifest.configuration)
    roles = Roles.model_validate(made["roles"])
    gate = None if made.get("gate") is None else Gate.model_validate(made["gate"])
    head = made.get("head")
    parts = Parts(
        backends=KeptAnswers(roles, Ledger()),
        catalogue=cases.dataset.items,
        prior=_RecordedPrior(row.scores.get("prior", [0.0] * len(row.order))),
        encoder=_EncoderWhenNeeded(),
        traits=TraitStore(),
        schema=MotivationSchema.model_validate(made["schema"]),
        fusion=Fusion(float(str(made["weight"])), head if isinstance(head, int) else None, gate),
        explain=int(str(made.get("explain", 0))),
        check=bool(made.get("check", True)),
        histories=histories_of(cases.training),
    )
    sealed = made.get("artifact")
    if sealed is not None:
        if sealed in artifacts:
            return restore_program(artifacts[str(sealed)], parts)[0]
        raise InputError(f"the artifact {str(sealed)[:8]} of this run is not in the viewed folder")
    name = str(made.get("ranker", manifest.ranker))
    if name not in PROGRAMS:
        raise InputError(f"the manifest does not name the program of the ranker {quoted(name)}")
    return PROGRAMS[name](parts)
