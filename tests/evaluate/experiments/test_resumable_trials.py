"""Files of searches that are damaged, locked, full or foreign: one line that names them, and no trial is lost."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from evaluate.experiments import resumable_trials
from evaluate.experiments.resumable_trials import naming_file, open_study
from optimize.search import attempt_of
from programs.runtime.errors import InputError
from tests.support.files import overwrite_pages
from tests.support.paths import ROOT


def study(path: Path) -> optuna.Study:
    return open_study(path, "x", ["maximize"])


def damage(path: Path) -> None:
    study(path)
    overwrite_pages(path)


def edit(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"something else" * 500), "file is not a database"),
        (damage, "malformed"),
        (lambda path: path.mkdir(), "unable to open"),
    ],
)
def test_a_file_that_is_no_study_is_named(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "study.sqlite"
    spoil(path)
    with pytest.raises(InputError, match=rf"^{path}: cannot be used as a search \(.*{said}.*\); choose another --out$"):
        study(path)


def test_a_locked_study_is_named_and_goes_on_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_trials, "PATIENCE", 0.05)
    path = tmp_path / "study.sqlite"
    made = study(path)
    made.tell(made.ask(), 1.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match=rf"^{path}: .*locked\); another process uses it"), naming_file(path):
            made.ask()
    made.tell(made.ask(), 2.0)
    assert [trial.value for trial in study(path).get_trials() if trial.value is not None] == [1.0, 2.0]


def test_a_locked_study_is_given_up_within_seconds(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    made = study(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for attempt in (lambda: study(path), made.ask):
            began = time.monotonic()
            with pytest.raises(InputError, match="locked"), naming_file(path):
                attempt()
            assert time.monotonic() - began < 20


FULL = """
import resource, sys
from pathlib import Path
from evaluate.experiments.resumable_trials import naming_file, open_study
path = Path(sys.argv[1])
study = open_study(path, "x", ["maximize"])
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50_000,) * 2)
try:
    with naming_file(path):
        for number in range(500):
            trial = study.ask()
            trial.set_user_attr("scores", "x" * 2000)
            study.tell(trial, float(number))
except ValueError as error:
    print(error)
"""


def test_a_full_disk_is_named_and_finished_trials_stay(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{path}: cannot be used as a search (disk I/O error); make room on the disk")
    values = [trial.value for trial in study(path).get_trials() if trial.value is not None]
    assert values == [float(n) for n in range(len(values))] and values


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trial_user_attributes SET value_json = '{'",
        "UPDATE trial_user_attributes SET value_json = '3'",
        "DELETE FROM trial_user_attributes",
        "DROP TABLE trial_user_attributes",
    ],
)
def test_a_trial_that_was_edited_is_refused(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "study.sqlite"
    made = study(path)
    trial = made.ask()
    trial.set_user_attr("configuration", {"family": "listwise"})
    made.tell(trial, 1.0)
    assert attempt_of(study(path).get_trials()[0]).configuration.family == "listwise"
    edit(path, statement)
    with pytest.raises(InputError, match=r"cannot be (read|used)"), naming_file(path):
        attempt_of(study(path).get_trials()[0])
