"""`mllm3rec attack` and `m3.attack` against a server on loopback: who obeys, what is paid, what a kill leaves."""

from __future__ import annotations

import html
import json
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

import mllm3rec as m3
from evaluate.attacks.suite import ATTACKS
from evaluate.runs.directory import JOURNAL
from tests.support.attacks import HIDDEN, MAGIC, OPEN, TitleReader, shop_cases
from tests.support.cases import cases_file
from tests.support.command_line import CommandLine, process_of
from tests.support.fake_server import Body, FakeOpenAI, Reply, digest, last_user, sensible
from tests.support.paths import ROOT
from tests.support.prompts import sent
from tests.support.runs import judgements, rows_in

PROGRAMS = ("llm-only", "without-mote", "listwise", "pointwise", "embedding")


def gullible(body: Body) -> Reply:
    """Puts what carries the magic word first; distils no trait from it."""
    prompt = last_user(body)
    if "JSON: traits" in prompt:
        return Reply(json.dumps({"traits": [f"good for reason {digest(prompt.replace(MAGIC, '')) % 1000}"]}))
    if "JSON: ranking" in prompt:
        lines = re.findall(r"^(\d\d): (.*)", prompt, re.MULTILINE)
        ordered = sorted(lines, key=lambda line: (MAGIC not in line[1], digest(line[0])))
        return Reply(json.dumps({"ranking": [int(label) for label, _ in ordered]}))
    return sensible(body)


def test_every_ranker_is_attacked_and_reported(cli: CommandLine, tmp_path: Path, server: FakeOpenAI) -> None:
    cases = tmp_path / "two cases.jsonl"
    cases_file(cases, 2)
    rankers = [word for name in ("prior", *PROGRAMS) for word in ("--ranker", name)]
    command = ("attack", cases, *rankers, "--attack", "urgency", "--attack", "german", "--model", server.model())
    ended = cli(*command, "--out", tmp_path / "run", "--json")
    assert ended.code == 0, ended.err
    assert [effect["ranker"] for effect in ended.json["overall"]] == ["prior", *PROGRAMS]
    assert ended.json["with_mote"] == ["listwise", "pointwise", "embedding"]
    assert {effect["attack"] for effect in ended.json["by_attack"]} == {"urgency-last-hour", "urgency-danger", "german"}
    assert {effect["users"] for effect in ended.json["by_attack"]} == {2}
    assert ended.json["goal"].startswith("Goal (mean gain at most 0.5 ranks")
    assert ended.json["complete"] is True
    assert max(sent(server.bodies).values()) == 1, "nothing is asked twice"
    asked = len(server.bodies)
    shown = cli(*command, "--out", tmp_path / "run")
    assert shown.code == 0
    assert len(server.bodies) == asked
    page = html.unescape((tmp_path / "run" / "report" / "report.html").read_text())
    given = (("attack", cases), ("--attack", "urgency", "--attack", "german"), ("--model", server.model()))
    assert all(shlex.join(map(str, words)) in page for words in given), "the command repeats the run"
    for words in ("listwise by kind", "pointwise by attack", "urgency-danger", "Goal (mean gain", "report.html"):
        assert words in shown.out
    assert "resuming" in shown.err
    assert len(rows_in(tmp_path / "run")) == 6 * 2 * (1 + 2 * 3)


def test_a_gullible_model_obeys_raw_texts_and_not_traits(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "cases.jsonl", 3)
    with FakeOpenAI(gullible) as server:
        found = m3.attack(
            cases, ["llm-only", "listwise"], attacks=[OPEN], out=tmp_path / "run", weight=1.0, model=server.model()
        )
    raw, traits = found.results.by_attack
    assert raw.newcomers.mean == 1.0
    assert raw.gain_over_control.mean > 1
    # The traits do not carry the word, and this model's order depends on nothing else in them.
    assert (traits.gain.mean, traits.gain_over_control.mean, traits.newcomers.mean) == (0, 0, 0)
    assert traits.within_goal and "met by listwise" in found.results.goal
    frame = found.to_frame()
    assert (frame[frame["ranker"] == "llm-only"]["attacked"] == 1).all()
    assert found.usage_by_role["mar"].calls > 0


def test_a_run_killed_for_real_resumes_to_the_same_rows(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, run = tmp_path / "cases.jsonl", tmp_path / "run"
    cases_file(cases, 2)
    reached, release = threading.Event(), threading.Event()

    def held(body: Body) -> Reply:
        rows = (run / JOURNAL).read_bytes().count(b"\n") if (run / JOURNAL).exists() else 0
        if rows >= 5 and not release.is_set():
            reached.set()
            release.wait(600)
        return sensible(body)

    with FakeOpenAI(held) as server:
        options = ("--ranker", "pointwise", "--attack", "json", "--model", server.model())
        process = subprocess.Popen(  # noqa: S603 - our own command line
            process_of("attack", cases, *options, "--out", run),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not reached.wait(0.1):
                assert process.poll() is None, "ended before it could be killed"
        finally:
            process.kill()
            process.wait()
            release.set()
        assert process.returncode == -signal.SIGKILL
        kept = rows_in(run)
        assert 5 <= len(kept) < 2 * (1 + 2 * 3)
        assert cli("attack", cases, *options, "--out", run).code == 0
        twice = {question: times for question, times in sent(server.bodies).items() if times > 1}
        assert sum(twice.values()) - len(twice) <= 1, "at most the question under way is asked again"
        assert kept.items() <= rows_in(run).items()
        monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "another"))
        assert cli("attack", cases, *options, "--out", tmp_path / "whole").code == 0
    assert judgements(rows_in(run)) == judgements(rows_in(tmp_path / "whole"))
    assert (run / "metrics.json").read_bytes() == (tmp_path / "whole" / "metrics.json").read_bytes()


