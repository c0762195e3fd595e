"""The console: where stderr is no terminal, a task is a line when it begins, every few seconds, and when it ends."""

from __future__ import annotations

import json
import logging

import pytest
from rich.table import Table

from mllm3rec.cli import console
from mllm3rec.cli.console import ConsoleEvents, emit, usage_table
from programs.runtime.events import Note, Progress
from signatures.rows import Usage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time the console reads."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines_of_a_task(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleEvents() as events:
        events(Note("loading demo"))
        for done, second in enumerate([100.0, 102.0, 104.0, 106.0, 108.0]):
            clock[0] = second
            events(Progress("traits", done, 4))
        events(Progress("reasons", 0, 1))
        events(Progress("reasons", 1, 1))
    assert capsys.readouterr().err.splitlines() == [
        "loading demo",
        "traits: 0 of 4",
        "traits: 3 of 4, 2.0 s each, 2 s left",
        "traits: 4 of 4 in 8 s",
        "reasons: 0 of 1",
        "reasons: 1 of 1",
    ]


def test_what_was_there_before_has_no_rate(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleEvents() as events:
        spent = Usage(calls=7, cache_hits=2, usd=0.5)
        events(Progress("users", 10, 30, spent))
        clock[0] += 10
        events(Progress("users", 20, 30, spent))
        events(Progress("users", 30, 30, spent))
    assert capsys.readouterr().err.splitlines() == [
        "users: 10 of 30; 7 calls, 2 cache hits, $0.5000",
        "users: 20 of 30, 1.0 a second, 10 s left; 7 calls, 2 cache hits, $0.5000",
        "users: 30 of 30 in 10 s; 7 calls, 2 cache hits, $0.5000",
    ]


def test_a_task_that_was_not_finished_makes_room_for_the_next(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ConsoleEvents() as events:
        events(Progress("profile", 0, 1))
        events(Progress("traits", 0, 2))
        events(Progress("profile", 0, 1))
    assert capsys.readouterr().err.splitlines() == ["profile: 0 of 1", "traits: 0 of 2", "profile: 0 of 1"]


def test_dspy_s_log_stays_quiet_though_its_import_sets_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("dspy")
    before = log.level
    try:
        with ConsoleEvents() as events:
            log.setLevel(logging.INFO)  # what importing DSPy does
            events(Note("asking"))
            logging.getLogger("dspy.clients.lm").warning("LM response was truncated")
    finally:
        log.setLevel(before)
    assert "truncated" not in capsys.readouterr().err


def test_a_title_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("title")
    table.add_row("mug \x1b[2J\x1b]0;owned\x07 \x9b31m \u202e red [bold]x")
    console.PlainConsole().print(table)
    shown = capsys.readouterr().out
    assert not any(c in shown for c in "\x1b\x07\x9b\u202e")
    assert "\\x1b[2J" in " ".join(shown.split())


def test_json_on_a_terminal_controls_nothing_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    payload = {"title": "mug \x1b[31m \x9b31m \u202e \U000e0041 é 静 \ud83d"}
    emit(payload)
    shown = capsys.readouterr().out
    assert json.loads(shown) == payload
    assert shown.rstrip("\n").isprintable() and "é 静" in shown


def test_cache_writes_have_a_column_where_a_provider_bills_them() -> None:
    plain = Usage(calls=2, tokens_in=100, tokens_cached=50, tokens_out=7)
    billed = Usage(calls=1, tokens_in=100, tokens_written=60, tokens_out=7)
    assert "cache writes" not in [column.header for column in usage_table({"mar": plain}).columns]
    table = usage_table({"mar": plain, "mote": billed})
    (writes,) = [column for column in table.columns if column.header == "cache writes"]
    assert list(writes.cells) == ["0", "60"]
