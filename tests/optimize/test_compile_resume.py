"""A compile that is killed and goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from evaluate.protocol.cases import load_cases
from optimize.artifact import MANIFEST, ArtifactManifest
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import local_roles
from programs.runtime.errors import InputError
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, sensitive, trials_of
from tests.support.fake_server import Body, FakeOpenAI, Reply

PROCESSES = multiprocessing.get_context("forkserver")
"""Each compile has a process of its own, forked from one that has imported what it needs."""
PROCESSES.set_forkserver_preload(["tests.optimize.test_compile_resume"])


def compile_in(directory: Path, cases: Path, model: str) -> None:
    """Compile, or go on."""
    directory.mkdir(exist_ok=True)
    use_response_cache(directory / "calls.sqlite")
    compiler(directory / "art", load_cases(cases), local_roles(model), trials=6).run()


def test_a_compile_goes_on_over_the_same_data_only(tmp_path: Path) -> None:
    cases, path = cases_file(tmp_path / "dev.jsonl", 6), tmp_path / "settings.json"
    settings = compiler(tmp_path / "art", cases, local_roles("http://127.0.0.1:9/v1#fake")).settings
    settings.save(path)
    settings.save(path)
    other = settings.model_copy(update={"dataset_sha256": "f" * 64})
    with pytest.raises(InputError, match="this compile has other dataset_sha256"):
        other.save(path)
    older = json.loads(path.read_text("utf-8"))
    del older["dataset_sha256"]
    path.write_text(json.dumps(older), "utf-8")
    other.save(path)


def test_killed_and_resumed_gives_the_same_trials_and_pays_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    cases_file(path, 6)
    victim: list[int] = []
    answered: list[str] = []
    fatal = {30, 75, 110}  # while pools are built, and in trials

    def respond(body: Body) -> Reply:
        answered.append(json.dumps(body, sort_keys=True))
        if len(answered) in fatal and victim:
            fatal.discard(len(answered))
            answered.pop()  # never answered: the process that asked dies first
            os.kill(victim[0], signal.SIGKILL)
        return sensitive(body)

    def exit_code(directory: Path, may_die: bool) -> int | None:
        process = PROCESSES.Process(target=compile_in, args=(directory, path, server.model()))
        process.start()
        victim[:] = [process.pid or 0] if may_die else []
        process.join()
        return process.exitcode

    with FakeOpenAI(respond) as server:
        assert exit_code(tmp_path / "whole", may_die=False) == 0
        whole = list(answered)
        answered.clear()
        kills = 0
        while code := exit_code(tmp_path / "torn", may_die=True):
            assert code == -signal.SIGKILL
            kills += 1
    assert kills == 3
    assert Counter(answered) == Counter(whole)
    assert max(Counter(answered).values()) == 1
    first, second = trials_of(tmp_path / "whole" / "art"), trials_of(tmp_path / "torn" / "art")
    assert first == second
    manifests = [
        ArtifactManifest.model_validate_json((tmp_path / one / "art" / MANIFEST).read_bytes())
        for one in ("whole", "torn")
    ]
    assert manifests[0].trial == manifests[1].trial
    assert manifests[0].files == manifests[1].files
