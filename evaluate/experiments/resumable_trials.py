"""Resumable Optuna trials: a study in an SQLite file whose interrupted trial is continued by the next session."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from programs.runtime.errors import InputError, abridged

PATIENCE = 1.0
"""Seconds to wait for a study that another process has locked. Optuna waits again up to six times, with pauses; the
lock of the run folder keeps other commands out, so whoever holds the file holds it for longer than a moment."""

_REMEDIES = {
    "locked": "another process uses it: run the same command again when that has ended",
    "disk is full": "make room on the disk, then run the same command again",
    "disk I/O": "make room on the disk, then run the same command again",
}


def open_study(path: Path, name: str, directions: Sequence[str]) -> optuna.Study:
    """The study in a file, which is made if it is missing; Optuna's own messages are switched off.

    Raises:
        InputError: if the file is another kind of file, damaged, locked or not writable; later errors of the study are
            turned into it by `naming_file`.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming_file(path):
        try:
            storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": PATIENCE}})
            return optuna.create_study(
                storage=storage, study_name=name, directions=list(directions), load_if_exists=True
            )
        except RuntimeError as error:  # a file of another version of Optuna
            raise StorageInternalError(str(error)) from error


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Errors of the file of a study inside the block become an `InputError` that names it.

    Trials that ended before are in the file, and answers in the response cache: the same command goes on from there.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, json.JSONDecodeError) as error:
        cause = error.__cause__ or error
        problem = abridged(str(getattr(cause, "orig", cause)).partition("\n")[0])
        remedy = next((what for said, what in _REMEDIES.items() if said in problem), "choose another --out")
        raise InputError(f"{path}: cannot be used as a search ({problem}); {remedy}") from error


def next_trial(study: optuna.Study, sampler_of: Callable[[int], optuna.samplers.BaseSampler]) -> optuna.Trial:
    """The trial that a killed session left running, else an enqueued one, else a new one.

    Args:
        sampler_of: Sampler for the number of a trial. With a seed of that number, a resumed search makes the same
            trials as an uninterrupted one.
    """
    trials = study.get_trials(deepcopy=False)
    running = next((trial for trial in trials if trial.state is TrialState.RUNNING), None)
    existing = running or next((trial for trial in trials if trial.state is TrialState.WAITING), None)
    study.sampler = sampler_of(len(trials) if existing is None else existing.number)
    return study.ask() if running is None else optuna.Trial(study, running._trial_id)


def duplicates_in_a_row(study: optuna.Study, is_duplicate: Callable[[FrozenTrial], bool]) -> int:
    """Number of duplicates among the finished trials since the last other one."""
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return sum(1 for _ in takewhile(is_duplicate, reversed(finished)))
