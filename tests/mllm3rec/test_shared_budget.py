"""A budget that processes share is never passed, and used as if there were one process."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from mllm3rec.stages.shared_budget import SharedLedger, SharedSums
from programs.lm.ledger import Budget, Call, read_calls
from programs.runtime.errors import BudgetExceededError
from tests.support.spending import spend


def spend_all(path: Path, budget: Budget, sums: SharedSums, ended: Any) -> None:
    ledger = SharedLedger(path, budget, sums)
    try:
        while True:
            spend(ledger, 0.01, 0.001)
    except BudgetExceededError as error:
        ended.put(str(error))
    ledger.close()


@pytest.mark.parametrize(
    ("budget", "calls"), [(Budget(usd=0.0305), 21), (Budget(calls=7), 7), (Budget(calls=0), 0), (Budget(usd=0.005), 0)]
)
def test_all_of_it_is_spent_and_no_more(tmp_path: Path, budget: Budget, calls: int) -> None:
    context, path, sums = multiprocessing.get_context("spawn"), tmp_path / "ledger.jsonl", SharedSums()
    ended: Any = context.Queue()
    processes = [context.Process(target=spend_all, args=(path, budget, sums, ended)) for _ in range(2)]
    for process in processes:
        process.start()
    messages = {ended.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert len(list(read_calls(path))) == calls
    assert len(messages) == 1 and "budget" in messages.pop()


def test_what_others_have_reserved_is_waited_for_and_cache_hits_are_free() -> None:
    sums = SharedSums()
    one, other = (SharedLedger(None, Budget(calls=1), sums) for _ in range(2))
    one.record(Call(role="mote", model="m", hit=True))
    one.reserve(None)
    assert not other.try_reserve(None)
    one.release(None)
    assert other.try_reserve(None)


def test_a_stopped_ledger_reserves_nothing() -> None:
    ledger = SharedLedger(None, Budget(calls=5), SharedSums())
    ledger.stop("interrupted")
    with pytest.raises(BudgetExceededError, match="interrupted"):
        ledger.reserve(None)
