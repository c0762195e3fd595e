"""`--via batch` and `mllm3rec batch`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from programs.batch import job_keeper, run
from programs.batch.job_table import JobTable, jobs_file
from programs.batch.providers import FILE
from programs.lm.ledger import read_calls
from programs.runtime.environment import variable
from tests.support.batch_server import BatchServer, unlucky
from tests.support.cases import cases_file
from tests.support.command_line import CommandLine
from tests.support.compile_setup import sensitive, trials_of
from tests.support.fake_server import Body, Reply, digest, sensible
from tests.support.runs import judgements, rows_in


@pytest.fixture(autouse=True)
def hurried_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at jobs follow each other at once."""
    monkeypatch.setattr(run, "LOOK_EVERY", (0.001, 0.001))
    monkeypatch.setattr(job_keeper, "SETTLING", 0.0)
    monkeypatch.setattr(job_keeper, "_FIRST_PAUSE", 0.0)


@pytest.fixture
def jobs() -> Iterator[BatchServer]:
    """A server that answers every line."""
    with BatchServer() as server:
        yield server


def evaluated(server: BatchServer, folder: Path, *more: object, ranker: str = "pointwise") -> list[object]:
    """A command that ranks two users, with prices."""
    prices = server.prices(folder / "prices.toml")
    cases = folder / "cases.jsonl"
    if not cases.exists():
        cases_file(cases, 2, negatives=3, part="test")
    model = ["--ranker", ranker, "--model", server.model(), "--prices", prices]
    return ["evaluate", cases, *model, *more, "--json"]


