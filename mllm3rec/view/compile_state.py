"""A compile as it stands, finished or not: trials, texts of the candidates, and users won and lost against trial 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage

from evaluate.experiments.resumable_trials import naming_file
from evaluate.runs.directory import LEDGER
from evaluate.stats.intervals import Difference, paired_difference
from mllm3rec.view.process import working_process
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest, is_artifact, read_manifest
from optimize.candidates import Candidates
from optimize.compiler import POOLS, STUDY
from optimize.objective import UserScore
from optimize.prompts import Prompt
from optimize.search import PROMPT_SEARCH, Attempt, attempt_of, with_repeated_start
from programs.lm.ledger import add_call, read_calls
from programs.runtime.errors import InputError
from signatures.rows import Usage


@dataclass(frozen=True)
class TrialUsers:
    """How a trial did against the uncompiled program, user by user.

    Attributes:
        won, lost: Users whose score is higher, lower; with both scores, the largest difference first.
        difference: In score, paired by user; None without common users.
    """

    won: Sequence[tuple[UserScore, UserScore]]
    lost: Sequence[tuple[UserScore, UserScore]]
    difference: Difference | None


class ViewedCompile:
    """One folder of `mllm3rec compile`.

    Args:
        name: Its name in the view.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.search = path / SEARCH_FOLDER

    @property
    def study(self) -> Path:
        """The Optuna study, which optuna-dashboard opens, too."""
        return self.search / STUDY

    @property
    def process(self) -> int | None:
        """The process that compiles; None if none does."""
        return working_process(self.search)

    @property
    def state_of_files(self) -> tuple[object, ...]:
        """Changes whenever the compile goes on."""
        names = (self.study, self.search / f"{STUDY}-wal", self.search / POOLS, self.search / LEDGER)
        stamps = [path.stat().st_mtime_ns if path.exists() else 0 for path in names]
        return (*stamps, self.process, self.manifest is not None)

    @property
    def manifest(self) -> ArtifactManifest | None:
        """Of the artifact; None before the compile is finished.

        Raises:
            InputError: if it was changed.
        """
        return read_manifest(self.path) if is_artifact(self.path) else None

    def attempts(self) -> list[Attempt]:
        """The trials so far, those under way included; empty for an optimizer without a study.

        Raises:
            InputError: if the study cannot be read.
        """
        if not self.study.exists():
            return []
        with naming_file(self.study):
            # Read-only: a page must not make or change a study.
            address = f"sqlite:///file:{quote(str(self.study))}?mode=ro&uri=true"
            storage = RDBStorage(address, skip_compatibility_check=True, skip_table_creation=True)
            try:
                study = optuna.load_study(study_name=PROMPT_SEARCH, storage=storage)
                trials = study.get_trials(deepcopy=False)
            except KeyError:
                return []
            finally:
                storage.engine.dispose()
        begun = [trial for trial in trials if "configuration" in trial.user_attrs and "twin" not in trial.user_attrs]
        return with_repeated_start([attempt_of(trial) for trial in begun])

    def candidates(self) -> Candidates | None:
        """Demos and instructions to choose from; None before they are made."""
        path = self.search / POOLS
        return Candidates.load(path) if path.exists() else None

    def prompts(self, attempt: Attempt) -> Mapping[str, Prompt]:
        """Instructions and demos of a trial by predictor; empty where they are not known."""
        candidates, chosen = self.candidates(), attempt.configuration
        if candidates is None:
            return {}
        prompts: dict[str, Prompt] = {}
        for module, pool in candidates.modules.items():
            if module in chosen.demos and module in chosen.wordings:
                prompts |= pool.prompts(chosen.demos[module], chosen.wordings[module])
        return prompts

    def spent(self) -> Mapping[str, Usage]:
        """What was paid so far, by phase."""
        phases: dict[str, Usage] = {}
        for call in read_calls(self.search / LEDGER):
            add_call(phases.setdefault(call.phase, Usage()), call)
        return phases


def against_original(attempts: Sequence[Attempt], number: int) -> TrialUsers:
    """A trial against trial 0, the uncompiled program.

    Raises:
        InputError: if there is no such trial.
    """
    by_number = {attempt.number: attempt for attempt in attempts}
    if number not in by_number or 0 not in by_number:
        raise InputError(f"there is no trial {number} yet; choose one of {', '.join(map(str, by_number)) or 'none'}")
    before = {score.user_id: score for score in by_number[0].scores}
    after = {score.user_id: score for score in by_number[number].scores}
    pairs = sorted(
        ((before[user], after[user]) for user in after if user in before),
        key=lambda pair: pair[1].score - pair[0].score,
    )
    gain = None
    if pairs:
        own = {new.user_id: new.score for _, new in pairs}
        gain = paired_difference(own, {old.user_id: old.score for old, _ in pairs}, seed=0)
    won = [pair for pair in reversed(pairs) if pair[1].score > pair[0].score]
    return TrialUsers(won, [pair for pair in pairs if pair[1].score < pair[0].score], gain)
