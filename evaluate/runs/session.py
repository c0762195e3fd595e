"""A run session: ranks the cases missing in a run directory and writes the metrics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from evaluate.data.demo.store import planted_motivations
from evaluate.protocol.cases import Cases
from evaluate.runs.directory import MANIFEST, RunDirectory
from evaluate.runs.evaluation import Evaluation
from evaluate.runs.further_metrics import check_cutoffs, further_metrics
from evaluate.runs.journal import Journal, RunManifest, refuse_other_run, stored_manifest
from evaluate.runs.planted_recovery import Recovery, recovery
from evaluate.runs.run import RunStatus, run_cases
from evaluate.runs.run_metrics import run_metrics
from programs.batch.run import BatchRun
from programs.lm.endpoints import model_name
from programs.lm.ledger import Budget, Ledger, interrupted_note, read_calls
from programs.lm.roles import ROLE_NAMES, Roles
from programs.prior.choice import NEWEST, PriorName, recorded, recorded_prior
from programs.prior.default_encoder import encoder_setting
from programs.program import Fusion
from programs.ranker import Ranker
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import BudgetExceededError, InputError, abridged
from programs.runtime.events import Note, OnEvent, Progress, ignore
from signatures.rows import Ranking, Status
from signatures.schema import CONSUMER, MotivationSchema

_SHOWN_PROBLEMS = 3
"""Number of unparsable or failed users with a note of their own; further ones are counted at the end."""


@runtime_checkable
class ByFeatures(Ranker, Protocol):
    """A ranker that says how much it relies on each of its features."""

    @property
    def importance(self) -> Mapping[str, float]:
        """Share of every feature, by its name; the largest first."""
        ...


@dataclass
class _Problems:
    """Users of a session who were not ranked by the models; the first ones get a note.

    Attributes:
        failed: Those whose calls failed.
    """

    on_event: OnEvent
    failed: set[str] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)

    def count(self, row: Ranking) -> None:
        """Count a new row, if it is one of a problem."""
        if not row.scored:
            self.failed.add(row.user_id)
        if row.status is not Status.OK:
            self._counts[row.status] += 1
            if self._counts.total() <= _SHOWN_PROBLEMS:
                self.on_event(Note(f"user {abridged(row.user_id)}: {row.status}: {abridged(row.error or '', 1000)}"))

    @property
    def not_told(self) -> str | None:
        """How many there are of each kind; None if each had a note."""
        if self._counts.total() <= _SHOWN_PROBLEMS:
            return None
        return ", ".join(f"{count} {kind}" for kind, count in self._counts.items())


def run_session(
    directory: Path,
    name: str,
    ranker: Ranker,
    configuration: dict[str, Any],
    cases: Cases,
    ledger: Ledger,
    workers: int = 1,
    on_event: OnEvent = ignore,
    retry_unparsable: bool = False,
    ks: Sequence[int] = (),
    batch: BatchRun | None = None,
) -> Evaluation:
    """Start or resume a run in a run directory.

    Args:
        name: The ranker's name in results.
        retry_unparsable: Rank users with unparsable answers again.
        ks: Cutoffs of further metrics (`further_metrics`).
        batch: Answers the calls of the ranker's language models in waves; None if each is sent by itself.
        configuration: Everything that decides the rankings besides the cases; another one in the directory is an error.

    Raises:
        InputError: if the directory holds another run, or the backend cannot be used.
        BudgetExceededError: if the budget ended before any user was ranked, or does not hold for a wave of batches.
        WaveWritten: if the questions of a wave were written to a file.
    """
    check_cutoffs(ks, len(cases[0].candidates))
    problems = _Problems(on_event)
    task = f"{name}: users"
    with Journal.open(directory, run_manifest(name, configuration, cases)) as journal:
        unread = {user for user, row in journal.rows().items() if row.unread}
        again = unread if retry_unparsable else set()
        done = len(journal.resolved() - again)
        if done:
            on_event(Note(f"resuming {directory}: {done} of {len(cases)} users are done already"))
        if interrupted := ledger.total().interrupted:
            on_event(Note(f"{name}: {interrupted_note(interrupted)}"))
        on_event(Progress(task, done, len(cases), ledger.total()))

        def on_row(row: Ranking) -> None:
            nonlocal done
            done += 1
            on_event(Progress(task, done, len(cases), ledger.total()))
            problems.count(row)

        def wave() -> RunStatus:
            return run_cases(cases.cases, ranker, journal, ledger, workers, on_row, again, problems.failed)

        if done < len(cases):
            # Figures of an earlier session would be stale beside the rows of this one if it is killed.
            RunDirectory(directory).metrics.unlink(missing_ok=True)
        status = wave() if batch is None else batch.until_answered(wave)
        rows = journal.rows()
    if (others := problems.not_told) is not None:
        on_event(Note(f"{name}: of {len(cases)} users {others} in this session; the others are listed in {directory}"))
    if status.stopped:
        on_event(Note(f"stopped: {status.stopped}; {status.left} users left; run the same command to resume"))
        if not any(row.scored for row in rows.values()):
            raise BudgetExceededError(status.stopped)
    files = RunDirectory(directory)
    targets = {case.user_id: case.target for case in cases}
    write_atomically(files.targets, json.dumps(targets).encode() + b"\n")
    figures = run_metrics(name, cases.cases, rows, spent=ledger.total())
    asked = further_metrics(cases, rows, ks)
    figures = figures.model_copy(update={"further": asked.means, "coverage": asked.coverage})
    write_atomically(files.metrics, figures.model_dump_json(indent=2).encode() + b"\n")
    if isinstance(ranker, ByFeatures):
        write_atomically(files.importance, json.dumps(ranker.importance, indent=2).encode() + b"\n")
    recovered = _recovered(cases, rows)
    return Evaluation(
        name, cases, figures, rows, status, directory, recovered=recovered, usage_by_role=ledger.by_role()
    )


def run_of_several(
    root: Path,
    directory: Path,
    name: str,
    build: Callable[[Ledger], Ranker],
    configuration: dict[str, Any],
    cases: Cases,
    budget: Budget,
    workers: int = 1,
    on_event: OnEvent = ignore,
    retry_unparsable: bool = False,
) -> str | None:
    """Start or resume one of several runs of programs below a folder, whose failure ends no other.

    Args:
        root: The folder.
        build: Makes the ranker, whose calls the ledger records.
        budget: Of all runs below the folder together.
        directory, name, configuration, cases, workers, on_event, retry_unparsable: See `run_session`.

    Returns:
        Why it is incomplete, such as a backend that is down or rejects calls; None if it is complete.

    Raises:
        InputError: if the directory holds a run of other cases or settings.
        BudgetExceededError: if the budget of all runs is spent.
    """
    refuse_other_run(directory, run_manifest(name, configuration, cases))
    ledger = ledger_within(root, RunDirectory(directory).ledger, budget)
    try:
        made = run_session(
            directory, name, build(ledger), configuration, cases, ledger, workers, on_event, retry_unparsable
        )
    except InputError as error:
        return str(error)
    finally:
        ledger.close()
    if made.status.stopped is not None:
        raise BudgetExceededError(made.status.stopped)
    return None if made.complete else f"{made.status.failed} users failed"


def run_manifest(name: str, configuration: Mapping[str, Any], cases: Cases) -> RunManifest:
    """The manifest of a run with the current encoder and package versions."""
    return RunManifest(
        cases_sha256=cases.sha256,
        dataset_sha256=cases.protocol.dataset_sha256,
        ranker=name,
        configuration=dict(configuration) | encoder_setting(),
        versions=versions(),
    )


def prior_of_runs(root: Path) -> PriorName:
    """The formula of the prior for the runs in a folder or below it: that of the runs begun there, or the newest.

    Raises:
        InputError: if a manifest cannot be read.
    """
    for path in sorted(root.rglob(MANIFEST)):
        manifest = stored_manifest(path.parent)
        if manifest is not None and (manifest.ranker == "prior" or "prior" in manifest.configuration):
            return recorded_prior(manifest.configuration)
    return NEWEST


def program_configuration(
    roles: Roles,
    fusion: Fusion,
    schema: MotivationSchema,
    explain: int,
    check: bool = True,
    prior: PriorName = NEWEST,
) -> dict[str, Any]:
    """Everything that decides a program's rankings besides the cases, for the run's manifest."""
    # Left out unless it is off, so that runs from before there was a choice can be resumed.
    unchecked = {} if check else {"check": False}
    return (
        unchecked
        | gate_configuration(fusion)
        | {
            "roles": roles.model_dump(mode="json"),
            "models": model_names(roles),
            "weight": fusion.weight,
            "head": fusion.head,
            "explain": explain,
            "schema": schema.model_dump(mode="json"),
            "prior": recorded(prior),
        }
    )


def gate_configuration(fusion: Fusion) -> dict[str, Any]:
    """The gate of a program, for the run's manifest; empty without one."""
    return {} if fusion.gate is None else {"gate": fusion.gate.model_dump(mode="json")}


