"""Attack runner: every ranker on every user's list, clean, attacked and under control edits, in one resumable run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluate.attacks.attack import Attack
from evaluate.attacks.attacked_ranker import AttackedRanker
from evaluate.attacks.results import AttackResults, Observation, attack_results
from evaluate.attacks.trials import LEAST_CANDIDATES, TOP, Trial, clean_trials, edited_trials, row_of, victim_of
from evaluate.protocol.cases import Cases
from evaluate.runs.journal import Journal, RunManifest
from evaluate.runs.run import run_cases
from evaluate.runs.session import run_manifest
from evaluate.stats.metrics import rank_of
from programs.lm.ledger import Ledger
from programs.runtime.errors import BudgetExceededError, InputError, abridged
from programs.runtime.events import Note, OnEvent, Progress, ignore
from signatures.rows import Case, Ranking, Status
from signatures.types import Item

RUN_NAME = "attack"
"""What stands for the ranker in the manifest of an attack run."""

CLEAN_PHASE, EDITED_PHASE = "clean", "edited"


def phase_of(ranker: str, phase: str) -> str:
    """How the ledger marks the calls of one ranker, on texts as they are or on edited ones."""
    return f"{ranker}/{phase}"


@dataclass(frozen=True)
class AttackRun:
    """What an attack run has so far.

    Attributes:
        results: The figures.
        observations: Ranks behind the figures, one row per ranker, attack and user.
        clean: Rankings without an edit, by user, by ranker.
        missing: Trials without a scored row, by ranker; rankers without any are absent.
        stopped: Why the budget stopped it, or None.
    """

    results: AttackResults
    observations: tuple[Observation, ...]
    clean: Mapping[str, Mapping[str, Ranking]]
    missing: Mapping[str, int]
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every trial has a scored row."""
        return not self.missing


class _TrialRanker:
    """A `Ranker` of cases that stand for trials: the id of such a case is that of its trial."""

    def __init__(
        self, ranker: AttackedRanker, trials: Sequence[Trial], catalogue: Mapping[str, Item], seed: int
    ) -> None:
        self.ranker = ranker
        self.seed = seed
        self.trials = {trial.id: trial for trial in trials}
        self.catalogue = catalogue

    def rank(self, case: Case) -> Ranking:
        """See `programs.ranker.Ranker`. The ranker sees the user's own id, on which ties and labels depend."""
        trial = self.trials[case.user_id]
        row = self.ranker.rank(trial.case.blinded(), trial.item(self.catalogue))
        return _kept(row, trial, self.seed)


def _kept(row: Ranking, trial: Trial, seed: int) -> Ranking:
    """The row as the journal keeps it, with its victim; an edited one without scores, profile and other items' traits.

    A clean row has the victim that follows from it.
    """
    if trial.condition == "clean":
        victim = victim_of(trial.case, row.order, seed) if row.scored else None
        return row.model_copy(update={"user_id": trial.id, "victim": victim})
    traits = [one for one in row.traits if one.item_id == trial.victim]
    kept: dict[str, object] = {"scores": {}, "profile": None, "traits": traits, "victim": trial.victim}
    return row.model_copy(update=kept | {"user_id": trial.id})


