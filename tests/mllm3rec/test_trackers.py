"""Trackers: what is written of a run, a study and an artifact, and what comes while a command runs."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import mllm3rec as m3
from evaluate.runs.run_metrics import RunMetrics
from mllm3rec.trackers.live_tracking import tracked
from mllm3rec.trackers.tracked_record import TRACKED, claim_identity, tracked_record
from optimize.artifact import SEARCH_FOLDER
from programs.gate import Gate
from programs.lm.ledger import by_role, read_calls
from programs.runtime.errors import InputError
from programs.runtime.events import Progress, ignore
from tests.support.command_line import CommandLine
from tests.support.fake_server import FakeOpenAI, Reply
from tests.support.served import freeze


@pytest.fixture
def run(cli: CommandLine, server: FakeOpenAI, tmp_path: Path) -> Path:
    """A finished run of six users."""
    cases, folder = tmp_path / "cases.json", tmp_path / "study" / "run"
    assert cli("cases", "demo", "--users", 6, "--out", cases).code == 0
    ended = cli("evaluate", cases, "--ranker", "listwise", "--model", server.model(), "--out", folder, "--k", "3")
    assert ended.code == 0, ended.err
    return folder


def test_a_run_has_its_metrics_with_intervals_and_its_costs(run: Path) -> None:
    record = tracked_record(run)
    figures = RunMetrics.model_validate_json((run / "metrics.json").read_text())
    hit = figures.metrics["HR@5/30"]
    names = ("HR_at_5_of_30", "HR_at_5_of_30.low", "HR_at_5_of_30.high", "HR_at_5_of_30.n")
    assert [record.metrics[name] for name in names] == [hit.mean, hit.low, hit.high, hit.n]
    assert "MRR_at_3_of_30" in record.metrics
    roles = by_role(read_calls(run / "ledger.jsonl"))
    assert record.metrics["cost.mote.calls"] == roles["mote"].calls > 0
    assert record.metrics["cost.all.calls"] == sum(usage.calls for usage in roles.values())
    assert record.params["ranker"] == "listwise"
    assert {path.name for path in record.files} == {"manifest.json", "metrics.json", "ledger.jsonl"}


def test_a_folder_of_runs_is_a_study(run: Path) -> None:
    (run.parent / "report.html").write_text("<p>a report")
    record = tracked_record(run.parent)
    assert (record.kind, [child.name for child in record.children]) == ("study", ["run"])
    assert record.report == run.parent / "report.html"
    with pytest.raises(InputError, match="no run, study or artifact"):
        tracked_record(run.parent.parent / "nothing")


def test_a_study_has_its_catalogue_runs_and_counts_those_without_figures(tmp_path: Path) -> None:
    study = {
        "name": "s",
        "datasets": [{"name": "shop", "source": "demo"}],
        "protocols": [{"name": "warm", "users": 5}, {"name": "whole", "users": 5, "catalogue": True}],
        "rankers": [{"ranker": "popularity"}, {"ranker": "random"}],
        "reference": "random",
    }
    m3.run_study(study, out=tmp_path / "s")
    unfinished = tmp_path / "s" / "shop" / "warm" / "draw0" / "random"
    (unfinished / "metrics.json").unlink()
    record = tracked_record(tmp_path / "s")
    names = ["shop/warm/draw0/popularity", "shop/whole/draw0/popularity", "shop/whole/draw0/random"]
    assert [child.name for child in record.children] == names
    assert (record.metrics["runs"], record.metrics["unfinished"]) == (3, 1)
    whole = record.children[1]
    assert whole.metrics["users"] == 5
    (hits,) = (name for name in whole.metrics if name.startswith("HR_at_5") and name.endswith(".n"))
    assert whole.metrics[hits] == 5
    with pytest.raises(InputError, match=r"has no metrics\.json yet"):
        tracked_record(unfinished)
    (tmp_path / "begun").mkdir()
    unfinished.rename(tmp_path / "begun" / "random")
    with pytest.raises(InputError, match="no run in it has figures yet"):
        tracked_record(tmp_path / "begun")


def test_an_artifact_has_its_prompts(tmp_path: Path) -> None:
    sha256 = freeze(tmp_path / "artifact", "openai/gpt-4o-mini")
    record = tracked_record(tmp_path / "artifact")
    assert record.identity == record.params["sha256"] == sha256
    assert "{history}" in record.prompts["shopper.infer.predict"]
    assert "gate" not in record.params


def test_an_artifact_with_a_gate_names_it_beside_the_weight(cli: CommandLine, tmp_path: Path) -> None:
    freeze(tmp_path / "artifact", "openai/gpt-4o-mini", gate=Gate(signal="history", cuts=(3.0,), weights=(0.0, 0.4)))
    assert tracked_record(tmp_path / "artifact").params["gate"] == (
        "weight 0 for history up to 3, 0.4 for history above 3"
    )
    shown = cli("artifact", "show", tmp_path / "artifact").out
    assert "fusion weight: by the gate" in shown and "gate: weight 0 for history up to 3" in shown


def test_what_links_point_to_is_not_taken(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("a secret")
    for name in ("report.html", "ledger.jsonl", "secret.toml"):
        (run / name).unlink(missing_ok=True)
        (run.parent / name).unlink(missing_ok=True)
        (run.parent / name).symlink_to(secret)
    (run / "report.html").symlink_to(secret)
    study = tracked_record(run.parent)
    child = study.children[0]
    assert (study.report, study.files, child.report) == (None, (), None)
    assert {path.name for path in child.files} == {"manifest.json", "metrics.json"}


def test_an_artifact_with_a_link_or_a_changed_prompt_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    freeze(folder, "openai/gpt-4o-mini")
    prompt = next((folder / "prompts").iterdir())
    content = prompt.read_bytes()
    prompt.write_bytes(b"changed")
    with pytest.raises(InputError, match="was changed"):
        tracked_record(folder)
    prompt.unlink()
    (tmp_path / "same.txt").write_bytes(content)
    prompt.symlink_to(tmp_path / "same.txt")
    with pytest.raises(InputError, match="symbolic link"):
        tracked_record(folder)


def test_users_as_parquet(cli: CommandLine, run: Path, tmp_path: Path) -> None:
    ended = cli("export", "users", run, "--out", tmp_path / "users.parquet", "--json")
    assert ended.json["users"] == 6
    frame = pd.read_parquet(tmp_path / "users.parquet")
    figures = RunMetrics.model_validate_json((run / "metrics.json").read_text())
    assert frame["HR@5/30"].mean() == pytest.approx(figures.metrics["HR@5/30"].mean)
    assert len(frame["order"][0]) == 30
    assert frame["motivations"].map(len).min() > 0


def test_parquet_that_does_not_fit_on_the_disk_leaves_the_earlier_file(
    cli: CommandLine, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_parquet(frame: pd.DataFrame, file: Any, index: bool) -> None:
        (file.open("wb") if isinstance(file, Path) else file).write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    earlier = tmp_path / "users.parquet"
    earlier.write_text("earlier")
    monkeypatch.setattr(pd.DataFrame, "to_parquet", to_parquet)
    assert cli("export", "users", run, "--out", earlier).code == 2
    assert earlier.read_text() == "earlier"


def test_wandb_offline(cli: CommandLine, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    ended = cli("export", "wandb", run, "--out", tmp_path, "--json")
    assert ended.code == 0, ended.err
    folder = Path(ended.json["written"])
    assert folder.parent == tmp_path / "wandb"
    assert folder.name.startswith("offline-run-")
    assert list(folder.glob("*.wandb"))


def test_sessions_of_one_run_are_one_run_of_wandb(
    cli: CommandLine, server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.chdir(tmp_path)
    cli("cases", "demo", "--users", 4, "--out", "cases.json")
    for _ in range(2):
        options = ("--ranker", "listwise", "--model", server.model(), "--out", "run", "--log", "wandb")
        assert cli("evaluate", "cases.json", *options).code == 0
    assert cli("export", "wandb", "run").code == 0
    assert len({path.name.split("-")[3] for path in (tmp_path / "wandb").glob("offline-run-*")}) == 1


def test_a_compile_and_its_export_are_one_run_of_wandb(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "artifact"
    for _ in range(2):
        with tracked("wandb", folder, ignore, folder / SEARCH_FOLDER) as events:
            events(Progress("trials", 1, 2))
            freeze(folder, "openai/gpt-4o-mini")
    assert cli("export", "wandb", folder.rename(tmp_path / "moved")).code == 0
    # offline-run-TIME-ID, with a number after it where two began in one second
    assert len({path.name.split("-")[3] for path in (tmp_path / "wandb").glob("offline-run-*")}) == 1
    freeze(tmp_path / "other", "openai/gpt-4o-mini")
    assert tracked_record(tmp_path / "other").identity != tracked_record(tmp_path / "moved").identity


def test_a_compile_that_ended_without_a_tracker_goes_on_with_one(tmp_path: Path) -> None:
    first = freeze(tmp_path, "openai/gpt-4o-mini")
    claimed = claim_identity(tmp_path, tmp_path / SEARCH_FOLDER)
    assert claimed == first, "that of earlier exports"
    assert freeze(tmp_path, "openai/gpt-4o-mini", weight=0.7) != first
    assert {claim_identity(tmp_path, tmp_path / SEARCH_FOLDER), tracked_record(tmp_path).identity} == {first}


def test_a_damaged_identity_is_named(tmp_path: Path) -> None:
    freeze(tmp_path, "openai/gpt-4o-mini")
    (tmp_path / SEARCH_FOLDER).mkdir()
    for content in ("{}", "no JSON", '{"identity": 3}'):
        (tmp_path / SEARCH_FOLDER / TRACKED).write_text(content)
        with pytest.raises(InputError, match=r"tracked\.json: .*delete the file"):
            tracked_record(tmp_path)


class TestMlflow:
    @pytest.fixture(autouse=True)
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A local store."""
        pytest.importorskip("mlflow").set_tracking_uri(None)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient()

    def runs(self) -> list[Any]:
        found = self.client().get_experiment_by_name("mllm3rec")
        return list(self.client().search_runs([found.experiment_id]))

    def test_a_study_has_nested_runs_and_a_second_export_replaces_it(
        self, cli: CommandLine, run: Path, tmp_path: Path
    ) -> None:
        (run.parent / "report.html").write_text("<p>a report")
        for _ in range(2):
            ended = cli("export", "mlflow", run.parent, "--to", f"sqlite:///{tmp_path}/mlflow.db")
            assert ended.code == 0, ended.err
        parent, child = sorted(self.runs(), key=lambda one: "mlflow.parentRunId" in one.data.tags)
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.metrics["HR_at_5_of_30.n"] == 6
        assert child.data.params["ranker"] == "listwise"
        assert "report.html" in {one.path for one in self.client().list_artifacts(parent.info.run_id)}

    def test_prompts_are_registered_once(self, cli: CommandLine, tmp_path: Path) -> None:
        import mlflow

        freeze(tmp_path / "artifact", "openai/gpt-4o-mini")
        for _ in range(2):
            assert cli("export", "mlflow", tmp_path / "artifact").code == 0
        prompt = mlflow.genai.load_prompt("prompts:/listwise.shopper.infer.predict@latest")
        assert prompt.version == 1
        assert "{history}" in prompt.template

    def test_figures_come_while_a_command_runs(self, cli: CommandLine, server: FakeOpenAI) -> None:
        cli("cases", "demo", "--users", 4, "--out", "cases.json")
        options = ("--ranker", "listwise", "--model", server.model(), "--out", "run", "--log", "mlflow")
        ended = cli("evaluate", "cases.json", *options)
        assert ended.code == 0, ended.err
        (found,) = self.runs()
        assert found.data.metrics["live.calls"] > 0
        assert found.data.metrics["HR_at_5_of_30.n"] == 4
        assert json.dumps(found.data.params)

    def test_a_session_that_fails_is_said_to_and_the_next_one_goes_on_with_its_run(
        self, cli: CommandLine, server: FakeOpenAI
    ) -> None:
        cli("cases", "demo", "--users", 4, "--out", "cases.json")
        options = ("--ranker", "listwise", "--model", server.model(), "--out", "run", "--log", "mlflow")
        well = server.respond
        server.respond = lambda body: Reply("no such key", status=401)
        assert cli("evaluate", "cases.json", *options).code == 2
        (failed,) = self.runs()
        assert failed.info.status == "FAILED"
        server.respond = well
        for _ in range(2):
            assert cli("evaluate", "cases.json", *options).code == 0
            (found,) = self.runs()
            assert (found.info.run_id, found.info.status) == (failed.info.run_id, "FINISHED")
        assert found.data.metrics["HR_at_5_of_30.n"] == 4

    def test_a_session_that_was_killed_before_its_run_began_is_the_same_run(
        self, cli: CommandLine, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        cli("cases", "demo", "--users", 4, "--out", "cases.json")
        killed = tracked("mlflow", tmp_path / "run", ignore)
        killed.__enter__()(Progress("fitting", 1, 2))
        (begun,) = self.runs()
        assert begun.info.status == "RUNNING"
        options = ("--ranker", "listwise", "--model", server.model(), "--out", "run", "--log", "mlflow")
        assert cli("evaluate", "cases.json", *options).code == 0
        assert cli("export", "mlflow", "run").code == 0
        (found,) = self.runs()
        assert (found.info.run_id, found.info.status) == (begun.info.run_id, "FINISHED")
        assert found.data.metrics["HR_at_5_of_30.n"] == 4

    def test_a_compile_that_goes_on_after_its_end_is_the_same_run_with_its_later_parameters(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "artifact"
        for weight in (0.3, 0.5):
            with tracked("mlflow", folder, ignore, folder / SEARCH_FOLDER) as events:
                events(Progress("trials", 1, 2))
                sha256 = freeze(folder, "openai/gpt-4o-mini", weight)
        (found,) = self.runs()
        assert (found.data.params["weight"], found.data.tags["latest.weight"]) == ("0.3", "0.5")
        assert found.data.tags["latest.sha256"] == sha256

    def test_what_an_interrupted_study_has_is_written_as_failed(self, run: Path) -> None:
        with pytest.raises(KeyboardInterrupt), tracked("mlflow", run.parent, ignore):
            raise KeyboardInterrupt
        assert {one.data.tags["mllm3rec.kind"]: one.info.status for one in self.runs()} == {
            "study": "FAILED",
            "run": "FINISHED",
        }

    def test_a_folder_may_have_quotes_in_its_name(self, cli: CommandLine, run: Path) -> None:
        folder = run.parent.rename(run.parent.with_name('Ann\'s "best" `runs`'))
        for _ in range(2):
            ended = cli("export", "mlflow", folder)
            assert ended.code == 0, ended.err
        assert len(self.runs()) == 2
        assert str(folder) in {one.data.tags["mllm3rec.identity"] for one in self.runs()}


def test_an_unknown_tracker_is_refused(cli: CommandLine, run: Path) -> None:
    ended = cli(
        "evaluate", run.parent.parent / "cases.json", "--ranker", "prior", "--out", run.parent / "p", "--log", "x"
    )
    assert ended.code == 2
    assert "choose mlflow or wandb" in ended.err
