"""A leased budget is never passed and nearly all used; ledgers of workers are merged without loss or repetition."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mllm3rec.stages.leases import Coordinator, LeasedLedger
from mllm3rec.stages.worker_ledgers import merge_ledgers, new_ledger_path, worker_ledgers
from programs.lm.ledger import Budget, Call, Ledger, read_calls
from programs.runtime.errors import BudgetExceededError
from tests.support.spending import spend


def worker(coordinator: Coordinator, budget: Budget, path: Path | None = None) -> LeasedLedger:
    return LeasedLedger(path, budget, lambda calls, usd: asyncio.run(coordinator.lease(calls, usd)))


class TestBudget:
    @pytest.mark.parametrize("limit", [0, 1, 7, 100])
    def test_calls_are_never_passed_and_all_used(self, limit: int) -> None:
        coordinator, budget = Coordinator(Budget(calls=limit), 3), Budget(calls=limit)
        working = [worker(coordinator, budget) for _ in range(3)]
        while working:
            for ledger in list(working):
                try:
                    spend(ledger, 0.0, 0.0)
                except BudgetExceededError:
                    working.remove(ledger)
                    limit -= ledger.total().calls
        assert limit == 0

    def test_dollars_are_never_passed_and_nearly_all_used(self) -> None:
        coordinator, budget = Coordinator(Budget(usd=1.0), 4), Budget(usd=1.0)
        working, spent = [worker(coordinator, budget) for _ in range(4)], 0.0
        while working:
            for ledger in list(working):
                try:
                    spend(ledger, 0.004, 0.001)
                except BudgetExceededError:
                    working.remove(ledger)
                    spent += ledger.total().usd or 0.0
        assert 1.0 - 4 * 0.004 <= spent <= 1.0

    def test_a_worker_that_is_killed_takes_its_slice_along(self) -> None:
        coordinator, budget = Coordinator(Budget(calls=80), 2), Budget(calls=80)
        spend(worker(coordinator, budget), 0.0, 0.0)
        other = worker(coordinator, budget)
        with pytest.raises(BudgetExceededError):
            for _ in range(80):
                spend(other, 0.0, 0.0)
        assert other.total().calls == 60

    def test_without_limits_nothing_is_leased(self) -> None:
        def never(calls: int, usd: float) -> None:
            raise AssertionError

        ledger = LeasedLedger(None, Budget(), never)
        spend(ledger, 9.0, 9.0)
        assert ledger.total().calls == 1


class TestCoordinator:
    def test_the_first_reason_counts_and_a_spent_budget_lets_others_go_on(self) -> None:
        async def over(coordinator: Coordinator) -> bool:
            try:
                await asyncio.wait_for(coordinator.over(), 0.01)
            except TimeoutError:
                return False
            return True

        async def scenario() -> None:
            coordinator = Coordinator(Budget(calls=5), 2)
            await coordinator.report("budget", "the budget of 2 calls is spent")
            assert not await over(coordinator)
            await coordinator.report("down", "it does not answer")
            assert await over(coordinator)
            assert await coordinator.failure() == ("budget", "the budget of this run is spent: 5 calls")

        asyncio.run(scenario())

    def test_minutes_end_the_job(self) -> None:
        async def scenario() -> None:
            coordinator = Coordinator(Budget(minutes=0.0001), 2)
            await coordinator.over()
            assert (await coordinator.failure() or ("", ""))[1].endswith("minutes of this session are over")

        asyncio.run(scenario())

    def test_each_note_is_told_once(self) -> None:
        async def scenario() -> None:
            coordinator = Coordinator(Budget(), 2)
            await coordinator.note("one")
            await coordinator.note("one")
            assert await coordinator.new_notes() == ["one"]
            await coordinator.note("one")
            await coordinator.note("two")
            assert await coordinator.new_notes() == ["two"]

        asyncio.run(scenario())


class TestMerge:
    def test_each_line_once_however_often_and_wherever_it_was_cut(self, tmp_path: Path) -> None:
        main, folder = tmp_path / "ledger.jsonl", tmp_path / "parts"
        spend(Ledger(main), 0.0, 0.5)
        paths = [new_ledger_path(folder) for _ in range(2)]
        for path in paths:
            ledger = LeasedLedger(path, Budget(), lambda calls, usd: None)
            spend(ledger, 0.0, 0.25)
            ledger.record_sent(Call(role="mote", model="m", usd=1.0, in_flight=True))
            ledger.close()
        assert worker_ledgers(folder) == sorted(paths)
        with paths[0].open("a") as file:
            file.write('{"role": "mo')  # killed while it wrote
        merge_ledgers(folder, main)
        content = main.read_bytes()
        merge_ledgers(folder, main)
        assert main.read_bytes() == content
        main.write_bytes(content[:-30])  # killed while the ledgers were merged
        merge_ledgers(folder, main)
        calls = list(read_calls(main))
        assert sorted((call.in_flight, call.usd) for call in calls) == [
            (False, 0.25),
            (False, 0.25),
            (False, 0.5),
            (True, 1.0),
            (True, 1.0),
        ]