@dataclass
class AttackRunner:
    """Attacks some rankers on some cases.

    Attributes:
        directory: The run directory; one journal and one ledger hold everything.
        users: Number of users, the first of the cases; None for all.
        seed: Decides the victims.
        workers: Lists ranked at the same time.
        retry_unparsable: Whether to rank the lists of a user again who has one with unparsable answers.

    Raises:
        InputError: if two rankers have one name, or a list is so short that all of it may be its top.
    """

    cases: Cases
    rankers: Sequence[AttackedRanker]
    attacks: Sequence[Attack]
    directory: Path
    ledger: Ledger = field(default_factory=Ledger)
    users: int | None = None
    seed: int = 0
    workers: int = 1
    on_event: OnEvent = ignore
    retry_unparsable: bool = False

    def __post_init__(self) -> None:
        self.chosen = self.cases.cases[: self.users]
        self._again: set[tuple[str, str]] = set()
        shortest = min((len(case.candidates) for case in self.chosen), default=0)
        if shortest < LEAST_CANDIDATES:
            raise InputError(
                f"lists of {shortest} candidates: an attacked item has to come from below the top {TOP}, so draw cases "
                f"with at least {LEAST_CANDIDATES - 1} negatives"
            )
        names = [ranker.name for ranker in self.rankers]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise InputError(f"ranker {min(repeated)!r} is named twice: name every ranker once")

    @property
    def manifest(self) -> RunManifest:
        """Everything that decides the rows."""
        configuration = {
            "users": len(self.chosen),
            "seed": self.seed,
            "attacks": {attack.name: attack.sha256[:16] for attack in self.attacks},
            "rankers": {ranker.name: dict(ranker.configuration) for ranker in self.rankers},
        }
        return run_manifest(RUN_NAME, configuration, self.cases)

    def run(self) -> AttackRun:
        """Start or resume the run: rank every trial that has no scored row yet, then compute the figures.

        Raises:
            InputError: if the directory holds another run, or a ranker fails for many lists in a row.
            BudgetExceededError: if the budget ended before any attack was ranked for any user.
        """
        stopped: str | None = None
        with Journal.open(self.directory, self.manifest) as journal:
            if done := len(journal.resolved()):
                self.on_event(Note(f"resuming {self.directory}: {done} lists are ranked already"))
            self._again = self._unread(journal.rows()) if self.retry_unparsable else set()
            for ranker in self.rankers:
                stopped = self._ranked(ranker, clean_trials(ranker.name, self.chosen), CLEAN_PHASE, journal)
                if stopped is None:
                    edited = [*edited_trials(ranker.name, self.chosen, self.attacks, journal.rows(), self.seed)]
                    stopped = self._ranked(ranker, edited, EDITED_PHASE, journal)
                if stopped is not None:
                    self.on_event(Note(f"stopped: {stopped}; run the same command to resume"))
                    break
            rows = journal.rows()
        return self._read(rows, stopped)

    def _ranked(self, ranker: AttackedRanker, trials: Sequence[Trial], phase: str, journal: Journal) -> str | None:
        """Rank the trials that are missing; why the budget stopped that, or None."""
        self.ledger.phase = phase_of(ranker.name, phase)
        task = f"{ranker.name}: {phase} lists"
        rows = journal.rows()
        missing = {trial.id for trial in trials if row_of(trial, rows) is None}
        done = len(trials) - len(missing)
        error: str | None = None
        self.on_event(Progress(task, done, len(trials), self.ledger.total()))

        def on_row(row: Ranking) -> None:
            nonlocal done, error
            done += row.scored
            error = error if row.scored else row.error
            self.on_event(Progress(task, done, len(trials), self.ledger.total()))

        cases = [trial.case.model_copy(update={"user_id": trial.id}) for trial in trials]
        trial_ranker = _TrialRanker(ranker, trials, self.cases.dataset.items, self.seed)
        # A missing one may have a row: of another victim.
        again = missing | {trial.id for trial in trials if (ranker.name, trial.case.user_id) in self._again}
        status = run_cases(cases, trial_ranker, journal, self.ledger, self.workers, on_row, again)
        if status.failed:
            problem = f"{status.failed} {phase} lists failed, the last with: {abridged(error or '', 1000)}"
            self.on_event(Note(f"{ranker.name}: {problem}; run the same command to retry"))
        return status.stopped

    def _unread(self, rows: Mapping[str, Ranking]) -> set[tuple[str, str]]:
        """Rankers and users with an unparsable answer; all their lists are ranked again, as the victim may change."""
        found = set()
        for ranker in self.rankers:
            edited = edited_trials(ranker.name, self.chosen, self.attacks, rows, self.seed)
            for trial in (*clean_trials(ranker.name, self.chosen), *edited):
                row = rows.get(trial.id)
                if row is not None and row.unread:
                    found.add((ranker.name, trial.case.user_id))
        return found

    def _read(self, rows: Mapping[str, Ranking], stopped: str | None) -> AttackRun:
        observations, missing = [], {}
        clean: dict[str, dict[str, Ranking]] = {}
        for ranker in self.rankers:
            own = {
                trial.case.user_id: row.model_copy(update={"user_id": trial.case.user_id, "victim": None})
                for trial in clean_trials(ranker.name, self.chosen)
                if (row := row_of(trial, rows)) is not None
            }
            clean[ranker.name] = own
            edited = [*edited_trials(ranker.name, self.chosen, self.attacks, rows, self.seed)]
            made = [row_of(trial, rows) for trial in edited]
            left = len(self.chosen) - len(own) + made.count(None)
            left += 2 * len(self.attacks) * (len(self.chosen) - len(own))
            if left:
                missing[ranker.name] = left
            for trial, attack, control in zip(edited[::2], made[::2], made[1::2], strict=True):
                if attack is not None and control is not None:
                    observations.append(_observed(trial, own[trial.case.user_id], control, attack))
        if not observations:
            raise (
                BudgetExceededError(stopped)
                if stopped
                else InputError(f"{self.directory}: no attacked list was ranked: nothing to report")
            )
        with_mote = {ranker.name: ranker.with_mote for ranker in self.rankers}
        results = attack_results(observations, with_mote, len(self.chosen), self.seed)
        return AttackRun(results, tuple(observations), clean, missing, stopped)


def _observed(attacked: Trial, clean: Ranking, control: Ranking, attack: Ranking) -> Observation:
    assert attacked.attack is not None and attacked.victim is not None and attacked.case.target is not None  # noqa: S101
    victim, target = attacked.victim, attacked.case.target
    return Observation(
        ranker=attacked.ranker,
        attack=attacked.attack.name,
        kind=attacked.attack.kind,
        user_id=attacked.case.user_id,
        item_id=victim,
        clean=rank_of(clean.order, victim),
        control=rank_of(control.order, victim),
        attacked=rank_of(attack.order, victim),
        target_clean=rank_of(clean.order, target),
        target_attacked=rank_of(attack.order, target),
        unparsable=attack.status is Status.UNPARSABLE,
        traits=tuple(phrase for one in attack.traits for phrase in one.all_phrases),
    )
