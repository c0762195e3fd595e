"""Resumable Optuna trials: a study in an SQLite file whose interrupted trial is continued by the next session."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState


def open_study(path: Path, name: str, directions: Sequence[str]) -> optuna.Study:
    """The study in a file, which is made if it is missing; Optuna's own messages are switched off."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=f"sqlite:///{path}", study_name=name, directions=list(directions), load_if_exists=True
    )


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
