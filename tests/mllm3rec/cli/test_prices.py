"""`mllm3rec prices`."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from mllm3rec.cli.console import out
from programs.lm.prices import shipped_prices
from tests.support.command_line import run


def command(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    result = run("prices", *arguments, "--json")
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, json.loads(result.stdout)


class TestCommand:
    def test_show_lists_both_tables(self, own_prices: Path) -> None:
        code, payload = command("show", "--prices", own_prices)
        assert code == 0
        assert payload["dated"] == str(shipped_prices().dated)
        assert payload["models"]["openai/gpt-4o"]["input"] == 1.0
        assert payload["models"]["openai/gpt-3.5-turbo"]["retired"] == "2026-10-23"
        assert payload["models"]["local/smollm2-135m"]["usd_per_hour"] == 0.36

    def test_show_reads_as_a_table(self, own_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(out, "width", 140)  # the console measured itself when it was made
        result = run("prices", "show", "--prices", own_prices)
        assert result.exit_code == 0
        (line,) = [line for line in result.stdout.splitlines() if "smollm2" in line]
        assert [cell.strip() for cell in line.split("│")[2:6]] == ["-", "-", "-", "0.36"]
        assert "our contract" in result.stdout

    def test_check_tells_retired_and_age(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code, payload = command("check", "openai/gpt-4o", "openai/gpt-3.5-turbo")
        assert code == 0
        new, old = payload["models"]["openai/gpt-4o"], payload["models"]["openai/gpt-3.5-turbo"]
        age = (datetime.date.today() - shipped_prices().dated).days
        assert (new["known"], new["retired"], new["age_days"]) == (True, False, age)
        assert (old["known"], old["retired"]) == (True, True)
        said = run("prices", "check", "openai/gpt-3.5-turbo").stdout
        assert f"{age} days ago" in said
        assert "retired since 2026-10-23" in said

    def test_check_fails_for_a_model_without_a_price(self, own_prices: Path) -> None:
        code, payload = command("check", "openai/gpt-4o", "local/smollm2-135m")
        assert code == 1
        assert payload["models"]["local/smollm2-135m"] == {"known": False}
        code, payload = command("check", "openai/gpt-4o", "local/smollm2-135m", "--prices", own_prices)
        assert code == 0
        said = run("prices", "check", "local/smollm2-135m", "--prices", own_prices).stdout
        assert "$0.36 an hour" in said
