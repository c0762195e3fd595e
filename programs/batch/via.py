"""How a run asks its models: each call by itself, by batches, or through a file of questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from programs.batch.charges import record_earlier_batches
from programs.lm.ledger import Ledger
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent

if TYPE_CHECKING:
    from programs.batch.run import BatchRun

_CALLS, _BATCH = "calls", "batch"

Via = str | Path
"""`calls`, `batch`, or the path of a file for questions."""


def batch_run(via: Via, ledger: Ledger, retry_unparsable: bool, on_event: OnEvent) -> BatchRun | None:
    """What answers a run's calls by batches; None if each is sent by itself.

    The ledger then has what earlier sessions of the run spent in batches.

    Raises:
        InputError: if there is no such way, answers are to be asked for again, or calls would repeat what is in open
            batches.
    """
    if via == _CALLS:
        record_earlier_batches(ledger)
        return None
    if via != _BATCH and Path(via).suffix != ".jsonl":
        raise InputError(f"via {str(via)!r}: choose calls, batch, or a file whose name ends with .jsonl")
    if retry_unparsable:
        raise InputError("batches do not ask again for stored answers that are unparsable: leave out one of the two")
    from programs.batch.run import BatchRun

    return BatchRun(ledger, None if via == _BATCH else Path(via), on_event)
