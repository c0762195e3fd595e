"""The forecast of what a compile will cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimize.forecast import Phase
from optimize.space import Space
from programs.lm.prices import Price
from programs.lm.response_cache import use_response_cache
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import PRICES, compiler, priced, sensitive
from tests.support.fake_server import FakeOpenAI


def test_bounds_what_the_compile_then_takes(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    with FakeOpenAI(sensitive) as server:
        roles = roles_on(server)
        made = compiler(tmp_path / "dry", cases, roles, prices=priced(server.model()))
        phases = {phase.name: phase for phase in made.forecast()}
        handful = len(server.bodies)
        use_response_cache(":memory:")
        real = compiler(tmp_path / "art", cases, roles, prices=priced(server.model()))
        real.run()
    assert 0 < handful < 60
    spent = real.ledger.by_phase()
    for name, phase in phases.items():
        assert spent[name].calls <= phase.calls
        assert (spent[name].usd or 0.0) <= 1.3 * (phase.usd or 0.0)
    assert phases["search"].calls < 20 * spent["search"].calls, "a bound, but no fantasy"


def test_counts_traits_that_are_in_the_store_and_the_dearest_choice(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    with FakeOpenAI(sensitive) as server:
        prices = PRICES.model_copy(
            update={
                "models": {
                    server.model(): Price(input=1.0, output=4.0),
                    server.model("dear"): Price(input=10.0, output=20.0),
                }
            }
        )

        def bound(name: str, **settings: Any) -> dict[str, Phase]:
            made = compiler(tmp_path / name, cases, roles_on(server), prices=prices, **settings)
            first = {phase.name: phase for phase in made.forecast()}
            assert {phase.name: phase for phase in made.forecast()} == {
                name: phase.model_copy(update={"seconds": None}) for name, phase in first.items()
            }, "all answers are stored by now"
            return first

        plain = bound("plain")
        dear = bound(
            "dear", space=Space(families=("listwise",), models={"mar": (server.model(), server.model("dear"))})
        )
        wide = bound("wide", space=Space(families=("listwise", "pointwise")))
    assert dear["held-out"].calls == plain["held-out"].calls
    assert (dear["held-out"].usd or 0.0) > (plain["held-out"].usd or 0.0)
    assert wide["search"].calls > plain["search"].calls + 100, "a rating of every candidate"
