"""Charges of batches: the table of jobs knows every line that a run has to pay for, its ledger must, too."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from programs.batch.job_table import JobTable, jobs_file
from programs.batch.providers import FILE
from programs.lm.ledger import Ledger, read_calls
from programs.runtime.errors import InputError


def owner_of(ledger: Path) -> str:
    """The owner of the jobs that a ledger file pays for."""
    return str(ledger.absolute())


class BatchCharges:
    """Writes lines of batches into the ledger that pays for them, each once.

    Args:
        owner: See `JobRow`.
    """

    def __init__(self, table: JobTable, owner: str, ledger: Ledger) -> None:
        self._table, self._owner, self._ledger = table, owner, ledger
        self._charged = set() if ledger.path is None else {call.id for call in read_calls(ledger.path)}

    def record(self) -> None:
        """Record every line that has ended and is not in the ledger yet."""
        for call in self._table.calls_of(self._owner):
            if call.id not in self._charged:
                self._charged.add(call.id)
                self._ledger.record(call)


def record_earlier_batches(ledger: Ledger) -> None:
    """Record what earlier sessions of a run spent in batches: they may have ended before their lines were fetched.

    For a session that asks without batches; its budget counts from the first dollar on.

    Raises:
        InputError: if jobs of the run are still open: what they will cost is not known, and their questions would be
            paid twice.
    """
    if ledger.path is None or not jobs_file().exists():
        return
    owner = owner_of(ledger.path)
    with closing(JobTable(jobs_file())) as table:
        left = [job for job in table.jobs() if job.owner == owner and job.provider != FILE]
        if left:
            raise InputError(
                f"{ledger.path}: {sum(job.lines for job in left)} questions of this run are in batches: --via batch "
                "goes on with them, `mllm3rec batch cancel` and then `mllm3rec batch fetch` end them"
            )
        BatchCharges(table, owner, ledger).record()
