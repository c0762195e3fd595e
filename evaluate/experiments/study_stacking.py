"""The ranker `learned+mar` of a study: trees that learn from what programs say about dev users, too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluate.baselines import Baseline
from evaluate.baselines.features_v1 import FeatureSource, RankerScores, RecordedScores
from evaluate.baselines.learned import Learned
from evaluate.baselines.sources.asked import AskedAbout
from evaluate.baselines.stacked import NAME as STACKED
from evaluate.baselines.stacked import StackedRanker, stack
from evaluate.experiments.study_fits import StudyFits
from evaluate.experiments.study_reading import is_finished
from evaluate.experiments.study_setting import StudySetting
from evaluate.experiments.study_spec import RankerSpec, StudyCell
from evaluate.protocol.cases import Cases
from evaluate.runs.directory import RunDirectory
from evaluate.runs.journal import read_journal, stored_manifest
from evaluate.runs.session import run_session
from programs.lm.ledger import Ledger
from programs.ranker import Ranker
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError, quoted
from programs.runtime.events import Note, OnEvent
from programs.runtime.untrusted import regular
from signatures.rows import Ranking


@dataclass
class StudyStacking:
    """Runs cells of `learned+mar` in a study's directory.

    Attributes:
        rankers: Of the study.
        run_program: Makes the run of one program in a directory, and says whether it is complete.
        retry_unparsable: Whether that asks for unparsable answers again, so that answers may change.
    """

    root: Path
    rankers: Sequence[RankerSpec]
    fits: StudyFits
    run_program: Callable[[Path, RankerSpec, StudySetting, Cases], bool]
    retry_unparsable: bool
    on_event: OnEvent

    def run(self, cell: StudyCell, setting: StudySetting, cases: Cases) -> bool:
        """Learn from dev users, too, then rank; every program has a run of its own on dev and on test users.

        The settings are those of the study's `learned`, if there is one, so that the two differ in MAR and dev lists.
        Runs that were begun with a weighted sum go on with it (`evaluate/baselines/stacked.py`). If programs have other
        answers by now, because unparsable ones were asked for again, the rows are dropped and made anew.

        Returns:
            Whether it is complete.
        """
        spec, directory = cell.ranker, self.root / cell.path
        dev = setting.tuning_cases(spec.learn_users)
        default = spec.model_copy(update={"ranker": Learned.name, "seeds": (0,)})
        learned_spec = next((ranker for ranker in self.rankers if ranker.ranker == Learned.name), default)
        learned_cell = replace(cell, ranker=learned_spec, seed=learned_spec.seeds[0])
        settings = self.fits.settings(learned_cell, setting)
        configuration: dict[str, Any] = {"ranker": STACKED, "programs": list(spec.programs), "dev": dev.sha256}
        configuration |= {"learned": settings.model_dump(mode="json"), "seed": learned_cell.seed}
        configuration |= {"fit_versions": settings.fit_versions}
        begun = stored_manifest(directory)
        trees = isinstance(settings, Learned) and (begun is None or "version" in begun.configuration)
        configuration |= {"version": 2} if trees else {}
        finished = is_finished(directory, spec.label, configuration, cases)
        files = RunDirectory(directory)
        if finished and self.retry_unparsable and not files.learned_from.exists():  # of an older version
            write_atomically(files.learned_from, _hash_of_answers(directory, spec.programs))
        # Runs of programs that are complete are checked against the study, and cost nothing.
        for part, part_cases in (("dev", dev), ("test", cases)):
            for name in spec.programs:
                program = spec.model_copy(update={"ranker": name, "label": name})
                if not self.run_program(_run_of(directory, part, name), program, setting, part_cases):
                    return False
        answers = _hash_of_answers(directory, spec.programs)
        if files.learned_from.exists() and regular(files.learned_from).read_bytes() != answers:
            self.on_event(Note(f"{spec.label}: answers of its programs have changed; it is made anew"))
            files.metrics.unlink(missing_ok=True)
            write_atomically(files.journal, b"")  # a new file: who reads the old one notices
            finished = False
        if finished:
            return True
        write_atomically(files.learned_from, answers)
        if isinstance(settings, Learned) and trees:
            ranker: Ranker = self._fit_asked(directory, spec, setting, settings, dev, cases, learned_cell.seed or 0)
        else:
            ranker = self._weighted_sum(directory, spec, setting, settings, dev, learned_cell)
        return run_session(
            directory, spec.label, ranker, configuration, cases, Ledger(), on_event=self.on_event
        ).complete

    def _fit_asked(
        self,
        directory: Path,
        spec: RankerSpec,
        setting: StudySetting,
        settings: Learned,
        dev: Cases,
        cases: Cases,
        seed: int,
    ) -> Ranker:
        """`learned` with what the programs say about dev and test lists; it learns from the dev lists, too."""
        asked = []
        for name in spec.programs:
            lists = [*dev.cases, *cases.cases]
            asked.append(AskedAbout(name, lists, *recorded_answers(directory, name), setting.factory.motivations))
        self.on_event(Note(f"{spec.label}: fitting, with {len(dev)} dev lists that the programs were asked about"))
        factory = setting.factory
        return settings.fit_asked(factory.training_data, seed, asked, dev.cases, STACKED, factory.fitting)

    def _weighted_sum(
        self,
        directory: Path,
        spec: RankerSpec,
        setting: StudySetting,
        settings: Baseline,
        dev: Cases,
        learned_cell: StudyCell,
    ) -> Ranker:
        """Version 1: a weighted sum of the learned ranker's score and MAR's."""
        learned = RankerScores(self.fits.fit(learned_cell, setting, settings), Learned.name)
        sources: dict[str, list[FeatureSource]] = {
            part: [learned, *(_mar_scores(_run_of(directory, part, name), name) for name in spec.programs)]
            for part in ("dev", "test")
        }
        ranker = StackedRanker(sources["test"], stack(sources["dev"], dev.cases, seed=0).weights)
        weights = ", ".join(f"{name} {value:.2f}" for name, value in ranker.weight_by_feature.items())
        self.on_event(Note(f"{spec.label}: weights {weights}"))
        write_atomically(RunDirectory(directory).weights, json.dumps(ranker.weight_by_feature).encode() + b"\n")
        return ranker


def recorded_answers(directory: Path, name: str) -> tuple[dict[str, Ranking], int | None]:
    """The rows of a program on dev and on test users, and its head: that of its runs, which may be its own.

    Args:
        directory: Of the stacked ranker's run.
        name: Of the program.
    """
    _, of_dev = read_journal(_run_of(directory, "dev", name))
    manifest, of_test = read_journal(_run_of(directory, "test", name))
    head = manifest.configuration.get("head")
    return of_dev | of_test, head if isinstance(head, int) else None


def _hash_of_answers(directory: Path, programs: Sequence[str]) -> bytes:
    """Hash of the rows of programs on dev and on test users, as a line; what they took does not count."""
    digest = hashlib.sha256()
    for part in ("dev", "test"):
        for name in programs:
            folder = _run_of(directory, part, name)
            rows = read_journal(folder)[1] if RunDirectory(folder).journal.exists() else {}
            for _, row in sorted(rows.items()):
                digest.update(row.model_dump_json(exclude={"usage"}).encode() + b"\n")
    return digest.hexdigest().encode() + b"\n"


def _run_of(directory: Path, part: str, name: str) -> Path:
    """Folder of a program's run on dev or on test users."""
    return directory / part / name


def _mar_scores(directory: Path, name: str) -> RecordedScores:
    """MAR's scores of a run, under the program's name; NaN for candidates that MAR did not see."""
    named = {}
    for user, row in read_journal(directory)[1].items():
        scores = row.scores.get("mar", ())
        if len(scores) != len(row.order) or not scores:
            raise InputError(f"{directory}: the row of user {quoted(user)} has no scores of MAR")
        seen = {traits.item_id for traits in row.traits} or set(row.order)
        unseen = min(scores) if len(seen) < len(row.order) else None
        known = [float("nan") if value == unseen else value for value in scores]
        named[user] = row.model_copy(update={"scores": {name: known}})
    return RecordedScores(named, name)
