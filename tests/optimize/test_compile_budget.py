"""The budget of a compile: everything is counted, and what cannot be priced is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.runs.directory import LEDGER
from mllm3rec.api.compilation import forecast_compile_cost
from optimize.artifact import SEARCH_FOLDER, restore_program
from optimize.compiler import PLAN
from optimize.space import Space
from programs.lm.ledger import Budget, Ledger
from programs.lm.response_cache import use_response_cache
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Event, Note
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
    assert not (tmp_path / "art" / SEARCH_FOLDER / PLAN).exists(), "another command may use this folder"


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(usd=0.001), r"budget of \$0\.0010 is too small: the held-out check alone takes up to \$0\.09"),
        (Budget(usd=0.08), r"give at least \$0\.19, or fewer dev users"),
        (Budget(calls=60), r"budget of 60 calls is too small: the held-out check alone takes up to 60 calls"),
    ],
)
def test_a_budget_that_cannot_pay_the_held_out_check_is_refused_before_the_first_call(
    tmp_path: Path, budget: Budget, said: str
) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), budget, priced(server.model()))
        with pytest.raises(InputError, match=said):
            made.run()
        assert server.bodies == []
    assert not (tmp_path / "art" / SEARCH_FOLDER / PLAN).exists(), "with fewer dev users it is another compile"


@pytest.mark.parametrize("family", ["listwise", "pointwise", "embedding", "without-reflection", "llm-only"])
def test_a_rehearsal_asks_nobody_and_foresees_the_calls(tmp_path: Path, family: str) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        space = Space(families=(family,))
        made = compiler(tmp_path / "art", cases, roles_on(server), prices=priced(server.model()), space=space)
        rehearsed = made.rehearse()
        assert server.bodies == []
        assert made.ledger.total().calls == 0
        measured = made.forecast()
    assert [phase.calls for phase in rehearsed] == [phase.calls for phase in measured]
    for before, after in zip(rehearsed, measured, strict=True):
        assert before.tokens == pytest.approx(after.tokens, rel=0.15)
        assert before.usd == pytest.approx(after.usd, rel=0.15)


def test_a_forecast_says_that_the_budget_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLM3REC_ENCODER", "hashing")
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        said = {}
        for calls in (40, 100, 100_000):
            notes: list[Event] = []
            forecast_compile_cost(
                cases, out=tmp_path / "art", model=server.model(), max_calls=calls, trials=4, on_event=notes.append
            )
            said[calls] = [note.text for note in notes if isinstance(note, Note) and "budget" in note.text]
    assert "the budget of 40 calls is too small: the held-out check alone takes up to" in said[40][0]
    assert "the budget of 100 calls may end the search early: all of it takes up to" in said[100][0]
    assert said[100_000] == []


@pytest.mark.parametrize("usd", [0.1, 0.2])
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
