"""Whole catalogues: rows equal the general path's, a failure is a row, and nothing is asked twice, whatever happens."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mllm3rec as m3
from mllm3rec.cli.whole import chosen_users
from mllm3rec.stages import columns
from mllm3rec.stages.forecast import ASKED_ROWS
from mllm3rec.stages.parts import inputs_file, parts_folder
from mllm3rec.stages.settings import Task
from optimize.artifact import MANIFEST, ArtifactManifest
from programs.lm.ledger import read_calls
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import ROLE_NAMES, RoleName
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Event, Note
from tests.support.command_line import CommandLine, process_of
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, sensible
from tests.support.files import plain_files
from tests.support.paths import TINY_ENCODER
from tests.support.served import freeze


@pytest.fixture(scope="module")
def demo() -> m3.Dataset:
    return m3.load_dataset("demo")


def rows(path: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(path)
    found = {row[table.schema.names[0]]: row for row in table.to_pylist()}
    assert len(found) == table.num_rows
    return found


def questions(server: FakeOpenAI) -> Counter[str]:
    return Counter(json.dumps(body["messages"]) for body in server.bodies)


@pytest.mark.parametrize("users", ["²", "0", "١", "9" * 40])
def test_users_that_are_no_number_are_a_file(users: str) -> None:
    with pytest.raises(m3.InputError, match="there is no such file"):
        chosen_users(users, ["ann"])
    assert chosen_users("1", ["ann", "ben"]) == ["ann"]


def test_a_file_of_users(tmp_path: Path) -> None:
    file = tmp_path / "users.txt"
    file.write_bytes("\ufeffann\n\nben\n".encode())
    assert chosen_users(str(file), ["ann"]) == ["ann", "ben"]
    file.write_text("\n")
    with pytest.raises(m3.InputError, match="names no user"):
        chosen_users(str(file), ["ann"])


@pytest.mark.parametrize("out", [".", ""])
def test_an_output_without_a_name(demo: m3.Dataset, out: str) -> None:
    with pytest.raises(m3.InputError, match="give the name of a file"):
        m3.distill_all(demo, out, model="x")


def test_a_dry_run_of_few_rows_has_a_forecast(server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path) -> None:
    users = list(demo.sequences)[:5]
    job = m3.profile_all(demo, tmp_path / "p.parquet", users=users, model=server.model(), dry_run=True)
    assert job.forecast is not None and (job.forecast.rows, sum(job.rows.values())) == (3, 2)


def test_a_forecast_counts_cached_rows_as_free_and_the_others_not(
    server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
) -> None:
    first = dataclasses.replace(demo, items=dict(list(demo.items.items())[:40]))
    m3.distill_all(first, tmp_path / "first.parquet", model=server.model())
    before, notes = len(server.bodies), list[Event]()
    job = m3.distill_all(demo, tmp_path / "all.parquet", model=server.model(), dry_run=True, on_event=notes.append)
    forecast, asked = job.forecast, len(server.bodies) - before
    assert forecast is not None and forecast.sampled - forecast.cached == asked >= ASKED_ROWS
    assert forecast.calls == round(forecast.rows * asked / forecast.sampled)
    assert forecast.cached > 0 and len(demo.items) - 40 - asked == pytest.approx(forecast.calls, abs=20)
    said = f"from {forecast.sampled} rows, {forecast.cached} of them cached"
    assert any(said in note.text for note in notes if isinstance(note, Note))


def test_a_forecast_of_cached_rows_is_free(server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path) -> None:
    m3.distill_all(demo, tmp_path / "first.parquet", model=server.model())
    job = m3.distill_all(demo, tmp_path / "again.parquet", model=server.model())
    assert job.forecast is not None
    assert (job.forecast.calls, job.forecast.cached, list(rows(job.out))) == (0, 104, list(demo.items))


def test_recommendations_need_a_dataset_that_workers_can_load(demo: m3.Dataset, tmp_path: Path) -> None:
    frames = m3.Dataset.from_frames(demo.interactions[["user_id", "item_id"]])
    with pytest.raises(InputError, match="write it to a folder"):
        m3.recommend_all(frames, tmp_path / "r.parquet", users=[frames.interactions["user_id"][0]], model="x")


class TestEqualsTheGeneralPath:
    def test_traits(self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path) -> None:
        job = m3.distill_all(demo, tmp_path / "t.parquet", model=server.model())
        found = rows(job.out)
        assert (job.complete, list(found), len(server.bodies)) == (True, list(demo.items), len(demo.items))
        program = m3.program("listwise", demo, model=server.model())
        for item_id in list(demo.items)[::7]:
            traits = program.traits(item_id)
            assert (tuple(found[item_id]["traits"]), tuple(found[item_id]["dropped"])) == (
                traits.phrases,
                traits.dropped,
            )
        assert len(server.bodies) == len(demo.items)  # the trait store has them all
        assert pq.read_schema(job.out).names == columns.TRAIT_ROWS.names
        calls = list(read_calls(tmp_path / "t.parquet.ledger.jsonl"))
        assert sum(row["tokens_in"] for row in found.values()) == sum(call.tokens_in for call in calls)

    def test_profiles(self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path) -> None:
        users = list(demo.sequences)[:12]
        job = m3.profile_all(demo, tmp_path / "p.parquet", users=users, model=server.model())
        found = rows(job.out)
        assert list(found) == users
        program = m3.program("listwise", demo, model=server.model())
        before = len(server.bodies)
        for user in users:
            profile = program.profile(user=user)
            assert found[user]["motivations"] == [
                one.model_dump() | {"evidence": list(one.evidence)} for one in profile.motivations
            ]
        assert len(server.bodies) == before  # the response cache has the answers

    def test_recommendations(self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path) -> None:
        users = list(demo.sequences)[:6]
        job = m3.recommend_all(
            "demo", tmp_path / "r.parquet", users=users, k=3, candidates=8, program="listwise", model=server.model()
        )
        found = rows(job.out)
        program = m3.program("listwise", demo, model=server.model())
        for user in users:
            expected = program.recommend(user=user, k=3, candidates=8, explain=False)
            assert [one["item_id"] for one in found[user]["items"]] == [one.item_id for one in expected]
            # Products of matrices for many users and for one: some processors add in another order.
            scores = [one.score for one in expected]
            assert [one["score"] for one in found[user]["items"]] == pytest.approx(scores, rel=1e-6)

    def test_processes_make_the_same_rows(self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path) -> None:
        job = m3.distill_all(demo, tmp_path / "t.parquet", model=server.model(), processes=2)
        assert (job.complete, max(questions(server).values())) == (True, 1)
        other = m3.distill_all(demo, tmp_path / "o.parquet", model=server.model())
        assert (len(server.bodies), rows(job.out).keys()) == (len(demo.items), rows(other.out).keys())
        assert all(rows(job.out)[key]["traits"] == row["traits"] for key, row in rows(other.out).items())

    def test_stated_limits_are_for_all_processes_together(
        self, demo: m3.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limits, notes, now = tmp_path / "limits.toml", list[Event](), InFlight()
        with FakeOpenAI(now.respond) as server:
            limits.write_text(f'["{server.model()}"]\nconcurrency = 2\n')
            monkeypatch.setenv("MLLM3REC_LIMITS", str(limits))
            job = m3.distill_all(demo, tmp_path / "t.parquet", model=server.model(), processes=3, on_event=notes.append)
        assert (job.complete, now.most) == (True, 2)
        assert any("2 of 3 processes work" in note.text for note in notes if isinstance(note, Note))


class InFlight:
    """Counts the calls that a server answers at the same time."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()

    def respond(self, body: Body) -> Reply:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        with self._lock:
            self._now -= 1
        return sensible(body)