@pytest.mark.parametrize("ranker", ["pointwise", "listwise", "first-token"])
def test_the_same_results_as_by_calls_at_half_the_price(
    cli: CommandLine, tmp_path: Path, ranker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BatchServer(unlucky(1)) as server:
        by_calls = cli(*evaluated(server, tmp_path, "--out", tmp_path / "calls", ranker=ranker))
        asked = len(server.bodies)
        monkeypatch.setenv(variable("cache"), str(tmp_path / "other"))
        command = evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch", ranker=ranker)
        in_batches = cli(*command)
    assert (by_calls.code, in_batches.code) == (0, 0), in_batches.err
    assert judgements(rows_in(tmp_path / "run")) == judgements(rows_in(tmp_path / "calls"))
    assert len(server.bodies) == 2 * asked
    assert server.paid_twice() == []
    calls = [call for call in read_calls(tmp_path / "run" / "ledger.jsonl") if not call.hit]
    assert sum(call.usd or 0.0 for call in calls) == pytest.approx(server.bill)
    assert {call.via for call in calls} == {"batch"}
    assert in_batches.json["usage"]["usd"] == pytest.approx(by_calls.json["usage"]["usd"] / 2)


def test_traits_of_a_whole_cases_file(cli: CommandLine, tmp_path: Path, jobs: BatchServer) -> None:
    path = tmp_path / "cases.jsonl"
    items = {item for case in cases_file(path, 2, negatives=3).cases for item in case.candidates}
    ended = cli("distill", path, "--mote", jobs.model(), "--via", "batch", "--json")
    assert ended.code == 0, ended.err
    assert (ended.json["items"], ended.json["calls"], len(jobs.bodies)) == (len(items),) * 3
    assert len(jobs.batches) == 1
    assert cli("distill", path, "--mote", jobs.model(), "--json").json["calls"] == 0


def test_traits_whose_lines_all_expire_are_asked_again_by_the_same_command(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    cases_file(path, 2, negatives=3)
    fate = "expired"
    with BatchServer(lambda key, before: fate) as server:
        command = ["distill", path, "--mote", server.model(), "--via", "batch", "--ledger", tmp_path / "calls.jsonl"]
        ended = cli(*command, "--json")
        assert (ended.code, ended.json["failed"]) == (1, ended.json["items"])
        assert "the same command asks again" in ended.err
        fate = "ok"
        ended = cli(*command, "--json")
    assert (ended.code, ended.json["failed"]) == (0, 0)


def test_a_model_without_a_batch_price_is_refused_under_a_dollar_budget(
    cli: CommandLine, tmp_path: Path, jobs: BatchServer
) -> None:
    command = evaluated(jobs, tmp_path, "--out", tmp_path / "run", "--via", "batch", "--budget-usd", 1)
    (tmp_path / "prices.toml").write_text(
        f'dated = 2026-01-01\nsource = "x"\n[models]\n"{jobs.model()}" = {{ input = 1.0, output = 1.0 }}\n'
    )
    ended = cli(*command)
    assert ended.code == 2
    assert "in a batch is not known" in ended.err and "--prices" in ended.err
    assert jobs.requests == 0


@pytest.mark.parametrize("limit", [("--budget-usd", 0.0001), ("--max-calls", 3)])
def test_a_wave_above_the_budget_is_not_submitted(
    cli: CommandLine, tmp_path: Path, jobs: BatchServer, limit: tuple[object, object]
) -> None:
    ended = cli(*evaluated(jobs, tmp_path, "--out", tmp_path / "run", "--via", "batch", *limit))
    assert ended.code == 3
    assert "nothing submitted" in ended.err
    assert jobs.requests == 0


def test_a_budget_holds_over_all_waves(cli: CommandLine, tmp_path: Path, jobs: BatchServer) -> None:
    ended = cli(*evaluated(jobs, tmp_path, "--out", tmp_path / "run", "--via", "batch", "--budget-usd", 0.05))
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("said", ["blocked by our content policy", "the prompt is odd"])
def test_a_refused_text_ends_as_it_does_by_calls(
    cli: CommandLine, tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(body: Body) -> Reply:
        asked = str(body["messages"])
        return Reply(said, status=400) if "`motivations`" in asked and digest(asked) % 2 else sensible(body)

    with BatchServer(respond=picky) as server:
        by_calls = cli(*evaluated(server, tmp_path, "--out", tmp_path / "calls"))
        monkeypatch.setenv(variable("cache"), str(tmp_path / "other"))
        command = evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch")
        in_batches = cli(*command)
        first = len(server.bodies)
        assert cli(*command).code == in_batches.code
    assert in_batches.code == by_calls.code
    assert judgements(rows_in(tmp_path / "run")) == judgements(rows_in(tmp_path / "calls"))
    assert (len(server.bodies) > first) == (by_calls.code == 1), "the next session tries users again who failed"


def test_a_parameter_that_is_refused_is_left_out_in_the_next_wave(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def old(body: Body) -> Reply:
        return Reply("unknown field: logprobs", status=400) if body.get("logprobs") else sensible(body)

    with BatchServer(respond=old) as server:
        by_calls = cli(*evaluated(server, tmp_path, "--out", tmp_path / "calls"))
    monkeypatch.setenv(variable("cache"), str(tmp_path / "other"))
    with BatchServer(respond=old) as server:
        ended = cli(*evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch"))
        assert server.paid_twice() == []
    assert (by_calls.code, ended.code) == (0, 0), ended.err
    assert {row.score_source for row in rows_in(tmp_path / "run").values()} == {"integer"}


def test_an_answer_that_was_cut_off_while_thinking(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def thinking(body: Body) -> Reply:
        return Reply("") if "`motivations`" in str(body) and body["max_tokens"] < 500 else sensible(body)

    with BatchServer(respond=thinking) as server:
        by_calls = cli(*evaluated(server, tmp_path, "--out", tmp_path / "calls"))
        monkeypatch.setenv(variable("cache"), str(tmp_path / "other"))
        ended = cli(*evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch"))
        assert server.paid_twice() == []
    assert (by_calls.code, ended.code) == (0, 0), ended.err
    assert [row["order"] for row in judgements(rows_in(tmp_path / "run")).values()] == [
        row["order"] for row in judgements(rows_in(tmp_path / "calls")).values()
    ]


def compiled(server: BatchServer, folder: Path, name: str, *more: object) -> list[object]:
    """A command that compiles on six dev users: two trials, finals of two draws, held-out check."""
    cases = folder / "dev.jsonl"
    if not cases.exists():
        cases_file(cases, 6, negatives=3)
    model = ["--model", server.model(), "--prices", server.prices(folder / "prices.toml")]
    small = ["--trials", 2, "--demo-sets", 1, "--wordings", 1, "--max-demos", 1, "--interactions", 2, "--draws", 2]
    return ["compile", cases, "--out", folder / name, *model, *small, *more, "--json"]


def test_a_compile_asks_its_fixed_phases_by_batches(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BatchServer(respond=sensitive) as server:
        by_calls = cli(*compiled(server, tmp_path, "calls"))
        monkeypatch.setenv(variable("cache"), str(tmp_path / "other"))
        in_batches = cli(*compiled(server, tmp_path, "batches", "--via", "batch"))
        assert server.paid_twice() == []
    assert (by_calls.code, in_batches.code) == (0, 0), in_batches.err
    assert trials_of(tmp_path / "batches") == trials_of(tmp_path / "calls")
    same = ("trial", "searched", "finals", "verdict", "weight", "prompts")
    assert {key: in_batches.json.get(key) for key in same} == {key: by_calls.json.get(key) for key in same}
    calls = [call for call in read_calls(tmp_path / "batches" / "search" / "ledger.jsonl") if not call.hit]
    batched = [call for call in calls if call.via == "batch"]
    assert sum(call.usd or 0.0 for call in batched) == pytest.approx(server.bill)
    assert {call.phase for call in batched} == {"pools", "finals", "held-out"}
    left = {call.role for call in calls if call.via != "batch" and call.phase != "search"}
    assert left <= {"proposer"}, "the fixed phases themselves find every answer"
    asked = {phase: spent["calls"] for phase, spent in by_calls.json["spent"].items()}
    assert {phase: spent["calls"] for phase, spent in in_batches.json["spent"].items()} == asked


def test_what_batches_refuse_a_compile_asks_by_itself(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BatchServer(lambda key, before: "missing" if key < "4" else "ok", respond=sensitive) as server:
        in_batches = cli(*compiled(server, tmp_path, "batches", "--via", "batch"))
        monkeypatch.setenv(variable("cache"), str(tmp_path / "other"))
        by_calls = cli(*compiled(server, tmp_path, "calls"))
    assert (by_calls.code, in_batches.code) == (0, 0), in_batches.err
    assert trials_of(tmp_path / "batches") == trials_of(tmp_path / "calls")


def test_an_optimizer_without_calls_takes_no_batches(cli: CommandLine, tmp_path: Path) -> None:
    cases_file(tmp_path / "dev.jsonl", 6, negatives=3)
    more = ["--program", "encoder", "--optimizer", "prototypes", "--via", "batch"]
    ended = cli("compile", tmp_path / "dev.jsonl", "--out", tmp_path / "art", *more)
    assert ended.code == 2
    assert "prototypes" in ended.err and "--via" in ended.err


def test_a_line_is_asked_three_times_a_session(cli: CommandLine, tmp_path: Path) -> None:
    def fate(key: str, before: int) -> str:
        return "missing" if before < 3 else "ok"

    with BatchServer(fate) as server:
        command = evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch", ranker="without-mote")
        first = cli(*command)
        assert max(map(len, server.submitted.values())) == 3
        codes = [cli(*command).code for _ in range(4)]
    assert (first.code, codes[-1]) == (2, 0), first.err
    assert "asked several times in batches" in first.err


def test_a_batch_that_is_refused_as_a_whole(cli: CommandLine, tmp_path: Path, jobs: BatchServer) -> None:
    command = evaluated(jobs, tmp_path, "--out", tmp_path / "run", "--via", "batch")
    jobs.refuse_batches = "your quota of enqueued tokens is used up"
    ended = cli(*command)
    assert ended.code == 2
    assert "quota of enqueued tokens" in ended.err and "the same command" in ended.err
    jobs.refuse_batches = ""
    assert cli(*command).code == 0


def test_ctrl_c_leaves_jobs_to_the_provider(cli: CommandLine, tmp_path: Path) -> None:
    with BatchServer(looks=10**9) as server:
        command = evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch")
        server.interrupt_at_look = 3
        ended = cli(*command)
        assert ended.code == 130
        assert "go on at the provider" in ended.err and "mllm3rec batch cancel" in ended.err
        (job,) = cli("batch", "status", "--json").json["jobs"]
        assert (job["state"], job["answered"], job["batch"]) == ("created", 0, "batch-0")
        assert "created" in cli("batch", "status").out
        waiting = cli("batch", "fetch", "--json")
        assert (waiting.code, waiting.json) == (1, {"fetched": 0, "left": 1, "failed": {}})
        server.looks = server.interrupt_at_look = 0
        fetched = cli("batch", "fetch", "--json")
        assert (fetched.code, fetched.json) == (0, {"fetched": 1, "left": 0, "failed": {}})
        asked = len(server.bodies)
        assert cli(*command).code == 0
        assert server.paid_twice() == []
    assert len(server.bodies) > asked
    calls = [call for call in read_calls(tmp_path / "run" / "ledger.jsonl") if not call.hit]
    assert sum(call.usd or 0.0 for call in calls) == pytest.approx(server.bill), "the fetched job is paid by its run"


@pytest.mark.parametrize("command", ["evaluate", "distill"])
def test_a_run_that_goes_on_without_batches_pays_for_those_it_had(
    cli: CommandLine, tmp_path: Path, command: str
) -> None:
    with BatchServer(looks=10**9) as server:
        run = evaluated(server, tmp_path, "--out", tmp_path / "run")
        ledger = tmp_path / "run" / "ledger.jsonl"
        if command == "distill":
            run = ["distill", "demo", "--mote", server.model(), "--prices", tmp_path / "prices.toml"]
            run += ["--out", tmp_path / "traits.parquet", "--json"]
            ledger = tmp_path / "traits.parquet.ledger.jsonl"
        server.interrupt_at_look = 1
        assert cli(*run, "--via", "batch").code == 130
        refused = cli(*run)
        assert refused.code == 2
        assert "--via batch" in refused.err and "batch cancel" in refused.err
        server.looks = server.interrupt_at_look = 0
        assert cli("batch", "fetch").code == 0
        assert server.bill > 0
        # Nothing is left to ask of the traits.
        assert cli(*run, "--budget-usd", server.bill).code == (3 if command == "evaluate" else 0)
        asked = server.paths["POST /v1/chat/completions"]
        assert cli(*run).code == 0
        assert (server.paths["POST /v1/chat/completions"] > asked) == (command == "evaluate")
    calls = [call for call in read_calls(ledger) if call.via == "batch"]
    assert sum(call.usd or 0.0 for call in calls) == pytest.approx(server.bill)
    assert len({call.id for call in calls}) == len(calls)


def test_a_server_that_is_not_there(cli: CommandLine, tmp_path: Path) -> None:
    with BatchServer() as server:
        command = evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch")
    ended = cli(*command)
    assert ended.code == 2
    assert "no server listens there" in ended.err


def test_cancelled_jobs_are_asked_again(cli: CommandLine, tmp_path: Path) -> None:
    with BatchServer(looks=10**9) as server:
        command = evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch")
        server.interrupt_at_look = 1
        assert cli(*command).code == 130
        nothing = cli("batch", "cancel", "nothing")
        assert nothing.code == 1
        assert "batch status" in nothing.out
        assert len(cli("batch", "cancel", "--json").json["cancelled"]) == 1
        assert cli("batch", "fetch", "--json").json == {"fetched": 1, "left": 0, "failed": {}}
        server.looks = server.interrupt_at_look = 0
        assert cli(*command).code == 0


def test_a_job_that_fails_keeps_no_other_from_being_fetched_or_cancelled(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    with BatchServer(looks=10**9) as server, BatchServer(looks=10**9) as hosted:
        monkeypatch.setenv("OPENAI_BASE_URL", hosted.url)
        commands = [
            ["distill", "demo", "--mote", model, "--out", tmp_path / f"{n}.parquet", "--via", "batch"]
            for n, model in enumerate(["openai/gpt-6-luna", server.model()])
        ]
        for one, command in zip((hosted, server), commands, strict=True):
            one.interrupt_at_look = 1
            assert cli(*command).code == 130
            one.looks = one.interrupt_at_look = 0
        monkeypatch.delenv("OPENAI_API_KEY")
        first, second = (job["job"] for job in cli("batch", "status", "--json").json["jobs"])
        server.looks = 10**9
        cancelled = cli("batch", "cancel", "--json")
        assert (cancelled.code, cancelled.json["cancelled"], [*cancelled.json["failed"]]) == (2, [second], [first])
        assert "OPENAI_API_KEY" in cancelled.err
        fetched = cli("batch", "fetch", "--json")
        assert (fetched.code, fetched.json["fetched"], fetched.json["left"]) == (2, 1, 1)
        assert [*fetched.json["failed"]] == [first]
        assert "OPENAI_API_KEY" in fetched.err
        monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
        assert cli(*commands[0]).code == 0, "what could not be cancelled is not cancelled"


def test_jobs_that_another_process_begins_meanwhile_are_not_fetched(cli: CommandLine, tmp_path: Path) -> None:
    class Busy(BatchServer):
        """A server at whose look another process begins two jobs."""

        def serve(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
            if self.others and path.endswith("/batches/batch-0"):
                table = JobTable(jobs_file())
                (job,) = table.jobs()
                while self.others:
                    table.add(replace(job, id=f"other-{self.others}", provider=FILE, state="created"), [])
                    self.others -= 1
                table.close()
            return super().serve(method, path, body)

        others = 0

    with Busy(looks=10**9) as server:
        server.interrupt_at_look = 3
        assert cli(*evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch")).code == 130
        server.looks, server.interrupt_at_look, server.others = 0, 0, 2
        assert cli("batch", "fetch", "--json").json == {"fetched": 1, "left": 2, "failed": {}}


def answered(questions: Path, answers: Path, respond: Callable[[Body], Reply] = sensible) -> None:
    """What `vllm run-batch -i QUESTIONS -o ANSWERS` does."""
    server = BatchServer()
    lines = []
    for raw in reversed(questions.read_text().splitlines()):
        line = json.loads(raw)
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        body = server._chat._payload(line["body"], respond(line["body"]))
        response = {"status_code": 200, "request_id": "vllm-1", "body": body}
        lines.append(json.dumps({"id": "vllm-1", "custom_id": line["custom_id"], "response": response, "error": None}))
    answers.write_text("\n".join([*lines, ""]))


def test_waves_in_files_need_no_network(cli: CommandLine, tmp_path: Path, jobs: BatchServer) -> None:
    questions, answers = tmp_path / "wave.jsonl", tmp_path / "answers.jsonl"
    command = evaluated(jobs, tmp_path, "--out", tmp_path / "run")
    waves = 0
    while "questions" in (written := cli("batch", "write", questions, *command)).json:
        assert written.code == 4
        waves += 1
        assert cli("batch", "write", questions, *command).code == 2, "the answers are awaited"
        answered(questions, answers)
        with answers.open("a") as file:
            file.write('{"custom_id": "somebody else\'s"}\nno JSON\n' + "[" * 10_000 + "\n")
        read = cli("batch", "read", answers, "--json")
        assert (read.code, read.json["again"], read.json["unknown"]) == (0, 0, 1)
    assert written.code == 0
    assert waves == 3
    assert jobs.requests == 0
    assert cli(*evaluated(jobs, tmp_path, "--out", tmp_path / "calls")).code == 0
    assert jobs.requests == 0, "the answers are in the response cache"
    assert judgements(rows_in(tmp_path / "run")) == judgements(rows_in(tmp_path / "calls"))


def test_questions_are_written_over_no_other_file(cli: CommandLine, tmp_path: Path, jobs: BatchServer) -> None:
    command = evaluated(jobs, tmp_path, "--out", tmp_path / "run")
    cases = Path(str(command[1]))
    before = cases.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nothing")
    for path in (cases, tmp_path / "link.jsonl"):
        ended = cli("batch", "write", path, *command)
        assert ended.code == 2
        assert "is there already" in ended.err
    assert cases.read_bytes() == before
    assert cli("batch", "write", tmp_path / "wave.jsonl", *command).code == 4


def test_writing_has_the_exit_code_of_its_command(cli: CommandLine, tmp_path: Path, jobs: BatchServer) -> None:
    questions = tmp_path / "wave.jsonl"
    command = evaluated(jobs, tmp_path, "--out", tmp_path / "run")
    by_itself = cli(*command, "--via", questions)
    assert by_itself.code == 4
    assert "questions are in" in by_itself.err
    cli("batch", "cancel")
    codes = [cli("batch", "write", questions, *command).code]
    while codes[-1] == 4:
        answered(questions, tmp_path / "answers.jsonl", lambda body: Reply("I cannot tell."))
        assert cli("batch", "read", tmp_path / "answers.jsonl").code == 0
        codes.append(cli("batch", "write", questions, *command).code)
    assert len(codes) > 1
    assert codes[-1] == 1, "nobody has a readable answer"


def test_a_file_that_answers_nothing(cli: CommandLine, tmp_path: Path, jobs: BatchServer) -> None:
    assert cli("batch", "read", tmp_path / "absent.jsonl").code == 2
    cli("batch", "write", tmp_path / "wave.jsonl", *evaluated(jobs, tmp_path, "--out", tmp_path / "run"))
    for content in ("", "{}\n", '{"custom_id": "x", "response": {"status_code": 200}}\n', "\x00" * 100):
        (tmp_path / "answers.jsonl").write_text(content)
        ended = cli("batch", "read", tmp_path / "answers.jsonl")
        assert ended.code == 2
        assert "answers none of the questions" in ended.err
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "answers.jsonl")
    assert "symbolic link" in cli("batch", "read", tmp_path / "link.jsonl").err


def test_odd_lines_are_asked_again(cli: CommandLine, tmp_path: Path, jobs: BatchServer) -> None:
    questions, answers = tmp_path / "wave.jsonl", tmp_path / "answers.jsonl"
    command = evaluated(jobs, tmp_path, "--out", tmp_path / "run")
    cli("batch", "write", questions, *command)
    answered(questions, answers)
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    lines[0]["response"]["body"] = {"choices": "none"}
    lines[1]["response"]["status_code"] = 0
    lines[2]["response"] = ["odd"]
    del lines[3]
    answers.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[4]]))
    read = cli("batch", "read", answers, "--json")
    assert (read.code, read.json["again"], read.json["unknown"]) == (1, 4, 1)
    again = cli("batch", "write", questions, *command)
    assert len(questions.read_text().splitlines()) == again.json["questions"] >= 4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--via", "pigeon"), "choose calls, batch, or a file"),
        (("--via", "batch", "--retry-unparsable"), "leave out one of the two"),
        (("--via", "batch", "--model", "mistral/mistral-small"), "no batch interface"),
        (("--via", "batch", "--model", "local/smollm2-135m"), "no batch interface"),
    ],
)
def test_what_batches_cannot_do(
    cli: CommandLine, tmp_path: Path, jobs: BatchServer, more: tuple[object, ...], said: str
) -> None:
    ended = cli(*evaluated(jobs, tmp_path, "--out", tmp_path / "run", *more))
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.parametrize(
    ("model", "route"),
    [
        ("anthropic/claude-haiku-4-5", "POST /v1/messages/batches"),
        ("gemini/gemini-3.8-flash", "POST /v1beta/models/gemini-3.8-flash:batchGenerateContent"),
    ],
)
def test_other_forms_than_openais(
    cli: CommandLine, tmp_path: Path, model: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, key = model.partition("/")[0].upper(), "sk-canary-0123456789"
    monkeypatch.setenv(f"{provider}_API_KEY", key)
    with BatchServer(unlucky(5)) as server:
        monkeypatch.setenv(f"{provider}_BASE_URL", server.google_url if provider == "GEMINI" else server.url)
        prices = server.prices(tmp_path / "prices.toml", (model,))
        cases = tmp_path / "cases.jsonl"
        cases_file(cases, 2, negatives=3, part="test")
        run = ["--ranker", "listwise", "--model", model, "--prices", prices, "--out", tmp_path / "run"]
        written = cli("batch", "write", tmp_path / "wave.jsonl", "evaluate", cases, *run)
        assert (written.code, server.requests) == (2, 0)
        assert "OpenAI's form" in written.err and "--via batch" in written.err
        ended = cli("evaluate", cases, *run, "--via", "batch", "--budget-usd", 5, "--json")
        assert ended.code == 0, ended.err
        assert server.paths[route] == len(server.batches) > 2
        assert server.keys == {key}
        assert server.paid_twice() == []
    calls = [call for call in read_calls(tmp_path / "run" / "ledger.jsonl") if not call.hit]
    assert sum(call.usd or 0.0 for call in calls) == pytest.approx(server.bill)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if key.encode() in path.read_bytes()], "the key is written nowhere"


@pytest.mark.parametrize("command", ["distill", "profile", "recommend"])
def test_whole_catalogues(cli: CommandLine, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [] if command == "distill" else ["--users", 2]
    ranker = ["--ranker", "listwise", "--candidates", 3, "--k", 2] if command == "recommend" else []
    role = {"distill": "--mote", "profile": "--mope", "recommend": "--model"}[command]
    with BatchServer(unlucky(2)) as server:
        models = [role, server.model(), "--prices", server.prices(tmp_path / "prices.toml")]
        run = [command, "demo", *users, *ranker, *models, "--json"]
        by_calls = cli(*run, "--out", tmp_path / "calls.parquet")
        asked = len(server.bodies)
        monkeypatch.setenv(variable("cache"), str(tmp_path / "other"))
        in_batches = cli(*run, "--out", tmp_path / "batches.parquet", "--via", "batch")
    assert (by_calls.code, in_batches.code) == (0, 0), in_batches.err
    assert len(server.bodies) == 2 * asked
    assert server.paths["POST /v1/chat/completions"] == asked
    assert server.paid_twice() == []
    paid = [call for call in read_calls(tmp_path / "batches.parquet.ledger.jsonl") if not call.hit]
    assert sum(call.usd or 0.0 for call in paid) == pytest.approx(server.bill)
    usage = in_batches.json["usage"]
    assert (usage["calls"], usage["tokens_in"]) == (len(paid), sum(call.tokens_in for call in paid))
    assert usage["usd"] == pytest.approx(server.bill)
    assert (in_batches.json["forecast"] or {"calls": 0})["calls"] == 0, "what is left are cache hits"
    tables = [pq.read_table(tmp_path / name).to_pandas() for name in ("calls.parquet", "batches.parquet")]
    cost = ["calls", "cache_hits", "tokens_in", "tokens_out", "usd", "seconds"]
    first, second = (table.drop(columns=cost).to_json() for table in tables)
    assert first == second
