"""The lock of a directory: one process at a time, by name, gone when its process is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluate.runs.journal import Journal, RunManifest
from programs.lm.ledger import Call, Ledger
from programs.runtime.errors import InputError
from programs.runtime.lock import LOCK, owned, take

HOLDER = """
import sys, time
from pathlib import Path
from programs.runtime.lock import take
lock = take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_by_the_number_of_the_first_until_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this test's own words
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"open in another process \(process id {holder.pid}\)"):
            take(tmp_path / "run")
    finally:
        holder.kill()
        holder.communicate()
    with owned(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).read_text() == f"{os.getpid()}\n"


def test_this_process_cannot_hold_it_twice_and_can_hold_it_again(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(InputError, match=str(os.getpid())):
        take(tmp_path)
    with owned(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_new_run_is_the_user_s_alone(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    before = os.umask(0)
    try:
        Journal.open(run, RunManifest(cases_sha256="c" * 64, ranker="knn", configuration={})).close()
        Ledger(run / "ledger.jsonl").record(Call(role="mar", model="m"))
    finally:
        os.umask(before)
    assert run.stat().st_mode & 0o777 == 0o700
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in run.iterdir()}
    assert modes == dict.fromkeys((LOCK, "journal.jsonl", "ledger.jsonl", "manifest.json"), "0o600")


def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="symbolic link"):
        take(tmp_path)
    assert (tmp_path / "precious").read_text() == "content"


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/run: cannot be used for a run: "):
        take(tmp_path / "file" / "run")
