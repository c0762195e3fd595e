"""The service's ledger in segments: no dollar is lost or counted twice, whenever the process is killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mllm3rec.serve import ledger_segments
from mllm3rec.serve.ledger_segments import LedgerSegments
from mllm3rec.serve.limits import DAY_SECONDS, ServiceLimits
from mllm3rec.serve.renewing_ledger import RenewingLedger
from programs.lm.ledger import Call
from programs.runtime.errors import BudgetExceededError, InputError
from tests.support.command_line import buffered_environment
from tests.support.paths import ROOT

CENT = 0.01


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_segments, "SEGMENT_BYTES", 2000)


def ledger_at(path: Path, usd: float = 1000.0) -> RenewingLedger:
    return RenewingLedger(path, ServiceLimits(usd_per_day=usd))


def call(**fields: object) -> Call:
    return Call.model_validate({"role": "mope", "model": "m", "usd": CENT, "at": time.time()} | fields)


def spent(path: Path) -> float:
    """What counts after a restart."""
    ledger = ledger_at(path)
    try:
        return ledger._windows[0][1].total(time.time())
    finally:
        ledger.close()


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("serve*.jsonl"))


def test_full_files_are_kept_and_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "serve.jsonl"
    ledger = ledger_at(path)
    for n in range(300):
        ledger.record(call(hit=n % 3 != 0))
    ledger.close()
    segments = sorted(tmp_path.glob("serve.0*.jsonl"))
    assert len(segments) > 5
    assert segments[0].name == "serve.000001.jsonl"
    assert lines(tmp_path) == 300, "nothing that was recorded is deleted"
    assert spent(path) == pytest.approx(100 * CENT)
    for segment in segments:
        segment.write_bytes(b"not read\n")
    assert spent(path) == pytest.approx(100 * CENT)
    assert path.with_name("serve.spent.json").stat().st_size < 500


def test_a_budget_is_kept_over_segments_and_restarts(tmp_path: Path) -> None:
    path = tmp_path / "serve.jsonl"
    for _ in range(3):
        ledger = ledger_at(path)
        for _ in range(30):
            ledger.record(call())
        ledger.close()
    assert [*tmp_path.glob("serve.0*.jsonl")]
    with pytest.raises(BudgetExceededError):
        ledger_at(path, 90 * CENT).try_reserve(CENT / 2)
    assert ledger_at(path, 92 * CENT).try_reserve(CENT)


def test_a_call_that_ends_in_a_later_segment_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "serve.jsonl"
    ledger = ledger_at(path)
    first = ledger.record_sent(call(usd=1.0, in_flight=True))
    ledger.record_sent(call(usd=2.0, in_flight=True))  # never ends: the process is killed
    for _ in range(40):
        ledger.record(call())
    assert [*tmp_path.glob("serve.0*.jsonl")]
    assert spent(path) == pytest.approx(3.0 + 40 * CENT)
    ledger.record(call(id=first))
    assert spent(path) == pytest.approx(2.0 + 41 * CENT)
    for _ in range(40):
        ledger.record(call())
    ledger.close()
    assert spent(path) == pytest.approx(2.0 + 81 * CENT)


def test_a_kill_between_the_two_steps_of_closing_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "serve.jsonl"
    ledger = ledger_at(path)
    for _ in range(20):
        ledger.record(call())

    def killed(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger_segments, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(40):
                ledger.record(call())
    found = spent(path)
    assert found == pytest.approx(lines(tmp_path) * CENT)
    assert spent(path) == pytest.approx(found), "what the kill has left out was added once"


def test_a_full_disk_fails_no_call_that_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "serve.jsonl"
    ledger = ledger_at(path)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger_segments, "write_atomically", full)
        for _ in range(60):
            ledger.record(call())
    assert caplog.text.count("No space left") == 1
    assert spent(path) == pytest.approx(60 * CENT)


def test_what_is_older_than_a_day_neither_counts_nor_is_kept_in_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "serve.jsonl"
    ledger = ledger_at(path)
    ledger.record_sent(call(usd=5.0, in_flight=True, at=time.time() - 2 * DAY_SECONDS))
    for _ in range(40):
        ledger.record(call(at=time.time() - 2 * DAY_SECONDS))
    for _ in range(3):
        ledger.record(call())
    ledger.close()
    assert spent(path) == pytest.approx(3 * CENT)
    assert len(path.with_name("serve.spent.json").read_bytes()) < 200


def test_two_processes_may_write_to_one_ledger(tmp_path: Path) -> None:
    path = tmp_path / "serve.jsonl"
    one, other = ledger_at(path), ledger_at(path)
    for n in range(100):
        (one if n % 2 else other).record(call())
    one.close(), other.close()
    assert len([*tmp_path.glob("serve.0*.jsonl")]) > 2
    assert lines(tmp_path) == 100
    assert spent(path) == pytest.approx(100 * CENT)


def test_a_large_ledger_of_an_earlier_version_is_closed_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "serve.jsonl"
    path.write_text("".join(call().model_dump_json() + "\n" for _ in range(100)) + '{"role": "cut o')
    assert spent(path) == pytest.approx(100 * CENT)
    assert (tmp_path / "serve.000001.jsonl").exists()
    assert not path.exists()
    assert spent(path) == pytest.approx(100 * CENT)


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "serve.jsonl"
    path.write_text(call().model_dump_json() + "\n" + '{"role": "cut o')
    ledger = ledger_at(path)
    ledger.record(call())
    ledger.close()
    assert lines(tmp_path) == 2
    assert spent(path) == pytest.approx(2 * CENT)


def test_what_is_no_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "serve.jsonl"
    path.write_text("{}\n")
    with pytest.raises(InputError, match=r"serve.jsonl:1: not a ledger line"):
        ledger_at(path)
    path.unlink()
    summary = LedgerSegments(path).summary
    summary.write_text('{"minutes": {"1": -5}}')
    with pytest.raises(InputError, match=r"serve.spent.json: not a summary of a ledger.*remove it"):
        ledger_at(path)
    summary.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="symbolic link"):
        ledger_at(path)


_ENDLESS = """
import sys, time
from pathlib import Path
from mllm3rec.serve import ledger_segments
from mllm3rec.serve.limits import ServiceLimits
from mllm3rec.serve.renewing_ledger import RenewingLedger
from programs.lm.ledger import Call
ledger_segments.SEGMENT_BYTES = 2000
ledger = RenewingLedger(Path(sys.argv[1]), ServiceLimits(usd_per_day=1e6))
said = 0
while True:
    sent = ledger.record_sent(Call(role="r", model="m", usd=0.01, at=time.time(), in_flight=True))
    ledger.record(Call(role="r", model="m", usd=0.01, at=time.time(), id=sent))
    said += 1
    print(said, flush=True)
"""


def test_a_kill_at_any_moment_loses_no_dollar_and_counts_none_twice(tmp_path: Path) -> None:
    path, draw, total = tmp_path / "serve.jsonl", random.Random(0), 0
    for kills in range(1, 7):
        process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-c", _ENDLESS, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=buffered_environment(),
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
        process.wait()
        total += int(said[-1] if said else 1)
        # One call more for each kill: it was under way, or not said yet.
        assert total * CENT - 1e-6 <= spent(path) <= (total + kills) * CENT + 1e-6
    assert len([*tmp_path.glob("serve.0*.jsonl")]) > 6
