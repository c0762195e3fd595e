"""Search over a grid of mixes: Optuna's TPE on two objectives, quality and cost, with one mix per trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import TrialState

from evaluate.experiments.grid import Grid, Mix
from evaluate.experiments.resumable_trials import duplicates_in_a_row, naming_file, next_trial, open_study
from programs.runtime.errors import InputError
from signatures.rows import seed_of

GRID_SEARCH = "mixes"
DUPLICATES_IN_A_ROW = 3
"""After this many suggestions of tried mixes in a row, one of the remaining mixes is chosen at random."""
_SEED = 0


def search_mixes(grid: Grid, trials: int, path: Path, run: Callable[[Mix], tuple[float, float] | None]) -> list[Mix]:
    """Try `trials` different mixes, or all of them.

    A killed search continues with the mix under way and tries the same mixes as an uninterrupted one.

    Args:
        path: SQLite file of the search; made if it is missing, else continued.
        run: Ranks with a mix and returns its quality (higher is better) and cost (lower is better), or None if its
            backends failed, which is a failed trial.

    Returns:
        The mixes that were tried, failed ones included, in order.

    Raises:
        InputError: if the file cannot be used, or holds a search over another grid or for another metric.
    """
    with naming_file(path):
        return _search(open_study(path, GRID_SEARCH, ["maximize", "minimize"]), grid, trials, path, run)


def _search(
    study: optuna.Study,
    grid: Grid,
    trials: int,
    path: Path,
    run: Callable[[Mix], tuple[float, float] | None],
) -> list[Mix]:
    by_label = {mix.label: mix for mix in grid.mixes()}
    searched = grid.model_dump(mode="json", exclude={"workers", "reference", "margin", "confidence"})
    if study.user_attrs.setdefault("grid", searched) != searched:
        raise InputError(f"{path}: holds a search over another grid; choose another --out")
    study.set_user_attr("grid", searched)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(_parameters(by_label[grid.reference_label]))
    while len(tried := tried_mixes(study, by_label)) < min(trials, len(by_label)):
        trial = next_trial(study, _sampler)
        mix = _suggest(trial, grid)
        if mix in tried:
            # Failed, not complete: the sampler must not see the same result twice.
            study.tell(trial, state=TrialState.FAIL)
            if duplicates_in_a_row(study, lambda trial: "mix" not in trial.user_attrs) >= DUPLICATES_IN_A_ROW:
                left = [other for other in by_label.values() if other not in tried]
                study.enqueue_trial(_parameters(left[seed_of("left", _SEED, len(tried)) % len(left)]))
            continue
        objectives = run(mix)
        trial.set_user_attr("mix", mix.label)
        if objectives is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, list(objectives))
    return tried


def tried_mixes(study: optuna.Study, by_label: dict[str, Mix]) -> list[Mix]:
    """The mixes of finished trials, without duplicates."""
    # A kill between the name of the mix and its result leaves a trial that is still to be told.
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    labels = [trial.user_attrs["mix"] for trial in finished if "mix" in trial.user_attrs]
    return [by_label[label] for label in labels if label in by_label]


def _sampler(number: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed_of("mix", _SEED, number) % 2**32, n_startup_trials=4)


def _parameters(mix: Mix) -> dict[str, str]:
    return {"mope": mix.mope, "mote": mix.mote, "mar": mix.mar, "judge": mix.judge}


def _suggest(trial: optuna.Trial, grid: Grid) -> Mix:
    mope = trial.suggest_categorical("mope", grid.mope)
    mote = trial.suggest_categorical("mote", grid.mote)
    mar = trial.suggest_categorical("mar", grid.mar)
    return Mix(mope, mote, mar, trial.suggest_categorical("judge", grid.judge) if grid.judge else mar)
