"""Jobs on a local Ray cluster: rows equal those without it, a failure is a row, limits hold, keys are nowhere."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import mllm3rec as m3
from mllm3rec.stages import cluster
from mllm3rec.stages.parts import parts_folder
from programs.lm.ledger import read_calls
from programs.runtime.errors import BudgetExceededError, InputError, MissingExtraError
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, sensible

KEY = "sk-canary-0123456789"


@pytest.fixture(scope="module")
def session() -> Iterator[Path]:
    """One cluster for all tests here; the folder with all that Ray writes."""
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLLM3REC_ENCODER", "hashing")
        # Workers get keys from the environment of their machine, which is that of this process.
        for server_key in ("OPENAI_API_KEY", "MLLM3REC_KEY_CANARY"):
            patch.setenv(server_key, KEY)
        with cluster.session(cluster.THIS_MACHINE, workers=2) as ray:
            yield Path(ray._private.worker._global_node.get_session_dir_path())


@pytest.fixture(scope="module")
def demo() -> m3.Dataset:
    return m3.load_dataset("demo")


def rows(path: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(path)
    return {row["item_id"]: row for row in table.to_pylist()}


def distilled(demo: m3.Dataset, out: Path, server: FakeOpenAI, **options: Any) -> m3.Job:
    options = {"cluster": cluster.THIS_MACHINE, "processes": 2, "cache": out.parent / "cache", **options}
    return m3.distill_all(demo, out, model=server.model(), **options)


def asked(server: FakeOpenAI) -> Counter[str]:
    return Counter(last_user(body) for body in server.bodies)


class TestJob:
    def test_rows_equal_those_without_a_cluster_and_a_failure_is_a_row(
        self, session: Path, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        bad = demo.items[list(demo.items)[20]].title
        out = tmp_path / "t.parquet"
        with FakeOpenAI(
            lambda body: sensible(body) if bad not in last_user(body) else Reply("no", status=400)
        ) as server:
            job = distilled(demo, out, server)
            made = rows(out)
            assert (dict(job.rows), len(made)) == ({"ok": len(demo.items) - 1, "failed": 1}, len(demo.items))
            assert max(asked(server).values()) == 1
            calls = list(read_calls(tmp_path / "t.parquet.ledger.jsonl"))
            assert sum(not call.hit for call in calls) == len(server.bodies) == len(demo.items)
            server.respond = sensible
            assert distilled(demo, out, server, cluster=None, processes=1).complete  # only the failed row is made again
            assert len(server.bodies) == len(demo.items) + 1
            other = m3.distill_all(demo, tmp_path / "direct.parquet", model=server.model())
        made, direct = rows(out), rows(other.out)
        assert made.keys() == direct.keys()
        assert all(made[key]["traits"] == row["traits"] for key, row in direct.items())
        assert not parts_folder(out).exists()

    def test_budget_is_kept_by_all_workers_together(self, session: Path, demo: m3.Dataset, tmp_path: Path) -> None:
        out = tmp_path / "t.parquet"
        with FakeOpenAI() as server:
            with pytest.raises(BudgetExceededError, match="budget of this run is spent: 42 calls"):
                distilled(demo, out, server, max_calls=50)  # eight of them forecast
            assert 40 <= len(server.bodies) <= 50
            assert distilled(demo, out, server, max_calls=len(demo.items), cluster=None, processes=1).complete
            assert (len(server.bodies), max(asked(server).values())) == (len(demo.items), 1)

    def test_a_killed_worker_is_replaced_and_nothing_that_was_answered_is_asked_twice(
        self, session: Path, demo: m3.Dataset, tmp_path: Path
    ) -> None:
        killed: list[int] = []
        ledgers = parts_folder(tmp_path / "t.parquet") / "ledgers"

        def respond(body: Body) -> Reply:
            if len(server.bodies) == 40:
                killed.append(int(next(ledgers.glob("*.jsonl")).name.split("-")[-2]))
                os.kill(killed[0], signal.SIGKILL)
            reply = sensible(body)
            reply.seconds = 0.05
            return reply

        with FakeOpenAI(respond) as server:
            job = distilled(demo, tmp_path / "t.parquet", server)
        calls = list(read_calls(tmp_path / "t.parquet.ledger.jsonl"))
        in_flight = sum(call.in_flight for call in calls)
        assert (len(killed) > 0, dict(job.rows)) == (True, {"ok": len(demo.items)})
        assert len(server.bodies) - len(demo.items) <= in_flight <= 32

    def test_a_key_that_is_rejected_ends_the_job(self, session: Path, demo: m3.Dataset, tmp_path: Path) -> None:
        def respond(body: Body) -> Reply:
            return sensible(body) if len(server.bodies) <= 8 else Reply("no such key", status=401)

        with FakeOpenAI(respond) as server, pytest.raises(InputError, match="no such key"):
            distilled(demo, tmp_path / "t.parquet", server)
        assert len(server.bodies) < len(demo.items)

    def test_ctrl_c_ends_without_loss(self, session: Path, demo: m3.Dataset, tmp_path: Path) -> None:
        def respond(body: Body) -> Reply:
            if len(server.bodies) == 40:
                os.kill(os.getpid(), signal.SIGINT)
            reply = sensible(body)
            reply.seconds = 0.1
            return reply

        with FakeOpenAI(respond) as server:
            with pytest.raises(KeyboardInterrupt):
                distilled(demo, tmp_path / "t.parquet", server)
            assert 40 <= len(server.bodies) < len(demo.items)
            assert not any(call.in_flight for call in read_calls(tmp_path / "t.parquet.ledger.jsonl"))
            assert distilled(demo, tmp_path / "t.parquet", server, cluster=None, processes=1).complete
            assert max(asked(server).values()) == 1

    def test_no_key_in_anything_that_is_written(self, session: Path, tmp_path: Path) -> None:
        """After the other tests here, whose jobs had it in the environment of every process."""
        written = [path for folder in (session, tmp_path.parent) for path in folder.rglob("*") if path.is_file()]
        assert len(written) > 20
        assert [path for path in written if KEY.encode() in path.read_bytes()] == []


class TestWithoutCluster:
    def test_the_extra_is_named(self, demo: m3.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        with FakeOpenAI() as server, pytest.raises(MissingExtraError, match=r"mllm3rec\[ray\]"):
            distilled(demo, tmp_path / "t.parquet", server)

    def test_a_client_address_is_refused(self, demo: m3.Dataset, tmp_path: Path) -> None:
        with FakeOpenAI() as server, pytest.raises(InputError, match="on one of the cluster"):
            distilled(demo, tmp_path / "t.parquet", server, cluster="ray://head:10001")
