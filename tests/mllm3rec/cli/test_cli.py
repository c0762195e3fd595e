"""The command line: runs that are killed, interrupted or out of budget go on; bad input gets one message."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evaluate.data.demo.store import demo_dataset
from evaluate.data.load import load_dataset
from evaluate.paper.published import MAIN
from evaluate.protocol.cases import Cases, load_cases
from evaluate.runs.directory import LEDGER, METRICS, TARGETS
from evaluate.runs.journal import read_journal
from mllm3rec.cli.console import say
from mllm3rec.cli.main import INTERRUPTED
from programs.lm.ledger import read_calls
from programs.mope import render_metadata, render_purchases
from programs.prior.default_encoder import ENCODER_VARIABLE, default_encoder, encoder_name, encoder_setting
from programs.prior.encoders import HashingEncoder
from programs.runtime.environment import cache_dir
from programs.runtime.errors import InputError
from signatures.rows import Case, Status
from tests.support.command_line import CommandLine, Ended, process_of
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, sensible
from tests.support.paths import ROOT, TINY_ENCODER
from tests.support.prompts import sent

PATIENCE = 900  # seconds, for a machine that is busy with something else


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command line in a process of its own."""
    # A test run in the background of a script inherits a deaf ear for Ctrl-C, and would pass it on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(  # noqa: S603 - our own command line
        process_of(*arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        signal.signal(signal.SIGINT, before)


class Held:
    """Answers sensibly until something has happened; then keeps every caller waiting until released.

    Attributes:
        reached: Set once a caller is waiting.
        afterwards: Seconds an answer takes once released.
    """

    def __init__(self, until: Callable[[], bool], afterwards: float = 0.0) -> None:
        self.until = until
        self.afterwards = afterwards
        self.reached = threading.Event()
        self._release = threading.Event()

    def wait_for_caller_in(self, process: subprocess.Popen[str]) -> None:
        """Return once a caller is waiting; fail, with what it said, if the process ends before that."""
        deadline = time.monotonic() + PATIENCE
        while not self.reached.wait(0.05):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "nobody is waiting for an answer"

    def release(self) -> None:
        self._release.set()

    def __call__(self, body: Body) -> Reply:
        reply = sensible(body)
        if self._release.is_set():
            reply.seconds = self.afterwards
        elif self.until():
            self.reached.set()
            self._release.wait(PATIENCE)
        return reply


def draw(cli: CommandLine, path: Path, users: int, negatives: int = 9, **options: object) -> Cases:
    """Cases of the demo store; lists of 10 make the tests quick."""
    more = [word for name, value in options.items() for word in (f"--{name}", value)]
    ended = cli("cases", "demo", "--users", users, "--negatives", negatives, "--out", path, *more)
    assert ended.code == 0
    return load_cases(path)


def pointwise(cases: Path, out: Path, server: FakeOpenAI, *more: object) -> list[object]:
    return ["evaluate", cases, "--ranker", "pointwise", "--out", out, "--model", server.model(), *more]


def written_rows(directory: Path) -> int:
    journal = directory / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def purchases(case: Case) -> str:
    """The history of a case as it stands in a prompt."""
    items = demo_dataset().items
    return render_purchases([(items[event.item_id], event) for event in case.history])


def rows(directory: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run without what they took, which depends on who found what in the stores."""
    return {user: row.model_dump(exclude={"usage"}) for user, row in sorted(read_journal(directory)[1].items())}


def metrics(directory: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((directory / METRICS).read_text())
    del figures["usage"]
    return figures


def asked(body: Body) -> str:
    """Which question a request asks, by the first field of the answer it has to give."""
    if "response_format" not in body:
        return "fit"
    return str(next(iter(body["response_format"]["json_schema"]["schema"]["properties"])))


def roles_in(ledger: Path) -> Counter[str]:
    """Calls by role that were really sent."""
    return Counter(call.role for call in read_calls(ledger) if not call.hit)


def files_in(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the caches."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "cache" not in path.relative_to(folder).parts
    }


def refused(ended: Ended, *words: str) -> None:
    """Exit code 2 and one message that has all of `words` in one line of its own."""
    assert ended.code == 2
    assert ended.out == ""
    assert "Traceback" not in ended.err
    (line,) = (line for line in ended.err.splitlines() if line.startswith("error: "))
    missing = [word for word in words if word not in line]
    assert not missing, f"not in {line!r}: {missing}"


# Runs that are killed, interrupted, or run out


def test_a_killed_evaluation_ends_like_one_that_was_not(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, run, workers = tmp_path / "cases.jsonl", tmp_path / "run", 2
    draw(cli, cases, users=4)
    answer = Held(until=lambda: written_rows(run) >= 1)
    with FakeOpenAI(answer) as server:
        command = pointwise(cases, run, server, "--workers", workers)
        with started(*command) as process:
            answer.wait_for_caller_in(process)
            process.kill()
            process.wait()
        answer.release()
        assert process.returncode == -signal.SIGKILL
        kept = rows(run)
        assert 1 <= len(kept) < 4
        assert not (run / METRICS).exists()

        resumed = cli(*command)
        assert resumed.code == 0
        assert f"resuming {run}: {len(kept)} of 4 users are done already" in resumed.err
        assert kept.items() <= rows(run).items()
        twice = {body: times for body, times in sent(server.bodies).items() if times > 1}
        assert sum(twice.values()) - len(twice) <= workers
        killed_and_resumed = set(sent(server.bodies))

        monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "another" / "cache"))
        server.bodies.clear()
        assert cli(*pointwise(cases, tmp_path / "whole", server)).code == 0
        assert rows(run) == rows(tmp_path / "whole")
        assert metrics(run) == metrics(tmp_path / "whole")
        assert sent(server.bodies) == Counter(killed_and_resumed)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, INTERRUPTED, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
def test_an_interruption_keeps_the_rows_and_the_answers(
    number: int, code: int, word: str, cli: CommandLine, tmp_path: Path
) -> None:
    cases, run = tmp_path / "cases.jsonl", tmp_path / "run"
    draw(cli, cases, users=4)
    answer = Held(until=lambda: written_rows(run) >= 1, afterwards=0.5)
    with FakeOpenAI(answer) as server:
        command = pointwise(cases, run, server, "--workers", 2)
        with started(*command) as process:
            answer.wait_for_caller_in(process)
            process.send_signal(number)
            answer.release()
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code
        assert "Traceback" not in err
        assert f"{word}; everything done so far is kept: the same command goes on from there" in err
        kept = rows(run)
        assert 1 <= len(kept) < 4

        answer.afterwards = 0.0
        resumed = cli(*command)
        assert resumed.code == 0
        assert len(rows(run)) == 4
        assert kept.items() <= rows(run).items()
        assert set(sent(server.bodies).values()) == {1}  # calls under way were kept as well


@pytest.mark.parametrize(("limit", "code"), [(7, 3), (50, 1)])  # no user done by then, and some
def test_a_call_limit_is_kept_and_a_larger_one_completes(
    limit: int, code: int, cli: CommandLine, tmp_path: Path, server: FakeOpenAI
) -> None:
    cases, run = tmp_path / "cases.jsonl", tmp_path / "run"
    draw(cli, cases, users=4)
    stopped = cli(*pointwise(cases, run, server, "--workers", 2, "--max-calls", limit))
    assert stopped.code == code
    assert f"stopped: the budget of {limit} calls is spent" in stopped.err
    assert "run the same command to resume" in stopped.err
    assert "Traceback" not in stopped.err
    assert len(server.bodies) == limit
    again = cli(*pointwise(cases, run, server, "--max-calls", limit))
    assert again.code == code
    assert len(server.bodies) == limit
    completed = cli(*pointwise(cases, run, server, "--max-calls", 1000))
    assert completed.code == 0
    assert len(rows(run)) == 4
    assert set(sent(server.bodies).values()) == {1}
    assert sum(roles_in(run / LEDGER).values()) >= len(server.bodies)


# Failures are no misses


def failing_for(text: str, broken: Callable[[], bool]) -> Callable[[Body], Reply]:
    def answer(body: Body) -> Reply:
        if broken() and text in last_user(body):
            return Reply("the engine is on fire", status=500, headers={"Retry-After": "0"})
        return sensible(body)

    return answer


def test_one_shopper_the_server_fails_for_is_unresolved_until_it_heals(cli: CommandLine, tmp_path: Path) -> None:
    cases, run, fire = tmp_path / "cases.jsonl", tmp_path / "run", [True]
    drawn = draw(cli, cases, users=3).cases
    with FakeOpenAI(failing_for(purchases(drawn[1]), lambda: bool(fire))) as server:
        command = pointwise(cases, run, server)
        failed = cli(*command)
        assert failed.code == 1
        assert f"user {drawn[1].user_id}: failed: " in failed.err
        assert "the engine is on fire" in failed.err
        assert "Traceback" not in failed.err
        said = " ".join(failed.out.split())
        assert "1 users unresolved: HR@5/10 between" in said
        assert {user: row["status"] for user, row in rows(run).items()} == {
            one.user_id: Status.FAILED if one == drawn[1] else Status.OK for one in drawn
        }
        figures = metrics(run)
        assert (figures["users"], figures["unresolved"]) == (2, 1)
        hits = 2 * figures["metrics"]["HR@5/10"]["mean"]
        assert figures["bounds"]["HR@5/10"] == {
            "low": pytest.approx(hits / 3),
            "high": pytest.approx((hits + 1) / 3),
            "resolved": 2,
            "unresolved": 1,
        }

        fire.clear()
        server.bodies.clear()
        healed = cli(*command, "--json")
        assert healed.code == 0
        assert (healed.json["users"], healed.json["unresolved"], healed.json["bounds"]) == (3, 0, {})
        assert [asked(body) for body in server.bodies].count("motivations") == 1
        assert all(row["status"] is Status.OK for row in rows(run).values())


def test_a_server_that_always_fails_ends_the_run_with_one_clear_error(cli: CommandLine, tmp_path: Path) -> None:
    cases, run = tmp_path / "cases.jsonl", tmp_path / "run"
    draw(cli, cases, users=12)
    with FakeOpenAI(failing_for("", lambda: True)) as server:
        refused(cli(*pointwise(cases, run, server)), "8 cases failed in a row", "the engine is on fire")
        refused(cli("recommend", "demo", "--user", "S0001", "--model", server.model()), "the engine is on fire")
        refused(cli("distill", cases, "--mote", server.model()), "the engine is on fire")
    assert len(rows(run)) < 12
    assert {row["status"] for row in rows(run).values()} == {Status.FAILED}


# What is shared between runs, and what is in the prompts


def test_a_second_evaluation_distils_nothing(cli: CommandLine, tmp_path: Path, server: FakeOpenAI) -> None:
    cases = tmp_path / "cases.jsonl"
    draw(cli, cases, users=3)
    assert cli(*pointwise(cases, tmp_path / "first", server)).code == 0
    first = Counter(map(asked, server.bodies))
    assert first["traits"] == roles_in(tmp_path / "first" / LEDGER)["mote"] > 10
    # Without the stored answers of the models, only the trait store can save the calls.
    for path in cache_dir().glob("calls.sqlite*"):
        path.unlink()
    server.bodies.clear()
    assert cli(*pointwise(cases, tmp_path / "second", server)).code == 0
    second = Counter(map(asked, server.bodies))
    assert roles_in(tmp_path / "second" / LEDGER)["mote"] == 0
    assert second == Counter({name: count for name, count in first.items() if name != "traits"})
    assert rows(tmp_path / "second") == rows(tmp_path / "first")


def test_every_candidate_is_ranked_and_what_is_known_of_a_shopper_reaches_the_prompt(
    cli: CommandLine, tmp_path: Path, server: FakeOpenAI
) -> None:
    cases, run = tmp_path / "cases.jsonl", tmp_path / "run"
    drawn = draw(cli, cases, users=3, negatives=29).cases
    assert cli("evaluate", cases, "--ranker", "listwise", "--out", run, "--model", server.model()).code == 0
    for one in drawn:
        row = rows(run)[one.user_id]
        assert sorted(row["order"]) == sorted(one.candidates)
        assert [len(scores) for scores in row["scores"].values()] == [30, 30, 30]
    prompts = [last_user(body) for body in server.bodies if asked(body) == "motivations"]
    for one in drawn:
        assert set(one.metadata) == {"age", "gender", "region"}
        known = render_metadata(one.metadata)
        assert any(known in prompt and purchases(one) in prompt for prompt in prompts), known
    assert json.loads((run / TARGETS).read_text()) == {one.user_id: one.target for one in drawn}


def test_recommendations_come_with_motives_traits_and_reasons(cli: CommandLine, server: FakeOpenAI) -> None:
    options = ["--candidates", 12, "--model", server.model(), "--json"]
    answer = cli("recommend", "demo", "--user", "S0001", "--k", 3, *options).json
    data = demo_dataset()
    bought = [data.items[event.item_id].title for event in data.sequences["S0001"]]
    assert (answer["user"], answer["status"]) == ("S0001", "ok")
    assert answer["profile"]
    for motive in answer["profile"]:
        assert motive["purchases"]
        assert set(motive["purchases"]) <= set(bought)
    assert len(answer["recommendations"]) == 3
    for product in answer["recommendations"]:
        assert product["title"] == data.items[product["item_id"]].title
        assert product["title"] not in bought
        assert product["traits"]
        assert product["reason"]
        assert product["reason_checked"]
    assert not {product["item_id"] for product in answer["recommendations"]} & {
        reason["item_id"] for reason in answer["filtered"]
    }
    assert answer["usage"]["calls"] == len(server.bodies)
    assert answer["history"] == bought
    assert answer["warnings"] == [
        "MAR rates these items equally, so their order is the prior's",  # the fake's phrases have no word in common
        "all 3 items have the same reason: it does not explain them",
    ]
    shown = cli("recommend", "demo", "--user", "S0001", "--k", 3, *options[:-1])
    assert shown.code == 0
    assert all(product["item_id"] in shown.out for product in answer["recommendations"])
    assert "all 3 items have the same reason" in shown.out
    assert shown.out.count(answer["recommendations"][0]["reason"]) == 1, "the reason of all is shown once"
    said = shown.err.splitlines()
    assert said[0] == "loading demo"
    steps = ["profile of the user: 0 of 1", "traits of the candidates: 12 of 12", "reasons: 0 of 3", "reasons: 3 of 3"]
    assert [line for line in said if line in steps] == steps


def test_recommending_stops_at_its_call_limit(cli: CommandLine, server: FakeOpenAI) -> None:
    ended = cli("recommend", "demo", "--user", "S0001", "--model", server.model(), "--max-calls", 3)
    assert ended.code == 3
    assert "stopped: the budget of 3 calls is spent" in ended.err
    assert len(server.bodies) == 3


# Data, installation, models, audit


def test_the_plain_form_holds_the_same_data(cli: CommandLine, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    before = cli("data", "describe", "demo", "--json").json
    assert (before["users"], before["items"]) == (400, 105)
    written = cli("data", "prepare", "demo", "--out", plain, "--json").json
    assert sorted(written["written"]) == sorted(str(path) for path in plain.iterdir())
    after = cli("data", "describe", plain, "--json").json
    own = ("name", "format", "notes")
    assert {name: value for name, value in after.items() if name not in own} == {
        name: value for name, value in before.items() if name not in own
    }
    there, back = demo_dataset(), load_dataset(plain)
    pd.testing.assert_frame_equal(back.interactions, there.interactions, check_dtype=False)
    assert (back.items, back.metadata) == (there.items, there.metadata)
    refused(cli("data", "prepare", "demo", "--out", plain), "interactions.parquet exists", "another directory")


def test_describe_without_json_shows_the_counts(cli: CommandLine) -> None:
    ended = cli("data", "describe", "demo")
    assert ended.code == 0
    assert "1,765" in ended.out


def test_doctor_says_what_is_missing_and_how_to_get_it(cli: CommandLine) -> None:
    ended = cli("doctor", "--json")
    checks = {check["name"]: check for check in ended.json["checks"]}
    assert checks["weights minilm"]["ok"] is False
    assert checks["weights minilm"]["hint"] == "mllm3rec models fetch minilm"
    assert checks["dspy"]["ok"] is True
    assert ended.json["ok"] is False
    assert ended.code == 1
    assert cli("doctor").code == 1


def test_models_lists_weights_and_presets(cli: CommandLine) -> None:
    listed = cli("models", "list", "--json").json
    assert {entry["name"]: entry["here"] for entry in listed["weights"]} == {"minilm": False, "smollm2-135m": False}
    assert listed["presets"]["paper"]["mar"] == "openai/gpt-4o"
    assert set(listed["presets"]) == {"local", "hosted", "hosted-cheap", "paper"}
    assert cli("models", "list").code == 0


def test_audit_passes_a_run_and_flags_the_published_table(cli: CommandLine, tmp_path: Path) -> None:
    draw(cli, tmp_path / "cases.jsonl", users=20, negatives=29)
    run = tmp_path / "run"
    assert cli("evaluate", tmp_path / "cases.jsonl", "--ranker", "prior", "--out", run).code == 0
    assert cli("audit", run).code == 0
    assert cli("audit", run, "--json").json["impossible_rows"] == 0
    table = ["method,dataset,HR@5,NDCG@5,HR@10,NDCG@10"]
    table += [f"{r.method},{r.dataset},{','.join(map(str, r.figures.values()))}" for r in (p.row for p in MAIN)]
    (tmp_path / "published.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    audited = cli("audit", tmp_path / "published.csv", "--json")
    assert audited.code == 1
    assert audited.out.count('"impossible": true') == audited.json["impossible_rows"] == 14
    assert len(audited.json["rows"]) == 27
    assert "14 of 27 rows are impossible" in cli("audit", tmp_path / "published.csv").out


def test_messages_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor emoji nor a line break, wherever a file lies and whatever line it is."""
    message = f"/data/{'long/' * 40}cases.jsonl:100: [bold] is no user :cat:"
    say(message)
    assert capsys.readouterr().err == message + "\n"


# The encoder


def test_the_encoder_is_chosen_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(default_encoder(), HashingEncoder)
    assert encoder_setting() == {"encoder": "hashing"}
    monkeypatch.delenv(ENCODER_VARIABLE)
    assert (encoder_name(), encoder_setting()) == ("minilm", {})
    with pytest.raises(InputError, match=r"models fetch minilm.*MLLM3REC_ENCODER=hashing"):
        default_encoder()
    monkeypatch.setenv(ENCODER_VARIABLE, "openai")
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        default_encoder()
    monkeypatch.setenv(ENCODER_VARIABLE, "word2vec")
    with pytest.raises(InputError, match=r"MLLM3REC_ENCODER is 'word2vec': .*'minilm', 'openai' or 'hashing'"):
        default_encoder()


def test_rows_of_two_encoders_do_not_mix(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, run = tmp_path / "cases.jsonl", tmp_path / "run"
    draw(cli, cases, users=2)
    evaluate = ["evaluate", cases, "--ranker", "knn", "--out", run]
    assert cli(*evaluate).code == 0
    monkeypatch.delenv(ENCODER_VARIABLE)
    refused(cli(*evaluate), "configuration.encoder is only in the run")


def test_an_encoder_is_chosen_for_one_command(cli: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    cases, run = tmp_path / "cases.jsonl", tmp_path / "run"
    draw(cli, cases, users=2)
    evaluate = ["evaluate", cases, "--ranker", "content", "--out", run]
    assert cli(*evaluate, "--encoder", TINY_ENCODER).code == 0
    assert json.loads((run / "manifest.json").read_text())["configuration"]["encoder"].startswith("onnx-")
    assert os.environ[ENCODER_VARIABLE] == "hashing", "the command after it has the encoder of the environment again"
    refused(cli(*evaluate), "configuration.encoder")
    moved = shutil.copytree(TINY_ENCODER, tmp_path / "moved")
    assert cli(*evaluate, "--encoder", moved).code == 0, "the content counts, not the place"
    refused(cli(*evaluate, "--encoder", "word2vec"), "'word2vec' is no folder and no name")


@pytest.mark.parametrize(
    "command", [["evaluate"], ["recommend"], ["compare"], ["attack"], ["compile"], ["demo"], ["study", "run"]]
)
def test_every_command_on_the_prior_takes_an_encoder(command: list[str], cli: CommandLine) -> None:
    assert "--encoder" in cli(*command, "--help").out


# Bad input: one clear message, no traceback, nothing half-written

REVIEW = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1_400_000_000}


def plain_shop(folder: Path, items: list[dict[str, object]], bought: list[tuple[str, str]]) -> Path:
    folder.mkdir()
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    lines = "".join(f"{user},{item},5,{1_400_000_000 + n}\n" for n, (user, item) in enumerate(bought))
    (folder / "interactions.csv").write_text("user_id,item_id,rating,timestamp\n" + lines)
    return folder


def truncated_gzip(folder: Path) -> tuple[Path, list[str]]:
    lines = "".join(json.dumps(REVIEW | {"asin": f"B{n}"}) + "\n" for n in range(500))
    folder.mkdir()
    (folder / "meta_Toys.json.gz").write_bytes(gzip.compress(b'{"asin": "B1", "title": "Top"}\n'))
    whole = gzip.compress(lines.encode())
    (folder / "reviews_Toys_5.json.gz").write_bytes(whole[: len(whole) // 2])
    return folder, ["reviews_Toys_5.json.gz", "truncated", "after line"]


def no_literal(folder: Path) -> tuple[Path, list[str]]:
    folder.mkdir()
    (folder / "reviews_Toys_5.json").write_text(json.dumps(REVIEW) + "\n")
    (folder / "meta_Toys.json").write_text("{'asin': 'B1', 'title': 'Top'}\n{'asin': 'B1', 'title': oops(}\n")
    return folder, ["meta_Toys.json, line 2", "neither JSON nor a Python literal"]


def without_text(folder: Path) -> tuple[Path, list[str]]:
    items: list[dict[str, object]] = [
        {"item_id": "a", "title": "Top"},
        {"item_id": "b", "brand": "Orvanne"},
    ]
    return plain_shop(folder, items, [("u", "a"), ("u", "b")]), ["items.jsonl, line 2", "item 'b' has no text"]


def duplicate_ids(folder: Path) -> tuple[Path, list[str]]:
    items: list[dict[str, object]] = [{"item_id": i, "title": "Top"} for i in ("a", "b", "a")]
    return plain_shop(folder, items, [("u", "a"), ("u", "b")]), ["items.jsonl, line 3", "'a'", "line 1"]


def small_catalogue(folder: Path) -> tuple[Path, list[str]]:
    items: list[dict[str, object]] = [{"item_id": f"i{n}", "title": f"Top {n}"} for n in range(20)]
    bought = [(f"u{n % 5}", f"i{n}") for n in range(20)]
    return plain_shop(folder, items, bought), ["29 negatives", "of 20 items", "at most 16 negatives"]


def no_such_directory(folder: Path) -> tuple[Path, list[str]]:
    return folder, ["nowhere: no such directory"]


@pytest.mark.parametrize(
    "build", [truncated_gzip, no_literal, without_text, duplicate_ids, small_catalogue, no_such_directory]
)
def test_datasets_that_cannot_be_used(
    build: Callable[[Path], tuple[Path, list[str]]], cli: CommandLine, tmp_path: Path
) -> None:
    folder, words = build(tmp_path / "nowhere")
    before = files_in(tmp_path)
    options = ["--part", "all", "--users", 3, "--negatives", 29, "--out", tmp_path / "cases.jsonl"]
    refused(cli("cases", folder, *options), *words)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ranker", "pointwise", "--preset", "hosted"], ["openai/gpt-6-luna needs a key", "OPENAI_API_KEY"]),
        (["--ranker", "pointwise", "--model", "gguf:{folder}/no.gguf"], ["no.gguf is not a GGUF model file", "GGUX"]),
        (["--ranker", "pointwise", "--model", "gguf:{folder}/none.gguf"], ["no model file at", "none.gguf"]),
        (["--ranker", "pointwise", "--model", "http://127.0.0.1:9/v1"], ["http://host:port/v1#model"]),
        (["--ranker", "pointwise"], ["'smollm2-135m' are not on this machine", "mllm3rec models fetch smollm2-135m"]),
        (["--ranker", "pointwise", "--preset", "grand"], ["no preset 'grand'", "local, hosted, hosted-cheap, paper"]),
        (["--ranker", "nonsense"], ["no ranker 'nonsense'", "popularity", "pointwise"]),
        (["--ranker", "knn", "--dataset", "{folder}"], ["no dataset in a known format"]),
    ],
)
def test_evaluations_that_cannot_begin_leave_nothing(
    options: list[str], words: list[str], cli: CommandLine, tmp_path: Path
) -> None:
    draw(cli, tmp_path / "cases.jsonl", users=3)
    (tmp_path / "no.gguf").write_bytes(b"GGUX")
    before = files_in(tmp_path)
    run, folder = tmp_path / "run", str(tmp_path)
    filled = [option.replace("{folder}", folder) for option in options]
    refused(cli("evaluate", tmp_path / "cases.jsonl", "--out", run, *filled), *words)
    assert files_in(tmp_path) == before
    assert not run.exists()


def test_a_run_directory_of_other_cases_is_left_alone(cli: CommandLine, tmp_path: Path) -> None:
    draw(cli, tmp_path / "a.jsonl", users=3)
    draw(cli, tmp_path / "b.jsonl", users=3, seed=1)
    run = tmp_path / "run"
    assert cli("evaluate", tmp_path / "a.jsonl", "--ranker", "knn", "--out", run).code == 0
    before = files_in(run)
    refused(cli("evaluate", tmp_path / "b.jsonl", "--ranker", "knn", "--out", run), str(run), "on cases with sha256")
    refused(cli("evaluate", tmp_path / "a.jsonl", "--ranker", "content", "--out", run), str(run), 'ranker is "knn"')
    assert {name: content for name, content in files_in(run).items() if name != ".lock"} == {
        name: content for name, content in before.items() if name != ".lock"
    }


def test_cases_that_were_tampered_with(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    drawn = draw(cli, path, users=120, negatives=1)
    lines = path.read_text().splitlines(keepends=True)
    evaluate = ["evaluate", path, "--ranker", "knn", "--out", tmp_path / "run"]

    one = drawn.cases[0]
    other = next(item for item in one.candidates if item != one.target)
    path.write_text(lines[0] + lines[1].replace(f'"target":"{one.target}"', f'"target":"{other}"') + "".join(lines[2:]))
    refused(cli(*evaluate), str(path), "changed after they were drawn")
    path.write_text("".join(lines[:-1]))
    refused(cli(*evaluate), str(path), "120 cases, the file has 119")
    # A careless console prints `:100:` as an emoji.
    path.write_text("".join(lines[:99]) + '{"user_id": 3\n' + "".join(lines[100:]))
    refused(cli(*evaluate), f"{path}:100: ")
    path.write_text('{"a": 1')
    refused(cli(*evaluate), f"{path}:1: ", "not a cases file")
    path.unlink()
    refused(cli(*evaluate), f"{path}: cannot be read")
    assert files_in(tmp_path) == {}


def test_shoppers_and_numbers_that_are_not_there(cli: CommandLine, tmp_path: Path, server: FakeOpenAI) -> None:
    nobody = cli("recommend", "demo", "--user", "NOBODY", "--model", server.model())
    refused(nobody, "no user 'NOBODY' in dataset 'demo' (400 users")
    refused(cli("cases", "demo", "--users", "many", "--out", tmp_path / "c.jsonl"), "--users 'many'", "`all`")
    refused(cli("audit", tmp_path / "none.csv"), "none.csv: cannot be read")
    refused(cli("audit", tmp_path), f"{tmp_path}: not a run directory")
    unknown_option = cli("cases", "demo", "--users", 3, "--negatives", 0, "--out", tmp_path / "c.jsonl")
    assert unknown_option.code == 2
    assert "--negatives" in unknown_option.err
    assert server.bodies == []
    assert files_in(tmp_path) == {}


def test_places_nothing_can_be_written_to(cli: CommandLine, tmp_path: Path) -> None:
    draw(cli, tmp_path / "cases.jsonl", users=2)
    file = tmp_path / "a-file"
    file.write_text("precious")
    refused(cli("cases", "demo", "--users", 2, "--out", file / "cases.jsonl"), str(file))
    refused(
        cli("evaluate", tmp_path / "cases.jsonl", "--ranker", "knn", "--out", file),
        str(file),
        "cannot be used for a run",
    )
    refused(cli("data", "prepare", "demo", "--out", file / "plain"), str(file))
    assert file.read_text() == "precious"


def test_the_help_loads_no_language_model_library() -> None:
    program = (
        "import sys, mllm3rec.cli.main\n"
        "assert not {'dspy', 'scipy', 'pandas', 'optuna'} & sys.modules.keys(), 'each costs a second'"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)  # noqa: S603
