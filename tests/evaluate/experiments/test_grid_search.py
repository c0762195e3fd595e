"""The search over mixes: resumable, never twice the same, failures are no bad mixes."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from evaluate.experiments.grid import Grid, Mix
from evaluate.experiments.grid_search import GRID_SEARCH, search_mixes
from evaluate.experiments.resumable_trials import open_study

NAMES = ("a", "b", "c")
GRID = Grid.model_validate(
    {"backends": {n: {"model": f"local/{n}"} for n in NAMES}, "mope": NAMES, "mote": ("a",), "mar": NAMES}
)
WORTH = {"a": 0.1, "b": 0.5, "c": 0.4}


def quality(mix: Mix) -> tuple[float, float]:
    return WORTH[mix.mope] + 2 * WORTH[mix.mar], float(NAMES.index(mix.mope) + NAMES.index(mix.mar))


def test_the_reference_comes_first_and_no_mix_comes_twice(tmp_path: Path) -> None:
    runs: list[Mix] = []

    def run(mix: Mix) -> tuple[float, float]:
        runs.append(mix)
        return quality(mix)

    found = search_mixes(GRID, 6, tmp_path / "mixes.sqlite", run)
    assert found == runs
    assert len(set(found)) == 6
    assert found[0].label == GRID.reference_label


def test_a_search_that_was_killed_goes_on_like_one_that_was_not(tmp_path: Path) -> None:
    whole = search_mixes(GRID, 6, tmp_path / "whole.sqlite", quality)
    left = 3

    def dying(mix: Mix) -> tuple[float, float]:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return quality(mix)

    with pytest.raises(KeyboardInterrupt):
        search_mixes(GRID, 6, tmp_path / "killed.sqlite", dying)
    again: list[Mix] = []

    def counting(mix: Mix) -> tuple[float, float]:
        again.append(mix)
        return quality(mix)

    assert search_mixes(GRID, 6, tmp_path / "killed.sqlite", counting) == whole
    assert again == whole[3:], "what was done is not run again"


def test_a_kill_before_the_result_is_told_loses_no_mix_for_the_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mixes.sqlite"
    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "tell", killed)
        with pytest.raises(KeyboardInterrupt):
            search_mixes(GRID, 3, path, quality)
    assert search_mixes(GRID, 3, path, quality) == search_mixes(GRID, 3, tmp_path / "whole.sqlite", quality)
    trials = open_study(path, GRID_SEARCH, ["maximize", "minimize"]).get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3


def killed(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_failed_mix_is_not_tried_again_and_a_small_grid_ends(tmp_path: Path) -> None:
    def run(mix: Mix) -> tuple[float, float] | None:
        return None if mix.mope == "b" else quality(mix)

    found = search_mixes(GRID, 100, tmp_path / "mixes.sqlite", run)
    assert set(found) == set(GRID.mixes())
    assert len(found) == 9