def model_names(roles: Roles) -> dict[str, str]:
    """Model names by role; files are named by their content, because a path may hold another model later."""
    return {role: model_name(roles.of(role)) for role in ROLE_NAMES}


def versions() -> dict[str, str]:
    """Versions of the packages that affect results, as far as they are installed."""
    found = {}
    for name in ("mllm3rec", "dspy", "numpy", "pandas", "pydantic", "torch", "transformers", "peft"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def ledger_within(root: Path, path: Path, budget: Budget) -> Ledger:
    """Ledger of one of several runs below `root`, with the part of their common budget that the others have left."""
    others = [call for other in root.rglob(path.name) if other != path for call in read_calls(other) if not call.hit]
    return Ledger(path, budget.minus(sum(call.at_most_usd for call in others), len(others)))


def _recovered(cases: Cases, rows: Mapping[str, Ranking]) -> Recovery | None:
    if cases.protocol.source != "demo":
        return None
    profiles = {user: row.profile for user, row in rows.items() if row.profile is not None}
    dimensions = {motivation.dimension for profile in profiles.values() for motivation in profile.motivations}
    if not profiles or not dimensions <= set(CONSUMER.names):
        return None  # the planted motivations have the dimensions of this schema, and cannot be found in another one
    truth = planted_motivations()
    return recovery(profiles, {user: truth[user] for user in profiles})
