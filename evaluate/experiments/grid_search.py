"""A search over a grid of mixes, where running all of them is too dear: quality against cost, a mix a trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import optuna
from optuna.trial import TrialState

from evaluate.experiments.grid import Grid, Mix
from programs.runtime.errors import InputError
from signatures.rows import seed_of

GRID_SEARCH = "mixes"
TWINS_IN_A_ROW = 3
"""After so many suggestions of what has been tried in a row, chance chooses among the mixes that are left."""


def search_mixes(
    grid: Grid, trials: int, path: Path, run: Callable[[Mix], tuple[float, float] | None], seed: int = 0
) -> list[Mix]:
    """Try mixes by TPE on two objectives until there are `trials` of them, or none is left.

    Every trial samples with a seed of its own number, and a mix that was tried is not tried again; a search that was
    killed goes on like one that was not, since `run` takes up the mix that was under way.

    Args:
        path: SQLite file of the study; made when missing, continued else.
        run: Ranks with a mix; its quality (higher is better) and cost (lower is better), or None where its backends
            failed: a failed trial, never a bad one.

    Returns:
        The mixes that were tried, failed ones included, in order.

    Raises:
        InputError: if the file holds a search over another grid, or for another metric.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{path}", study_name=GRID_SEARCH, directions=["maximize", "minimize"], load_if_exists=True
    )
    every = list(grid.mixes())
    by_label = {mix.label: mix for mix in every}
    searched = grid.model_dump(mode="json", exclude={"workers", "reference", "margin", "confidence"})
    if study.user_attrs.setdefault("grid", searched) != searched:
        raise InputError(f"{path}: a search over another grid than this one; choose another --out")
    study.set_user_attr("grid", searched)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(_parameters(by_label[grid.reference_label]))
    while len(known := tried(study, by_label)) < min(trials, len(every)):
        trial = _next(study, seed)
        mix = _suggest(trial, grid)
        if mix in known:
            # Failed, not finished: the sampler learns nothing from what it knows already.
            study.tell(trial, state=TrialState.FAIL)
            if _twins(study) >= TWINS_IN_A_ROW:
                left = [other for other in every if other not in known]
                study.enqueue_trial(_parameters(left[seed_of("left", seed, len(known)) % len(left)]))
            continue
        found = run(mix)
        trial.set_user_attr("mix", mix.label)
        if found is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, list(found))
    return tried(study, by_label)


def tried(study: optuna.Study, by_label: dict[str, Mix]) -> list[Mix]:
    """The mixes of finished trials that are no twins of earlier ones."""
    labels = [t.user_attrs["mix"] for t in study.get_trials(deepcopy=False) if "mix" in t.user_attrs]
    return [by_label[label] for label in labels if label in by_label]


def _twins(study: optuna.Study) -> int:
    """How many trials in a row, up to the last finished one, chose what had been tried."""
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return sum(1 for _ in takewhile(lambda trial: "mix" not in trial.user_attrs, reversed(finished)))


def _next(study: optuna.Study, seed: int) -> optuna.Trial:
    trials = study.get_trials(deepcopy=False)
    left = next((trial for trial in trials if trial.state is TrialState.RUNNING), None)
    number = len(trials) if left is None else left.number
    study.sampler = optuna.samplers.TPESampler(seed=seed_of("mix", seed, number) % 2**32, n_startup_trials=4)
    return study.ask() if left is None else optuna.Trial(study, left._trial_id)


def _parameters(mix: Mix) -> dict[str, str]:
    return {"mope": mix.mope, "mote": mix.mote, "mar": mix.mar, "judge": mix.judge}


def _suggest(trial: optuna.Trial, grid: Grid) -> Mix:
    mope = trial.suggest_categorical("mope", grid.mope)
    mote = trial.suggest_categorical("mote", grid.mote)
    mar = trial.suggest_categorical("mar", grid.mar)
    return Mix(mope, mote, mar, trial.suggest_categorical("judge", grid.judge) if grid.judge else mar)
