"""Settings and fits of a study's trained rankers: given in the study file, tuned on dev users, or the defaults."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from evaluate.baselines import TRAINED, Baseline
from evaluate.baselines.tuning import Tuned, tune
from evaluate.experiments.study_reading import TUNE_AGAIN, tuned_path
from evaluate.experiments.study_setting import StudySetting
from evaluate.experiments.study_spec import RankerSpec, StudyCell
from evaluate.ranker_choice import FIELDS_OF_TRAITS, on_base, on_traits, settings_for_runs
from programs.prior.default_encoder import encoder_name
from programs.ranker import Ranker
from programs.runtime.atomic import write_atomically
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError, input_error
from programs.runtime.events import Note, OnEvent


class StudyFits:
    """The trained rankers of a study in one directory."""

    def __init__(self, root: Path, on_event: OnEvent) -> None:
        self.root, self.on_event = root, on_event
        self._fitted: tuple[object, Ranker] | None = None

    def settings(self, cell: StudyCell, setting: StudySetting) -> Baseline:
        """The settings of a cell; a ranker that is to be tuned is tuned once for each protocol.

        Raises:
            InputError: if the settings of the study file, or those of an earlier tuning, are invalid, or they were
                tuned on another number of dev users.
        """
        tuned = cell.ranker.tune and not cell.ranker.settings
        return self._tuned(cell, setting).chosen if tuned else self.untuned(cell)

    def untuned(self, cell: StudyCell) -> Baseline:
        """The settings of a cell without tuning: those of the study file, or the defaults.

        Raises:
            InputError: if a setting is unknown or invalid.
        """
        return self.given(cell) if cell.ranker.settings else self._defaults(cell.ranker)

    def given(self, cell: StudyCell) -> Baseline:
        """The settings of the study file on top of the defaults.

        Raises:
            InputError: if the ranker is not trained, or a setting is unknown or invalid.
        """
        spec = cell.ranker
        if spec.ranker not in TRAINED:
            raise InputError(f"{cell.path}: settings: {spec.ranker} is no trained baseline; leave them out")
        defaults = self._defaults(spec)
        try:
            return type(defaults).model_validate(defaults.model_dump() | spec.settings)
        except ValidationError as error:
            raise input_error(f"{cell.path}: settings", error, "correct the study file") from None

    def fit(self, cell: StudyCell, setting: StudySetting, settings: Baseline) -> Ranker:
        """The fitted ranker of a cell. Only the last one is kept: draws of one fit are adjacent."""
        fit = (cell.dataset.name, cell.protocol.name, settings.model_dump_json(), cell.ranker.ranker, cell.seed)
        key = (*fit, encoder_name(), setting.roles)
        if self._fitted is None or self._fitted[0] != key:
            self.on_event(Note(f"{cell.ranker.label}: fitting, seed {cell.seed}"))
            self._fitted = key, setting.factory.ranker(cell.ranker.ranker, cell.seed or 0, settings)
        return self._fitted[1]

    def _defaults(self, spec: RankerSpec) -> Baseline:
        given = None if spec.model is None else on_base(spec.ranker, spec.model)
        if given is None and spec.model_fields_set & FIELDS_OF_TRAITS:
            given = on_traits(spec.ranker)
        return given or settings_for_runs(spec.ranker, self.root)

    def _tuned(self, cell: StudyCell, setting: StudySetting) -> Tuned:
        path = tuned_path(self.root, cell)
        if path.exists():
            known: Tuned = read_json(path, Tuned, TUNE_AGAIN)
            wanted = cell.protocol.tune_users
            if known.users != wanted and len(setting.tuning_cases(wanted)) != known.users:
                raise InputError(f"{path}: was tuned on {known.users} dev users, not on {wanted}; {TUNE_AGAIN}")
            return known
        baseline = TRAINED[cell.ranker.ranker]
        dev = setting.tuning_cases(cell.protocol.tune_users)
        self.on_event(Note(f"{cell.ranker.ranker}: tuning on {len(dev)} dev users"))
        tuned = tune(baseline, setting.factory.training_data, dev.cases, 0, fitting=setting.factory.fitting)
        write_atomically(path, tuned.model_dump_json(indent=2).encode() + b"\n")
        return tuned
