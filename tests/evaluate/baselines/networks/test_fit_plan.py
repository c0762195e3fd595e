"""The plan of a fit: from settings and `Fitting`, and of a fit that another one needs first."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from evaluate.baselines import Baseline, TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.learned import Learned
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.systems import a_llmrec
from evaluate.baselines.systems.a_llmrec import ALLMRec
from evaluate.baselines.systems.diff4rec import Diff4Rec
from evaluate.baselines.systems.diffrec import DiffRec
from evaluate.baselines.systems.diffuasr import DiffuASR
from evaluate.baselines.systems.sasrec import SASRec
from programs.runtime.events import Event
from signatures.schema import CONSUMER
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


@pytest.mark.parametrize("settings", [Diff4Rec(), DiffuASR(), SASRec()], ids=lambda one: one.name)
def test_a_fit_has_its_name_from_before_parts_had_versions_until_one_is_raised(
    settings: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [1, settings.model_dump(mode="json"), 3, TRAINING.sha256, settings.environment()]
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]
    before = tmp_path / f"{settings.name}-{digest}"
    assert settings.fit_folder(TRAINING, 3, Fitting(tmp_path)) == before
    monkeypatch.setattr(SASRec, "fit_version", 2)
    assert settings.fit_folder(TRAINING, 3, Fitting(tmp_path)) != before


def test_a_new_stage_1_gives_a_new_fit_of_stage_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ALLMRec(stages=1)
    before = settings.fit_folder(TRAINING, 3, Fitting(tmp_path))
    monkeypatch.setattr(a_llmrec, "STAGE1_VERSION", 2)
    assert settings.fit_folder(TRAINING, 3, Fitting(tmp_path)) != before


def test_a_manifest_has_the_versions_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = [DiffRec(), Diff4Rec(), ALLMRec(stages=1), Learned(), Learned(groups=("sasrec",))]

    def recorded() -> list[object]:
        return [settings.configuration(3, CONSUMER)["fit_versions"] for settings in everything]

    assert recorded() == [[1], [1], [3], [1], [1]]
    monkeypatch.setattr(SASRec, "fit_version", 2)
    assert recorded() == [[1], [1, 1, 2], [3, 2, 1], [1], [1, 2]]
