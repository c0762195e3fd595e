"""`mllm3rec demo` against a fake server: one user, the compile, the comparison, and resuming all of it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner, Result

from evaluate.stats.power import sample_size
from mllm3rec.api.demonstration import AFTER, BEFORE, demonstrate
from mllm3rec.cli.main import app
from programs.default_demos import EXPLANATIONS, TRAITS
from programs.runtime.events import Event, Progress
from tests.support.command_line import process_of
from tests.support.compile_setup import sensitive
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user

SMALL = ["--users", "3", "--dev-users", "4", "--trials", "2"]


def demo(out: Path, server: FakeOpenAI, *more: str) -> Result:
    arguments = ["demo", "--out", str(out), "--model", server.model(), *SMALL, *more]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def copying(body: Body) -> Reply:
    """A model that answers with the worked examples, as the smallest ones do."""
    prompt = last_user(body)
    if "JSON: traits" in prompt:
        return Reply(json.dumps({"traits": TRAITS[0].traits}))
    if "JSON: motivations" in prompt:
        draft = {"dimension": "aesthetics", "strength": "strong", "evidence": [1]}
        return Reply(json.dumps({"motivations": [draft | {"description": "a well-kept look and a warm scent"}]}))
    if "JSON: reason" in prompt:
        return Reply(json.dumps({"reason": EXPLANATIONS[0].reason}))
    return sensitive(body)


def test_the_whole_demonstration_and_the_same_again(tmp_path: Path) -> None:
    with FakeOpenAI(sensitive) as server:
        first = demo(tmp_path / "demo", server)
        calls = len(server.bodies)
        again = demo(tmp_path / "demo", server, "--json")
        assert len(server.bodies) == calls, "the second run asks nothing"
    assert (first.exit_code, again.exit_code) == (0, 0)
    lines = first.stderr.splitlines()
    assert lines[0].startswith("loading the demo store")
    for said in ("1 of 3", "2 of 3", "3 of 3", "profile of the user: 1 of 1", "traits of the candidates: 10 of 10"):
        assert any(line.startswith(said) for line in lines), said
    for shown in (
        "S0001 bought, oldest first",
        "Profile of S0001",
        "Top 5",
        "2 programs tried on 2 dev users",
        "shopper.infer.predict: instruction ",
        "3 test users",
        "prior alone",
        "MAR alone, before",
        "prior and MAR, after",
        "Compiling gained",
        "report.html",
    ):
        assert shown in first.stdout, shown
    found = json.loads(again.stdout)
    assert {"random", "popularity", "prior", "before", "after", "after minus before", "manifest", "run"} <= set(found)
    assert set(found["before"]["components"]) == {"prior", "mar", "fused"}
    assert len(found["user"]["recommendations"]) == 5
    assert [change["predictor"] for change in found["prompts"]] == ["shopper.infer.predict", "product.distill.predict"]
    assert found["manifest"]["trials"] == 2
    assert found["conclusion"].startswith("Compiling gained")


def test_a_model_that_copies_is_found_out(tmp_path: Path) -> None:
    with FakeOpenAI(copying) as server:
        found = demo(tmp_path / "demo", server)
    assert found.exit_code == 0
    text = " ".join(found.stdout.split())
    for said in (
        "1 of 1 motivations repeat the demos in MOPE's prompt: the profile says nothing about this user",
        "15 of 15 traits repeat the demos in MOTE's prompt: they say nothing about these items",
        "MAR rates these items equally, so their order is the prior's",
        "all 5 items have the same reason, copied from a demo in the prompt: it does not explain them",
        "before compiling: 3 of 3 motivations, 90 of 90 traits",
        "Compiling gained nothing: no other program scored higher than the uncompiled one (1 tried).",
        "Needed for a gain: a larger model",
    ):
        assert said in text, said
    assert text.count(EXPLANATIONS[0].reason) == 1, "one reason is shown once"


def test_what_was_found_is_told_plainly(tmp_path: Path) -> None:
    events: list[Event] = []
    with FakeOpenAI(sensitive) as server:
        found = demonstrate(tmp_path, 3, 4, 3, server.model(), events.append)
    assert (found.tried[0].number, len(found.tried)) == (0, found.manifest.trials)
    compared = next(one for one in found.tried if one.number == found.compared)
    infer, distill = found.changes
    assert (infer.predictor, distill.changed) == ("shopper.infer.predict", False)
    chosen = compared.configuration
    assert infer.instructions_changed is (chosen.wordings["mope"] != "original")
    assert infer.changed is (infer.instructions_changed or chosen.demos["mope"] != "original")
    assert infer.diff
    assert all(line[0] in "+-" for line in infer.diff)
    assert found.gained is (found.gain["NDCG@10/30"].low > 0)
    assert found.needed.startswith("Needed for a gain: a larger model")
    assert found.results[BEFORE].figures.users == found.results[AFTER].figures.users == 3
    tasks = {event.task for event in events if isinstance(event, Progress)}
    assert "embedding-without-reflection: scoring the uncompiled program" in tasks


def test_two_programs_that_hardly_differ_do_not_make_few_users_enough(tmp_path: Path) -> None:
    with FakeOpenAI(sensitive) as server:
        found = demonstrate(tmp_path, 5, 4, 2, server.model())
    same = found.results["random"]
    found = replace(found, results={**found.results, BEFORE: same, AFTER: same})
    prior, planted = (found.results[name].per_user["NDCG@10"] for name in ("prior", "planted-truth"))
    spread = max((prior - same.per_user["NDCG@10"]).std(ddof=1), (planted - prior).std(ddof=1))
    assert spread > 0
    assert found.needed.endswith(f"a gain of 0.05 in NDCG@10: {sample_size(spread, 0.05).users:,} test users.")
    found = replace(found, results={**found.results, BEFORE: found.results["prior"], AFTER: found.results["prior"]})
    spread = (planted - prior).std(ddof=1)
    assert found.needed.endswith(f"{sample_size(spread, 0.05).users:,} test users."), (
        "what right profiles change counts"
    )


def test_a_killed_demonstration_goes_on_where_it_was(tmp_path: Path) -> None:
    reached, asked = threading.Event(), []

    def counted(body: Body) -> Reply:
        asked.append(last_user(body))
        if len(asked) == 25:
            reached.set()
        return sensitive(body)

    with FakeOpenAI(counted) as server:
        arguments = ["demo", "--out", str(tmp_path / "demo"), "--model", server.model(), *SMALL, "--json"]
        process = subprocess.Popen(  # noqa: S603 - our own command line
            process_of(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert reached.wait(300)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        before = set(asked[:24])
        server.bodies.clear()
        found = demo(tmp_path / "demo", server, "--json")
        assert found.exit_code == 0
        assert not before & {last_user(body) for body in server.bodies}, "what was answered is not asked again"
    assert json.loads(found.stdout)["manifest"]["trials"] == 2
