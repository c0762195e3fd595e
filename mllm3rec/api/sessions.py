"""How calls of the API begin and end: their cases, warnings about these, and what is closed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate.protocol.cases import Cases, load_cases
from programs.lm.ledger import Ledger
from programs.runtime.events import Note, OnEvent

if TYPE_CHECKING:
    from mllm3rec.api.program import Program
    from programs.batch.run import BatchRun


def read_cases(cases: Cases | str | Path) -> Cases:
    """The cases; a path is read as their file.

    Raises:
        InputError: if the file cannot be read, or is not one of cases.
    """
    return cases if isinstance(cases, Cases) else load_cases(cases)


def tell_list_warnings(cases: Cases, on_event: OnEvent) -> None:
    """Send a note of each way in which the lists give their targets away.

    Raises:
        InputError: if the dataset of the cases is not found.
    """
    for warning in cases.list_warnings():
        on_event(Note(f"warning: {warning.message}"))


@contextmanager
def closing_calls(ledger: Ledger, batch: BatchRun | None, programs: Iterable[Program] = ()) -> Iterator[None]:
    """Close the ledger and the table of batches when the block ends.

    Args:
        programs: Against whose limits the calls count.
    """
    try:
        yield
    finally:
        ledger.close()
        for program in programs:
            program.count(ledger)
        if batch is not None:
            batch.close()