def by_older_version(out: Path, settings: m3.StageSettings) -> None:
    """Make a finished output what a version without records of inputs would have written."""
    inputs_file(out).unlink(missing_ok=True)
    table = pq.read_table(out)
    pq.write_table(table.replace_schema_metadata({"mllm3rec.identity": settings.identity()}), out)


class TestChangedInput:
    def test_an_edited_item_is_made_again_and_no_other(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        out = tmp_path / "t.parquet"
        m3.distill_all(demo, out, model=server.model())
        first, before = next(iter(demo.items)), len(server.bodies)
        edited = {**demo.items, first: demo.items[first].model_copy(update={"title": "Brass compass"})}
        changed = dataclasses.replace(demo, items=edited)
        job = m3.distill_all(changed, out, model=server.model())
        assert (len(server.bodies) - before, job.rows["ok"]) == (1, len(demo.items))
        assert "Brass compass" in last_user(server.bodies[-1])
        assert pq.read_schema(out).names == columns.TRAIT_ROWS.names
        m3.distill_all(changed, out, model=server.model())
        assert len(server.bodies) - before == 1

    def test_a_grown_history_is_read_again_also_by_a_job_that_was_stopped(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        users, out = list(demo.sequences)[:12], tmp_path / "p.parquet"
        with pytest.raises(BudgetExceededError):
            m3.profile_all(demo, out, users=users, model=server.model(), max_calls=18)
        bought = demo.interactions.loc[demo.interactions["user_id"] == users[0]].tail(1)
        new = next(item for item in demo.items if item not in demo.histories[users[0]])
        grown = dataclasses.replace(
            demo, interactions=pd.concat([demo.interactions, bought.assign(item_id=new)], ignore_index=True)
        )
        job = m3.profile_all(grown, out, users=users, model=server.model())
        assert (len(server.bodies), dict(job.rows)) == (2 * (len(users) + 1), {"ok": len(users)})

    @pytest.mark.parametrize("finished", [True, False])
    def test_rows_of_items_that_were_removed_are_left_out(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path, finished: bool
    ) -> None:
        out, notes = tmp_path / "t.parquet", list[Event]()
        limit = None if finished else 40
        with nullcontext() if finished else pytest.raises(BudgetExceededError):
            m3.distill_all(demo, out, model=server.model(), max_calls=limit)
        kept = dict(list(demo.items.items())[3:])
        smaller = dataclasses.replace(demo, items=kept)
        planned = m3.distill_all(smaller, out, model=server.model(), dry_run=True)
        job = m3.distill_all(smaller, out, model=server.model(), on_event=notes.append)
        assert (set(rows(out)), dict(job.rows)) == (set(kept), {"ok": len(kept)})
        assert set(pq.read_table(inputs_file(out))["item_id"].to_pylist()) == set(kept)
        assert max(planned.rows.values()) <= len(kept)
        assert any("3 rows of" in note.text and "left out" in note.text for note in notes if isinstance(note, Note))

    def test_users_who_are_not_named_any_more_are_left_out(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        users, out = list(demo.sequences)[:3], tmp_path / "r.parquet"
        m3.recommend_all(demo, out, users=users, model=server.model())
        job = m3.recommend_all(demo, out, users=users[1:], model=server.model())
        assert (list(rows(out)), dict(job.rows)) == (users[1:], {"ok": 2})

    def test_other_data_another_encoder_and_other_columns_are_another_job(
        self, server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(plain_files(tmp_path / "shop", ["steel", "folding", "bench", "clamp", "long"], 60, 25))
        users, out = list(m3.load_dataset(folder).sequences)[:2], tmp_path / "r.parquet"

        def recommend() -> m3.Job:
            return m3.recommend_all(folder, out, users=users, model=server.model())

        assert recommend().complete
        assert not inputs_file(out).exists()
        assert recommend().complete
        monkeypatch.setenv("MLLM3REC_ENCODER", str(TINY_ENCODER))
        with pytest.raises(InputError, match=r"from other data.*choose another --out"):
            recommend()
        monkeypatch.setenv("MLLM3REC_ENCODER", "hashing")
        with (folder / "interactions.csv").open("a") as file:
            file.write("u000,p005,5.0,999\n")
        with pytest.raises(InputError, match=r"from other data.*choose another --out"):
            recommend()

    def test_outputs_of_older_versions_go_on_with_a_warning(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        traits, recommended = tmp_path / "t.parquet", tmp_path / "r.parquet"
        notes: list[Event] = []
        users = list(demo.sequences)[:2]
        m3.distill_all(demo, traits, model=server.model())
        by_older_version(traits, m3.StageSettings(task="distill", model=server.model()))
        m3.recommend_all(demo, recommended, users=users, model=server.model())
        by_older_version(recommended, m3.StageSettings(task="recommend", model=server.model()))
        before = len(server.bodies)
        for _ in range(2):
            m3.distill_all(demo, traits, model=server.model(), on_event=notes.append)
            m3.recommend_all(demo, recommended, users=users, model=server.model(), on_event=notes.append)
        warnings = [note.text for note in notes if isinstance(note, Note) and note.text.startswith("warning")]
        assert len(server.bodies) == before
        assert ["count as unchanged" in text for text in warnings] == [True, False]
        assert "count as the same" in warnings[1]


def empty_output(settings: m3.StageSettings) -> bytes:
    """A finished output without rows."""
    sink = pa.BufferOutputStream()
    schema = columns.OUTPUTS[settings.task].with_metadata({"mllm3rec.identity": settings.identity()})
    pq.write_table(schema.empty_table(), sink)
    return bytes(sink.getvalue().to_pybytes())


class TestFinishedOutput:
    def test_it_stays_whole_until_the_next_run_is_complete(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        out, title = tmp_path / "t.parquet", "Brass compass"
        m3.distill_all(demo, out, model=server.model())
        finished, before = out.read_bytes(), len(server.bodies)
        edited = {key: item.model_copy(update={"title": f"{title} {key}"}) for key, item in demo.items.items()}
        changed = dataclasses.replace(demo, items=edited)
        assert not m3.distill_all(changed, out, model=server.model(), dry_run=True).written
        assert (out.read_bytes(), len(server.bodies) - before) == (finished, ASKED_ROWS)
        with pytest.raises(BudgetExceededError):
            m3.distill_all(changed, out, model=server.model(), max_calls=len(demo.items) + 20)
        assert out.read_bytes() == finished
        job = m3.distill_all(changed, out, model=server.model())
        assert (job.complete, len(rows(out))) == (True, len(demo.items))
        assert sum(title in last_user(body) for body in server.bodies) == len(demo.items)
        assert not parts_folder(out).exists()

    def test_a_dry_run_without_work_leaves_nothing_behind(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        out = tmp_path / "t.parquet"
        m3.distill_all(demo, out, model=server.model())
        finished = out.read_bytes()
        assert m3.distill_all(demo, out, model=server.model(), dry_run=True).rows == {"ok": len(demo.items)}
        assert (out.read_bytes(), parts_folder(out).exists()) == (finished, False)

    def test_a_kill_while_parts_are_removed_loses_nothing(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        out, parts = tmp_path / "t.parquet", parts_folder(tmp_path / "t.parquet")
        with pytest.raises(BudgetExceededError):
            m3.distill_all(demo, out, model=server.model(), max_calls=40)
        left = {path.name: path.read_bytes() for path in parts.iterdir()}
        m3.distill_all(demo, out, model=server.model())
        parts.mkdir()
        for name, content in left.items():
            (parts / name).write_bytes(content)
        job = m3.distill_all(demo, out, model=server.model())
        assert (dict(job.rows), len(rows(out)), len(server.bodies)) == (
            {"ok": len(demo.items)},
            *(2 * [len(demo.items)]),
        )

    def test_an_output_that_an_older_version_took_apart_is_read(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        out, users = tmp_path / "p.parquet", list(demo.sequences)[:4]
        m3.profile_all(demo, out, users=users[:2], model=server.model())
        before = len(server.bodies)
        parts_folder(out).mkdir()
        out.rename(parts_folder(out) / "part-000000.parquet")
        m3.profile_all(demo, out, users=users, model=server.model())
        assert (list(rows(out)), len(server.bodies)) == (users, 2 * before)

    @pytest.mark.parametrize("name", ["t.parquet", "t.parquet.inputs", "part-000001.parquet", "job.json"])
    @pytest.mark.parametrize("content", [b"", b"no such thing", b"PAR1" + bytes(100) + b"PAR1"])
    def test_a_damaged_file_is_named_before_anything_is_asked(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path, name: str, content: bytes
    ) -> None:
        out = tmp_path / "t.parquet"
        if name.startswith(out.name):
            out.write_bytes(empty_output(m3.StageSettings(task="distill", model=server.model())))
            damaged = tmp_path / name
        else:
            damaged = parts_folder(out) / name
            damaged.parent.mkdir()
        damaged.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: not a .*delete .*or choose another --out"):
            m3.distill_all(demo, out, model=server.model())
        assert (damaged.exists(), server.bodies) == (name != "job.json", [])
        assert parts_folder(out).exists() == name.startswith("part-")

    def test_the_output_is_on_the_disk_before_its_parts_are_removed(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, synced = tmp_path / "t.parquet", set[int]()
        fsync = os.fsync

        def noted(handle: int) -> None:
            fsync(handle)
            synced.add(os.fstat(handle).st_ino)

        monkeypatch.setattr(os, "fsync", noted)
        m3.distill_all(demo, out, model=server.model())
        assert out.stat().st_ino in synced


class TestServersOfArtifacts:
    """An artifact with each role on another server, as `https://gpu-mope.example/v1#m`."""

    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Path:
        freeze(tmp_path / "artifact", "local/smollm2-135m")
        manifest = tmp_path / "artifact" / MANIFEST
        found = json.loads(manifest.read_text())
        for role in ROLE_NAMES:
            found["roles"][role]["model"] = f"https://gpu-{role}.example/v1#m"
        manifest.write_text(json.dumps(ArtifactManifest.model_validate(found).sealed().model_dump(mode="json")))
        return manifest.parent

    def test_a_malformed_address_is_refused(self, artifact: Path) -> None:
        found = json.loads((artifact / MANIFEST).read_text())
        found["roles"]["mote"]["model"] = "http://[gpu/v1#m"
        sealed = ArtifactManifest.model_validate(found).sealed()
        (artifact / MANIFEST).write_text(json.dumps(sealed.model_dump(mode="json")))
        with pytest.raises(InputError, match="write an OpenAI-compatible server as"):
            m3.StageSettings(task="distill", program=str(artifact)).identity()

    @pytest.mark.parametrize(("task", "role"), [("distill", "mote"), ("profile", "mope")])
    def test_only_the_server_that_is_asked_must_be_confirmed(self, artifact: Path, task: Task, role: RoleName) -> None:
        there = f"https://gpu-{role}.example/v1#m"
        settings = m3.StageSettings(task=task, program=str(artifact))
        with pytest.raises(InputError, match=f"{role} would send histories .* add --{role} {there}"):
            settings.identity()
        confirmed = settings.model_copy(update={role: there})
        assert {confirmed.roles.of(one).model for one in ROLE_NAMES} == {there}
        assert confirmed.identity() != settings.model_copy(update={role: "local/smollm2-135m"}).identity()
        with m3.Stage(confirmed) as stage:
            stage.prepare()

    def test_recommendations_need_all(self, artifact: Path) -> None:
        given = {role: f"https://gpu-{role}.example/v1#m" for role in ROLE_NAMES}
        settings = m3.StageSettings.model_validate({"task": "recommend", "program": str(artifact), **given})
        assert settings.roles.judge.model == given["judge"]
        for role in ("mope", "mote"):
            with pytest.raises(InputError, match=f"add --{role} {given[role]}"):
                settings.model_copy(update={role: None}).identity()

    def test_traits_by_the_server_that_was_named(
        self, artifact: Path, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        job = m3.distill_all(demo, tmp_path / "t.parquet", program=str(artifact), mote=server.model())
        assert (job.complete, len(server.bodies)) == (True, len(demo.items))


class TestFailures:
    def test_a_failed_row_is_a_row_and_made_again(self, demo: m3.Dataset, tmp_path: Path) -> None:
        bad = demo.items[list(demo.items)[20]].title
        well = []

        def respond(body: Body) -> Reply:
            return sensible(body) if well or bad not in last_user(body) else Reply("no", status=400)

        out = tmp_path / "t.parquet"
        with FakeOpenAI(respond) as server:
            job = m3.distill_all(demo, out, model=server.model())
            failed = [row for row in rows(out).values() if row["status"] != "ok"]
            assert (job.complete, [row["status"] for row in failed]) == (False, ["failed"])
            assert "no" in failed[0]["error"]
            well.append(True)
            before = len(server.bodies)
            job = m3.distill_all(demo, out, model=server.model())
            assert (job.complete, len(server.bodies) - before, dict(job.rows)) == (True, 1, {"ok": len(demo.items)})

    def test_unreadable_and_refused_answers_are_rows(self, demo: m3.Dataset, tmp_path: Path) -> None:
        titles = [item.title for item in demo.items.values()]

        def respond(body: Body) -> Reply:
            if titles[3] in last_user(body):
                return Reply("nothing that could be read")
            return Reply("content policy", status=400) if titles[5] in last_user(body) else sensible(body)

        with FakeOpenAI(respond) as server:
            job = m3.distill_all(demo, tmp_path / "t.parquet", model=server.model())
        assert dict(job.rows) == {"ok": len(demo.items) - 2, "unparsable": 1, "refused": 1}

    def test_unreadable_answers_are_asked_again_if_that_is_wanted(self, demo: m3.Dataset, tmp_path: Path) -> None:
        title = list(demo.items.values())[3].title
        well: list[bool] = []

        def respond(body: Body) -> Reply:
            return Reply("no JSON") if title in last_user(body) and not well else sensible(body)

        with FakeOpenAI(respond) as server:
            m3.distill_all(demo, tmp_path / "t.parquet", model=server.model())
            well.append(True)
            before = len(server.bodies)
            assert m3.distill_all(demo, tmp_path / "t.parquet", model=server.model()).rows["unparsable"] == 1
            job = m3.distill_all(demo, tmp_path / "t.parquet", model=server.model(), retry_unparsable=True)
        assert (dict(job.rows), len(server.bodies) - before) == ({"ok": len(demo.items)}, 1)

    def test_a_user_who_has_every_item_gets_an_empty_list_and_ends_no_job(
        self, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        folder = Path(plain_files(tmp_path / "shop", ["steel", "folding", "bench", "clamp", "long"], 60, 25))
        with (folder / "interactions.csv").open("a") as file:
            file.writelines(f"everything,p{n:03},5.0,{n}\n" for n in range(120))
        out = tmp_path / "r.parquet"
        job = m3.recommend_all(folder, out, users=["u000", "everything", "u001"], model=server.model())
        found = {user: (row["status"], len(row["items"])) for user, row in rows(out).items()}
        assert (job.complete, found) == (True, {"u000": ("ok", 5), "everything": ("ok", 0), "u001": ("ok", 5)})

    def test_a_spent_budget_ends_the_job_and_more_finishes_it(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        out = tmp_path / "t.parquet"
        for processes, limit in ((1, 20), (2, 51)):
            with pytest.raises(BudgetExceededError):
                m3.distill_all(demo, out, model=server.model(), max_calls=limit, processes=processes)
            assert len(server.bodies) == limit
        assert m3.distill_all(demo, out, model=server.model(), max_calls=len(demo.items)).complete
        assert questions(server).most_common(1)[0][1] == 1

    def test_other_settings_are_refused(self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path) -> None:
        out = tmp_path / "t.parquet"
        m3.distill_all(demo, out, model=server.model())
        with pytest.raises(InputError, match="made with other settings"):
            m3.distill_all(demo, out, model=server.model("another"))
        with pytest.raises(InputError, match="not in dataset"):
            m3.profile_all(demo, tmp_path / "p.parquet", users=["nobody"], model=server.model())

    def test_a_dead_server_ends_the_job_with_its_rows_kept(
        self, hurried: None, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        left = list(range(30))

        def respond(body: Body) -> Reply:
            if left:
                left.pop()
                return sensible(body)
            return Reply("down", status=500)

        out = tmp_path / "t.parquet"
        with FakeOpenAI(respond) as server:
            with pytest.raises(Exception, match="does not answer"):
                m3.distill_all(demo, out, model=server.model())
            server.respond = sensible
            job = m3.distill_all(demo, out, model=server.model())
            answered = Counter(row["status"] for row in rows(out).values())
        assert (job.complete, answered) == (True, {"ok": len(demo.items)})


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(process_of(*arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603


def slow(body: Body) -> Reply:
    reply = sensible(body)
    reply.seconds = 0.15
    return reply


class TestKilled:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_nothing_that_was_answered_is_asked_twice(self, processes: int, demo: m3.Dataset, tmp_path: Path) -> None:
        out = tmp_path / "t.parquet"
        with FakeOpenAI(slow) as server:
            command = ["distill", "demo", "--mote", server.model(), "--out", str(out), "--processes", str(processes)]
            for seen in (4, 30, 60):
                process = started(*command)
                deadline = time.monotonic() + 60
                while len(server.bodies) < seen and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.01)
                process.kill()
                process.wait()
                time.sleep(1.0)  # workers see that their parent is gone
            process = started(*command)
            assert process.communicate()[1] is not None and process.returncode == 0
            asked = questions(server)
        calls = list(read_calls(tmp_path / "t.parquet.ledger.jsonl"))
        in_flight = sum(call.in_flight for call in calls)
        assert len(asked) == len(demo.items) == len(rows(out))
        assert sum(asked.values()) - len(asked) <= in_flight < 3 * 64
        assert not parts_folder(out).exists()

    def test_ctrl_c_ends_all_processes_without_loss(self, tmp_path: Path) -> None:
        out = tmp_path / "t.parquet"
        with FakeOpenAI(slow) as server:
            command = ["distill", "demo", "--mote", server.model(), "--out", str(out)]
            for processes in ("1", "2"):
                process = subprocess.Popen(  # noqa: S603
                    process_of(*command, "--processes", processes),
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
                seen = len(server.bodies)
                while len(server.bodies) < seen + 20 and process.poll() is None:
                    time.sleep(0.01)
                os.killpg(process.pid, signal.SIGINT)
                assert process.communicate(timeout=60)[1].count("everything done so far is kept") == 1
                assert process.returncode == 130
            process = started(*command)
            process.communicate()
            assert process.returncode == 0
            asked = questions(server)
        # On a busy machine the seconds that calls get to end may not be enough: the ledger has them as failed. That
        # calls which do end in time are kept, `tests/programs/bulk/test_mapping.py` says.
        given_up = sum(call.in_flight or call.failed for call in read_calls(tmp_path / "t.parquet.ledger.jsonl"))
        assert sum(asked.values()) - len(asked) <= given_up < 2 * 64


class TestStage:
    def test_batches_keep_their_rows_and_a_pickled_stage_is_its_settings(
        self, server: FakeOpenAI, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        settings = m3.StageSettings(task="distill", model=server.model(), cache=tmp_path / "elsewhere")
        items = [columns.item_row(item) for item in demo.items.values()]
        sizes = [0, 3, 0, 5, 1, 0]
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        given = [
            pa.RecordBatch.from_pylist(items[start : start + size], columns.ITEMS)
            for start, size in zip(starts, sizes, strict=True)
        ]
        with pickle.loads(pickle.dumps(m3.Stage(settings))) as stage:  # noqa: S301
            made = list(stage(given))
        assert [batch.num_rows for batch in made] == sizes
        assert [row["item_id"] for batch in made for row in batch.to_pylist()] == list(demo.items)[:9]
        assert (tmp_path / "elsewhere" / "traits.sqlite").exists()

    def test_a_worker_with_other_data_is_refused(self, server: FakeOpenAI, demo: m3.Dataset) -> None:
        settings = m3.StageSettings(task="recommend", model=server.model(), dataset="demo", dataset_sha256=demo.sha256)
        for sha256, refused in ((demo.sha256, False), ("0" * 64, True)):
            with m3.Stage(settings.model_copy(update={"dataset_sha256": sha256})) as stage:
                if refused:
                    with pytest.raises(InputError, match="has other data here"):
                        stage.prepare()
                else:
                    stage.prepare()

    def test_a_user_without_purchases_is_a_row(self, server: FakeOpenAI) -> None:
        use_response_cache(":memory:")
        settings = m3.StageSettings(task="profile", model=server.model())
        batch = pa.RecordBatch.from_pylist([{"user_id": "new", "history": []}], columns.USERS)
        with m3.Stage(settings) as stage:
            (made,) = stage([batch])
        assert (made["status"][0].as_py(), server.bodies) == ("unparsable", [])


class TestCommands:
    def test_recommend_for_many(self, cli: CommandLine, server: FakeOpenAI, tmp_path: Path) -> None:
        users = tmp_path / "users.txt"
        users.write_text("S0002\nS0001\n")
        out = tmp_path / "r.parquet"
        result = cli("recommend", "demo", "--users", str(users), "--model", server.model(), "--out", str(out), "--json")
        facts = json.loads(result.out)
        assert (facts["rows"], list(rows(out))) == (2, ["S0002", "S0001"])

    def test_a_dry_run_makes_a_few_rows(self, cli: CommandLine, server: FakeOpenAI, tmp_path: Path) -> None:
        out = tmp_path / "t.parquet"
        result = cli("distill", "demo", "--mote", server.model(), "--out", str(out), "--dry-run", "--json")
        facts = json.loads(result.out)
        assert (facts["out"], facts["forecast"]["calls"], len(server.bodies)) == (None, 97, 8)
        cli("distill", "demo", "--mote", server.model(), "--out", str(out))
        assert (len(rows(out)), len(server.bodies)) == (105, 105)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("distill", "demo", "--workers", "2"),
            ("distill", "nowhere"),
            ("profile", "demo", "--users", "nofile"),
            ("recommend", "demo", "--out", "x.parquet", "--user", "S0001"),
            ("recommend", "demo", "--users", "all", "--user", "S0001"),
        ],
    )
    def test_options_that_do_not_go_together(self, cli: CommandLine, arguments: tuple[str, ...]) -> None:
        assert cli(*arguments).code == 2