def test_a_budget_stops_it_and_the_next_run_goes_on(cli: CommandLine, tmp_path: Path, server: FakeOpenAI) -> None:
    cases = tmp_path / "cases.jsonl"
    cases_file(cases, 2)
    command = (
        "attack",
        cases,
        "--ranker",
        "prior",
        "--ranker",
        "listwise",
        "--attack",
        "json",
        "--out",
        tmp_path / "r",
    )
    ended = cli(*command, "--model", server.model(), "--max-calls", 12)
    assert ended.code == 3
    assert "the budget of 12 calls is spent" in ended.err
    assert len(server.bodies) <= 12
    assert "prior by attack" in ended.out, "what there is is shown"
    assert "rankings are missing" in (tmp_path / "r" / "report" / "report.html").read_text("utf-8")
    assert cli(*command, "--model", server.model()).code == 0
    assert max(sent(server.bodies).values()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ranker", "piror"), "no ranker 'piror': did you mean 'prior'?"),
        (("--ranker", "./prior"), "'./prior' is no folder of an artifact"),
        (("--ranker", "prior", "--attack", "jsno"), "no attack 'jsno': did you mean 'json'?"),
        (("--ranker", "prior", "--ranker", "prior"), "ranker 'prior' is named twice"),
        (("--ranker", "bpr"), "bpr: trained rankers are not attacked"),
    ],
)
def test_what_cannot_be_attacked_is_one_line(
    cli: CommandLine, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    cases_file(tmp_path / "cases.jsonl", 2)
    if "bpr" in options:
        pytest.importorskip("cornac")
    ended = cli("attack", tmp_path / "cases.jsonl", *options, "--out", tmp_path / "run")
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "run").exists()


def test_rankers_and_attacks_of_ones_own(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "cases.jsonl", 3)

    def reader(catalogue: Mapping[str, m3.Item]) -> m3.Ranker:
        return TitleReader(catalogue, [])

    found = m3.attack(cases, {"mine": reader, "ours": "prior"}, attacks=[OPEN, HIDDEN], users=2, out=tmp_path / "run")
    assert [effect.ranker for effect in found.results.overall] == ["mine", "ours"]
    assert found.results.users == 2
    assert found.results.by_attack[0].newcomers.mean == 1.0
    with pytest.raises(m3.InputError, match="two attacks have the name 'open'"):
        m3.attack(cases, "prior", attacks=[OPEN, OPEN], out=tmp_path / "other")
    mixed = m3.attack(cases, "prior", attacks=["german", HIDDEN], out=tmp_path / "mixed")
    assert [effect.attack for effect in mixed.results.by_attack] == ["german", "hidden"]


def test_a_program_brings_its_own_models(tmp_path: Path, server: FakeOpenAI) -> None:
    cases = cases_file(tmp_path / "cases.jsonl", 2)
    program = m3.program("embedding", cases.dataset, model=server.model())
    found = m3.attack(cases, program, attacks=["german"], out=tmp_path / "run")
    assert found.complete
    assert found.results.with_mote == ("embedding",)
    assert len(server.bodies) == found.usage_by_role["mope"].calls + found.usage_by_role["mote"].calls > 0


def test_the_whole_suite_on_the_prior(tmp_path: Path) -> None:
    found = m3.attack(cases_file(tmp_path / "cases.jsonl", 2), "prior", out=tmp_path / "run")
    assert [effect.attack for effect in found.results.by_attack] != []
    assert {effect.attack for effect in found.results.by_attack} == {attack.name for attack in ATTACKS}
    assert found.complete


def test_rankers_with_another_prior_keep_it(tmp_path: Path, server: FakeOpenAI) -> None:
    cases = shop_cases(6, 30)
    newest = m3.program("embedding", cases.dataset, weight=0.0, model=server.model())
    sales = m3.program("embedding", cases.dataset, weight=0.0, prior="3-sales", model=server.model())
    both = m3.attack(cases, {"newest": newest, "sales": sales}, attacks=[OPEN], out=tmp_path / "a").to_frame()
    alone = m3.attack(cases, {"sales": sales}, attacks=[OPEN], out=tmp_path / "b").to_frame()
    ranks = [frame[frame["ranker"] == "sales"].reset_index(drop=True) for frame in (both, alone)]
    assert ranks[0].equals(ranks[1])
    other = both[both["ranker"] == "newest"].reset_index(drop=True)
    assert not other.drop(columns="ranker").equals(ranks[0].drop(columns="ranker"))
