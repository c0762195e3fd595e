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
        monkeypatch.setattr(out, "width", 180)  # the console measured itself when it was made
        result = run("prices", "show", "--prices", own_prices)
        assert result.exit_code == 0
        (line,) = [line for line in result.stdout.splitlines() if "smollm2" in line]
        assert [cell.strip() for cell in line.split("│")[2:9]] == ["-"] * 6 + ["0.36"]
        assert "our contract" in result.stdout

    def test_check_tells_retired_and_age(self) -> None:
        code, payload = command("check", "openai/gpt-4o", "openai/gpt-3.5-turbo")
        assert code == 0
        new, old = payload["models"]["openai/gpt-4o"], payload["models"]["openai/gpt-3.5-turbo"]
        age = (datetime.date.today() - shipped_prices().dated).days
        assert (new["known"], new["retired"], new["age_days"]) == (True, False, age)
        assert (old["known"], old["retired"]) == (True, True)
        said = run("prices", "check", "openai/gpt-3.5-turbo").stdout
        assert f"{age} days ago" in said
        assert "retired since 2026-10-23" in said

    def test_show_finds_models_by_a_part_of_their_name(self) -> None:
        code, payload = command("show", "gpt-6-luna", "haiku-5-5")
        assert code == 0
        assert {"openai/gpt-6-luna", "anthropic/claude-haiku-5-5"} <= payload["models"].keys()
        assert all("gpt-6-luna" in name or "haiku-5-5" in name for name in payload["models"])
        assert command("show", "no-such-model")[0] == 1

    def test_check_warns_before_a_model_is_retired(self, tmp_path: Path) -> None:
        soon = datetime.date.today() + datetime.timedelta(days=59)
        own = tmp_path / "soon.toml"
        own.write_text(
            "dated = 2026-01-01\nsource = 's'\n[models]\n"
            f"'openai/m' = {{ input = 1, output = 1, retired = {soon} }}\n"
            f"'openai/n' = {{ input = 1, output = 1, retired = {soon + datetime.timedelta(days=2)} }}\n"
        )
        _, payload = command("check", "openai/m", "openai/n", "--prices", own)
        assert [payload["models"][f"openai/{name}"]["retires_soon"] for name in "mn"] == [True, False]
        said = run("prices", "check", "openai/m", "--prices", own).stdout
        assert f"retires on {soon}: choose another model" in said

    def test_check_fails_for_a_model_without_a_price(self, own_prices: Path) -> None:
        code, payload = command("check", "openai/gpt-4o", "local/smollm2-135m")
        assert code == 1
        assert payload["models"]["local/smollm2-135m"] == {"known": False}
        code, payload = command("check", "openai/gpt-4o", "local/smollm2-135m", "--prices", own_prices)
        assert code == 0
        said = run("prices", "check", "local/smollm2-135m", "--prices", own_prices).stdout
        assert "$0.36 an hour" in said


class TestTableOfCosts:
    def test_a_model_costs_its_measured_tokens(self, tmp_path: Path) -> None:
        own = tmp_path / "own.toml"
        own.write_text(
            'dated = 2026-11-01\nsource = "our contract"\n[models]\n'
            '"openai/mine" = { input = 1.0, output = 10.0, cached = 0.1, batch = { input = 0.5, output = 5.0 } }\n'
        )
        code, payload = command("table", "openai/mine", "--prices", own)
        (cost,) = payload["models"]
        users, items = cost["per_thousand_users"], cost["per_million_items"]
        assert code == 0
        assert users["direct"] == pytest.approx(1e3 * ((1968 + 786) * 1.0 + (150 + 235) * 10.0) / 1e6)
        assert items["direct"] == pytest.approx(470 * 1.0 + 21 * 10.0)
        assert items["direct_cached"] == pytest.approx(432 * 0.1 + 38 * 1.0 + 21 * 10.0)
        assert (items["batch"], "batch_cached" in items) == (pytest.approx(items["direct"] / 2), False)
        assert cost["per_list"] == pytest.approx(users["direct"] / 1e3 + 30 * items["direct"] / 1e6)
        assert (cost["price"]["source"], cost["price"]["dated"]) == ("our contract", "2026-11-01")

    def test_the_paper_stands_beside_it(self) -> None:
        _, payload = command("table")
        (hybrid,) = [row for row in payload["paper"] if row["deployment"] == "4o & 3.5"]
        assert hybrid["published"] == {"Beauty": "0.018", "Sports": "0.009", "Toys": "0.013"}
        assert hybrid["per_list"] == pytest.approx(0.0135, abs=5e-5)  # docs/results.md
        assert "4o & 3.5 (paper)" in run("prices", "table").stdout

    def test_all_current_models_have_a_price_and_its_source(self) -> None:
        code, payload = command("table")
        assert (code, payload["without_price"]) == (0, [])
        assert all("LiteLLM" in cost["price"]["source"] for cost in payload["models"])

    def test_a_model_without_a_price_is_named(self) -> None:
        result = run("prices", "table", "openai/nobody-knows", "openai/gpt-6-luna")
        assert result.exit_code == 1
        assert "openai/nobody-knows: no known price for each token; add it to a file for --prices" in result.stdout
