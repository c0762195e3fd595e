"""Prices: shipped ones and those of a user, per token and per hour, and files that are refused."""

from __future__ import annotations

import datetime
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger, read_calls
from programs.lm.listed_models import listed_names
from programs.lm.prices import (
    LongContext,
    Price,
    PriceTable,
    Tariff,
    price_table,
    read_prices,
    shipped_prices,
    use_prices,
)
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import local_roles
from programs.runtime.errors import InputError
from signatures.mote import DistillTraits
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible


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


class TestTariffs:
    """Cache reads and writes, batches and long prompts have prices of their own."""

    PRICE = Price(
        input=2.0,
        output=10.0,
        cached=0.2,
        cache_write=2.5,
        batch=Tariff(input=1.0, output=5.0, cached=0.1),
        long_context=LongContext(above=200_000, input=4.0, output=20.0),
    )

    def test_every_token_of_a_prompt_is_billed_once(self) -> None:
        # 1,000 plain, 3,000 read from the cache, 6,000 written to it, 500 of the answer.
        usd = self.PRICE.usd(10_000, 500, tokens_cached=3_000, tokens_written=6_000)
        assert usd == pytest.approx((1_000 * 2.0 + 3_000 * 0.2 + 6_000 * 2.5 + 500 * 10.0) / 1e6)
        assert self.PRICE.usd(10_000, 500, tokens_cached=3_000, batch=True) == pytest.approx(
            (7_000 * 1.0 + 3_000 * 0.1 + 500 * 5.0) / 1e6
        )

    def test_a_long_prompt_raises_the_price_of_the_whole_call(self) -> None:
        assert self.PRICE.usd(200_000, 1_000) == pytest.approx(0.41)
        assert self.PRICE.usd(200_001, 1_000) == pytest.approx(0.820004)

    def test_an_unknown_batch_price_is_not_guessed(self) -> None:
        with pytest.raises(InputError, match="the price in a batch is not known"):
            self.PRICE.usd(200_001, 1, batch=True)
        with pytest.raises(InputError, match="the price in a batch is not known"):
            Price(input=1.0, output=1.0).usd(1, 1, batch=True)

    @given(st.integers(0, 300_000), st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
    def test_the_upper_estimate_is_never_below_the_price(
        self, prompt: int, answer: int, cached: float, rest: float
    ) -> None:
        read = int(cached * prompt)
        written = int(rest * (prompt - read))
        most = self.PRICE.most_usd(prompt, answer)
        assert self.PRICE.usd(prompt, answer, read, tokens_written=written) <= most + 1e-12


class TestListedModels:
    """Prices of LiteLLM's table. Its figures change with each release, so only their shape is tested."""

    @pytest.mark.parametrize("model", ["openai/gpt-6-luna", "anthropic/claude-haiku-5-5", "gemini/gemini-3.8-flash"])
    def test_current_models_have_all_tiers_and_a_source(self, model: str) -> None:
        price = price_table().of(model)
        assert price is not None
        assert price.batch is not None
        assert price.cached is not None
        assert 0 < price.batch.input < price.input < price.output
        assert price.cached < price.input
        assert "LiteLLM" in price.source

    def test_a_deployment_of_another_provider_has_another_price(self) -> None:
        assert price_table().of("azure/gpt-6-luna-nowhere") is None
        assert price_table().of("anthropic/gpt-6-luna") is None
        assert price_table().of("gpt-6-luna") is None

    def test_every_listed_price_can_be_used(self) -> None:
        names = [name for name in listed_names() if name.split("/")[0] in ("openai", "anthropic", "gemini", "groq")]
        assert len(names) > 50
        for name in names:
            price = price_table().of(name)
            assert price is not None, name
            assert price.usd(1_000, 100) <= price.most_usd(1_000, 100) + 1e-12

    def test_own_prices_lie_over_listed_ones(self, tmp_path: Path) -> None:
        own = tmp_path / "own.toml"
        own.write_text("dated=2026-01-01\nsource='s'\n[models]\n'openai/gpt-6-luna' = { input = 9, output = 9 }\n")
        with use_prices(own):
            price = price_table().of("openai/gpt-6-luna")
        assert price is not None
        assert (price.input, price.batch) == (9.0, None)
        listed = price_table().of("openai/gpt-6-luna")
        assert listed is not None
        assert listed.input < 9.0

    def test_retirement_is_seen_before_it_happens(self) -> None:
        price = Price(input=1.0, output=1.0, retired=datetime.date(2027, 1, 14))
        assert not price.retires_within(60, datetime.date(2026, 11, 1))
        assert price.retires_within(60, datetime.date(2026, 11, 28))
        assert price.retires_within(60, datetime.date(2027, 2, 1))


class TestTable:
    def test_every_shipped_price_has_a_source_and_a_day(self) -> None:
        assert shipped_prices().models
        for model, price in shipped_prices().models.items():
            assert price.source, model
            assert price.dated == shipped_prices().dated

    def test_own_prices_lie_over_the_shipped_ones(self, own_prices: Path) -> None:
        merged = price_table(own_prices)
        assert merged.models.keys() == shipped_prices().models.keys() | {"local/smollm2-135m"}
        rebate, machine = merged.models["openai/gpt-4o"], merged.models["local/smollm2-135m"]
        assert (rebate.input, rebate.cached, rebate.source) == (1.0, None, "a rebate")
        assert (machine.usd_per_hour, machine.source) == (0.36, "our contract")
        assert rebate.dated == machine.dated == datetime.date(2026, 1, 31)
        assert merged.of("openai/gpt-4o-mini") == shipped_prices().models["openai/gpt-4o-mini"]

    def test_the_environment_names_own_prices_too(self, own_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLLM3REC_PRICES", str(own_prices))
        assert Backends(local_roles()).prices == price_table(own_prices)
        other = own_prices.with_name("other.toml")
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
