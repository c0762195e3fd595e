"""Prices: shipped and one's own, per token and per hour; unknown is unknown, and a bad file says where it is bad."""

from __future__ import annotations

import datetime
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import dspy
import pytest
from typer.testing import CliRunner

from mllm3rec.cli.console import out
from mllm3rec.cli.main import app
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger, read_calls
from programs.lm.prices import Price, PriceTable, price_table, read_prices, shipped_prices
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import local_roles
from programs.runtime.errors import InputError
from signatures.mote import DistillTraits
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible

OWN = """
dated = 2026-01-31
source = "our contract"
[models]
"openai/gpt-4o" = { input = 1.0, output = 2.0, source = "a rebate" }
"local/smollm2-135m" = { usd_per_hour = 0.36 }
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN, "utf-8")
    return path


def command(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["prices", *map(str, arguments), "--json"])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, json.loads(result.stdout)


class TestPrice:
    def test_of_tokens_takes_no_notice_of_time(self) -> None:
        assert Price(input=1.0, output=2.0).usd(1_000_000, 1_000_000, seconds=3600.0) == 3.0

    def test_of_an_hour_takes_no_notice_of_tokens(self) -> None:
        assert Price(usd_per_hour=1.8).usd(1_000_000, 1_000_000, seconds=1800.0) == 0.9

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"input": 1.0},
            {"output": 1.0},
            {"cached": 1.0},
            {"usd_per_hour": 1.0, "input": 1.0, "output": 1.0},
            {"usd_per_hour": 1.0, "cached": 0.0},
            {"usd_per_hour": -1.0},
            {"input": float("nan"), "output": 1.0},
            {"input": 1.0, "output": float("inf")},
        ],
    )
    def test_it_is_one_or_the_other_and_whole(self, fields: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=r"usd_per_hour|finite number"):
            Price.model_validate(fields)


class TestTable:
    def test_every_shipped_price_has_a_source_and_a_day(self) -> None:
        for model, price in shipped_prices().models.items():
            assert price.source, model
            assert price.dated == shipped_prices().dated

    def test_own_prices_lie_over_the_shipped_ones(self, own: Path) -> None:
        merged = price_table(own)
        assert merged.models.keys() == shipped_prices().models.keys() | {"local/smollm2-135m"}
        rebate, machine = merged.models["openai/gpt-4o"], merged.models["local/smollm2-135m"]
        assert (rebate.input, rebate.cached, rebate.source) == (1.0, None, "a rebate")
        assert (machine.usd_per_hour, machine.source) == (0.36, "our contract")
        assert rebate.dated == machine.dated == datetime.date(2026, 1, 31)
        assert merged.models["openai/gpt-4.1"] == shipped_prices().models["openai/gpt-4.1"]

    def test_the_environment_names_own_prices_too(self, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLLM3REC_PRICES", str(own))
        assert Backends(local_roles()).prices == price_table(own)
        other = own.with_name("other.toml")
        other.write_text("dated = 2026-02-01\nmodels = {}\n")
        assert price_table(other) == shipped_prices(), "what is named in the call comes before the environment"

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("dated = 2026-01-01\n[models]\nx = { input = 1, output = 1 }", "models.x.source: missing"),
            ("[models]\nx = { input = 1, output = 1, source = 's' }", "dated: Field required"),
            ("dated = 2026-01-01", "models: Field required"),
            ("dated = 'soon'\nmodels = {}", "dated: Input should be a valid date"),
            ("dated = 2026-01-01\n[models]\nx = { input = -1, output = 1 }", "models.x.input: .* equal to 0"),
            ("dated = 2026-01-01\n[models]\nx = { input = 'much', output = 1 }", "models.x.input: .* valid number"),
            ("dated = 2026-01-01\n[models]\nx = { input = nan, output = 1 }", "models.x.input: .* finite"),
            ("dated = 2026-01-01\n[models]\nx = { inputs = 1, output = 1 }", "models.x.inputs: Extra inputs"),
            ("dated = 2026-01-01\n[models]\nx = { output = 1, source = 's' }", "models.x: .* usd_per_hour"),
            ("dated = 2026-01-01\n[models]\nx = 3", "models.x: "),
            ("dated = 2026-01-01\nprices = 1\nmodels = {}", "prices: Extra inputs"),
            ("dated =", "not a readable TOML file: Invalid value"),
        ],
    )
    def test_a_malformed_file_is_named_with_its_field(self, tmp_path: Path, content: str, problem: str) -> None:
        path = tmp_path / "bad.toml"
        path.write_text(content, "utf-8")
        with pytest.raises(InputError, match=f"bad.toml: {problem}"):
            read_prices(path)

    def test_so_is_one_that_is_not_there_or_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"none.toml: No such file"):
            read_prices(tmp_path / "none.toml")
        (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match=r"bytes.toml: not a readable TOML file"):
            read_prices(tmp_path / "bytes.toml")


class TestByTheHour:
    """A machine's price: what a call costs follows from the seconds it took, also when its answer is a stored one."""

    @staticmethod
    def distilled(server: FakeOpenAI, ledger: Ledger, price: Price) -> None:
        table = PriceTable(dated=datetime.date(2026, 1, 1), models={server.model(): price})
        backends = Backends(local_roles(server.model()), ledger, table)
        backends.ask("mote", dspy.Predict(DistillTraits), product="a cup")

    def test_the_seconds_in_the_ledger_are_what_is_paid(self, server: FakeOpenAI, tmp_path: Path) -> None:
        def slow(body: Body) -> Reply:
            return Reply(sensible(body).content, seconds=0.2)

        server.respond = slow
        store = use_response_cache(tmp_path / "calls.sqlite")
        price = Price(usd_per_hour=3600.0)
        ledger = Ledger(tmp_path / "ledger.jsonl")
        self.distilled(server, ledger, price)
        with ledger.standalone_usage() as priced:
            self.distilled(server, ledger, price)
        ledger.close()
        store.close()
        paid, hit = read_calls(tmp_path / "ledger.jsonl")
        assert paid.seconds >= 0.2
        assert paid.usd == pytest.approx(paid.seconds, abs=1e-3)
        assert hit.hit
        assert 0.2 <= hit.seconds <= paid.seconds, "the stored answer keeps what it took"
        assert hit.usd == pytest.approx(hit.seconds, abs=1e-3)
        assert ledger.total().usd == paid.usd
        assert priced["mote"].usd == hit.usd
        assert len(server.bodies) == 1

    def test_a_stored_answer_that_never_was_timed_has_no_known_price(self, server: FakeOpenAI, tmp_path: Path) -> None:
        store = use_response_cache(tmp_path / "calls.sqlite")
        self.distilled(server, Ledger(), Price(usd_per_hour=3600.0))
        with closing(sqlite3.connect(tmp_path / "calls.sqlite")) as database, database:
            ((answer,),) = database.execute("SELECT answer FROM answers").fetchall()
            untimed = json.dumps(json.loads(answer) | {"_seconds": None})
            database.execute("UPDATE answers SET answer = ?", [untimed])
        ledger = Ledger(tmp_path / "ledger.jsonl")
        self.distilled(server, ledger, Price(usd_per_hour=3600.0))
        ledger.close()
        store.close()
        (hit,) = read_calls(tmp_path / "ledger.jsonl")
        assert (hit.hit, hit.usd, hit.seconds) == (True, None, 0.0)

    def test_a_dollar_budget_holds_for_it(self, server: FakeOpenAI) -> None:
        # A call may take the 600 seconds of its timeout: $100 at this price.
        ledger = Ledger(budget=Budget(usd=99.0))
        with pytest.raises(BaseException, match="might exceed the budget"):
            self.distilled(server, ledger, Price(usd_per_hour=600.0))
        assert server.bodies == []


