"""What fits cost, measured when they are made."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self, cast

import numpy as np
import pytest

from evaluate.baselines import Baseline, TrainingData
from evaluate.baselines.fit_cost import FitCost, fit_and_measure
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.report.costs import fit_table
from programs.prior.default_encoder import use_encoder
from programs.prior.score_ranker import ScoreRanker
from programs.prior.scorers import Popularity
from programs.runtime.errors import InputError
from programs.runtime.events import KeptFit
from signatures.rows import Interaction

DATA = TrainingData({"ann": [Interaction(item_id="mug", timestamp=1)]}, {})
MEGABYTES = 64


class Slow(Baseline):
    """Takes memory and time, and keeps its fit in a folder."""

    name: ClassVar[str] = "slow"
    seconds: float = 0.2

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """One."""
        return (cls(),)

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> ScoreRanker:
        """Fit, or find the fit."""
        folder = self.fit_folder(training, seed, fitting)
        kept = None if folder is None else folder.with_name(f"{folder.name}-more")
        if kept is not None and kept.exists():
            fitting.on_event(KeptFit("kept", kept))
        else:
            taken = np.ones(MEGABYTES << 17)
            end = time.process_time() + self.seconds
            while time.process_time() < end:
                taken += 1.0
            if kept is not None:
                kept.mkdir(parents=True)
        return ScoreRanker(self.name, Popularity({}))


def test_the_cost_of_a_kept_fit_is_that_of_making_it(tmp_path: Path) -> None:
    fitting = Fitting(tmp_path / "fits")
    first = fit_and_measure(Slow(), DATA, 0, fitting)[1]
    assert first is not None
    assert first.cpu_seconds >= 0.2
    assert first.peak_mib > MEGABYTES
    assert fit_and_measure(Slow(), DATA, 0, fitting)[1] == first
    with use_encoder("hashing"):
        assert fit_and_measure(Slow(), DATA, 0, fitting)[1] is None, "what is fitted to other vectors costs otherwise"
    other = fit_and_measure(Slow(seconds=0.0), DATA, 0, fitting)[1]
    assert other is not None
    assert other.cpu_seconds < first.cpu_seconds


def test_a_fit_that_was_begun_before_has_no_known_cost(tmp_path: Path) -> None:
    fitting = Fitting(tmp_path)
    folder = Slow().fit_folder(DATA, 0, fitting)
    assert folder is not None
    folder.with_name(f"{folder.name}-more").mkdir()
    for _ in range(2):
        assert fit_and_measure(Slow(), DATA, 0, fitting)[1] is None


def test_a_fit_of_its_own_beside_that_of_another_encoder_has_a_cost(tmp_path: Path) -> None:
    fitting = Fitting(tmp_path)
    folder = Slow().fit_folder(DATA, 0, fitting)
    assert folder is not None
    folder.with_name(f"{folder.name}-of another encoder").mkdir()
    first = fit_and_measure(Slow(), DATA, 0, fitting)[1]
    assert first is not None
    assert fit_and_measure(Slow(), DATA, 0, fitting)[1] == first


class Stacked(Slow):
    """Needs the fit of another baseline, which is kept."""

    name: ClassVar[str] = "stacked"
    part: ClassVar[Path]

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> ScoreRanker:
        """Find the part, fit the rest."""
        fitting.on_event(KeptFit("kept", self.part))
        return super().fit(training, seed, fitting)


def test_the_cost_of_a_part_that_was_kept_is_in_the_cost_of_the_whole(tmp_path: Path) -> None:
    fitting = Fitting(tmp_path)
    own = fit_and_measure(Slow(), DATA, 0, fitting)[1]
    part = Slow().fit_folder(DATA, 0, fitting)
    assert part is not None and own is not None
    Stacked.part = part
    whole = fit_and_measure(Stacked(), DATA, 0, fitting)[1]
    assert whole is not None
    assert whole.cpu_seconds >= own.cpu_seconds + 0.2
    for file in tmp_path.glob("slow-*.cost-*.json"):
        file.unlink()
    assert fit_and_measure(Stacked(), DATA, 0, fitting)[1] == whole
    assert fit_and_measure(Stacked(seconds=0.1), DATA, 0, fitting)[1] is None, "the cost of a part is not known"


def test_a_fit_that_was_deleted_is_measured_again(tmp_path: Path) -> None:
    fitting = Fitting(tmp_path)
    first = fit_and_measure(Slow(), DATA, 0, fitting)[1]
    (kept,) = tmp_path.glob("*-more")
    kept.rmdir()
    again = fit_and_measure(Slow(), DATA, 0, fitting)[1]
    assert again is not None
    assert again != first
    assert fit_and_measure(Slow(), DATA, 0, fitting)[1] == again


def test_a_fit_that_is_not_kept_is_measured_each_time() -> None:
    costs = [fit_and_measure(Slow(), DATA, 0, UNKEPT)[1] for _ in range(2)]
    assert all(cost is not None and cost.cpu_seconds >= 0.2 for cost in costs)


def test_a_damaged_cost_is_named(tmp_path: Path) -> None:
    fitting = Fitting(tmp_path)
    fit_and_measure(Slow(), DATA, 0, fitting)
    (file,) = tmp_path.glob("*.cost-*.json")
    file.write_text('{"cpu_seconds": -1, "peak_mib": 2}')
    with pytest.raises(InputError, match=f"{file.name}.*delete it"):
        fit_and_measure(Slow(), DATA, 0, fitting)


def test_the_table_of_fits() -> None:
    def group(label: str, *costs: FitCost | None) -> SimpleNamespace:
        # The first list of a process also waits for what is made when first needed.
        rows = {
            user: SimpleNamespace(usage=SimpleNamespace(seconds=s))
            for user, s in zip("abc", (0.9, 0.002, 0.001), strict=True)
        }
        runs = [SimpleNamespace(fit_cost=cost, rows=rows) for cost in costs]
        return SimpleNamespace(label=label, runs=runs, uses_lm=False)

    fitted = group("slow", FitCost(cpu_seconds=2, peak_mib=300), FitCost(cpu_seconds=4, peak_mib=200), None)
    assert fit_table(cast(Any, [group("prior", None)])) is None
    table = fit_table(cast(Any, [group("prior", None), fitted]))
    assert table is not None
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["prior", "0", "–", "–", "2.00"],
        ["slow", "2", "3.0", "300", "2.00"],
    ]
