"""The budget of a compile: everything is counted, and what cannot be priced is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.runs.directory import LEDGER
from optimize.artifact import SEARCH_FOLDER, restore_program
from optimize.space import Space
from programs.lm.ledger import Budget, Ledger
from programs.lm.response_cache import use_response_cache
from programs.runtime.errors import BudgetExceededError, InputError
from tests.optimize.conftest import Finished
from tests.support.backends import paid, roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, priced, sensitive
from tests.support.fake_server import FakeOpenAI


def test_a_backend_that_cannot_be_priced_is_refused_before_anything_is_paid(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        space = Space(families=("listwise",), models={"mar": (server.model(), server.model("dear"))})
        made = compiler(tmp_path / "art", cases, roles_on(server), Budget(usd=1.0), priced(server.model()), space=space)
        with pytest.raises(InputError, match="dear"):
            made.run()
        assert server.bodies == []


@pytest.mark.parametrize("usd", [0.001, 0.05, 0.2])
def test_dollars_stop_at_or_below_the_budget_with_everything_kept(tmp_path: Path, usd: float) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    use_response_cache(tmp_path / "calls.sqlite")
    with FakeOpenAI(sensitive) as server:
        roles = roles_on(server)
        prices = priced(server.model())
        made = compiler(tmp_path / "art", cases, roles, Budget(usd=usd), prices, trials=30)
        with pytest.raises(BudgetExceededError):
            made.run()
        spent = made.ledger.total().usd or 0.0
        assert spent <= usd
        billed = (server.tokens_in * 2.0 + server.tokens_out * 8.0) / 1e6
        assert spent == pytest.approx(billed), "every call is in the sum"
        made.ledger.close()
        answered = len(server.bodies)
        again = compiler(tmp_path / "art", cases, roles, Budget(usd=usd), prices, trials=30)
        with pytest.raises(BudgetExceededError):
            again.run()
        assert len(server.bodies) - answered <= 3, "what was paid for is not paid again"


def test_proposals_and_reflection_are_in_the_sum(finished: Finished) -> None:
    by_role = finished.made.ledger.by_role()
    # Two predictors of MOPE, one each of MOTE and MAR, and the adjustment of 3.1.4.
    assert by_role["proposer"].calls == 5
    assert paid(finished.made.ledger.total()) == finished.served


def test_an_unpriced_proposer_is_refused_where_dollars_are_limited(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        made = compiler(
            tmp_path / "art",
            cases,
            roles_on(server),
            Budget(usd=1.0),
            priced(server.model()),
            proposer=roles_on(server).with_models(mar=server.model("dear")).mar,
        )
        with pytest.raises(InputError, match="proposer"):
            made.run()


def test_a_budget_of_calls_leaves_enough_to_check_the_winner(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), Budget(calls=130), trials=20)
        with pytest.raises(BudgetExceededError, match="the best of"):
            made.run()
        assert len(server.bodies) <= 130
    _, manifest = restore_program(tmp_path / "art")
    assert 1 <= manifest.trials < 20


def test_a_phase_is_written_with_every_call_and_restored(finished: Finished, tmp_path: Path) -> None:
    restored = Ledger(finished.copy(tmp_path) / SEARCH_FOLDER / LEDGER)
    assert {k: v.calls for k, v in restored.by_phase().items()} == {
        k: v.calls for k, v in finished.made.ledger.by_phase().items()
    }