class TestCommand:
    def test_show_lists_both_tables(self, own: Path) -> None:
        code, payload = command("show", "--prices", own)
        assert code == 0
        assert payload["dated"] == str(shipped_prices().dated)
        assert payload["models"]["openai/gpt-4o"]["input"] == 1.0
        assert payload["models"]["openai/gpt-3.5-turbo"]["retired"] == "2026-10-23"
        assert payload["models"]["local/smollm2-135m"]["usd_per_hour"] == 0.36

    def test_show_reads_as_a_table(self, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(out, "width", 140)  # the console measured itself when it was made
        result = CliRunner().invoke(app, ["prices", "show", "--prices", str(own)])
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
        said = CliRunner().invoke(app, ["prices", "check", "openai/gpt-3.5-turbo"]).stdout
        assert f"{age} days ago" in said
        assert "retired since 2026-10-23" in said

    def test_check_fails_for_a_model_without_a_price(self, own: Path) -> None:
        code, payload = command("check", "openai/gpt-4o", "local/smollm2-135m")
        assert code == 1
        assert payload["models"]["local/smollm2-135m"] == {"known": False}
        code, payload = command("check", "openai/gpt-4o", "local/smollm2-135m", "--prices", own)
        assert code == 0
        assert (
            "$0.36 an hour"
            in CliRunner().invoke(app, ["prices", "check", "local/smollm2-135m", "--prices", str(own)]).stdout
        )
