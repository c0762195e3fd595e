"""The plan of a fit: from settings and `Fitting`, and of a fit that another one needs first."""

from __future__ import annotations

from pathlib import Path

from evaluate.baselines import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.systems.diffrec import DiffRec
from evaluate.baselines.systems.sasrec import SASRec
from programs.runtime.events import Event
from tests.support.cases import training_of

TRAINING = TrainingData(training_of({"u": ("a", "b")}), {})


def test_a_plan_is_made_of_settings_seed_and_where_fits_are_kept(tmp_path: Path) -> None:
    events: list[Event] = []
    fitting = Fitting(tmp_path, events.append)
    settings = SASRec(epochs=7, patience=2)
    folder = settings.fit_folder(TRAINING, 3, fitting)
    assert settings.plan(TRAINING, 3, fitting) == FitPlan("fitting sasrec", 7, 2, 3, folder, fitting.on_event)
    assert settings.plan(TRAINING, 3, UNKEPT).suffixed("texts").folder is None


def test_a_fit_that_another_one_needs_is_kept_beside_it_and_has_its_own_name_and_length() -> None:
    whole = FitPlan("fitting diff4rec", 60, 5, 3, Path("fits/diff4rec-0a"))
    part = DiffRec(epochs=4, patience=1).plan_beside(whole, "diffusion")
    assert part == FitPlan("fitting diffrec", 4, 1, 3, Path("fits/diff4rec-0a-diffusion"))
