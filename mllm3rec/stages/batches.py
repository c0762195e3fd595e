"""A stage whose questions are answered by batches before its rows are made: these are then cache hits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mllm3rec.stages.settings import StageSettings
from mllm3rec.stages.stage import Stage
from programs.batch.via import Via, batch_run
from programs.lm.backends import Backends
from programs.lm.pending import PendingCall
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent
from signatures.rows import Usage


class BatchStage(Stage):
    """A stage that asks by batches, or writes its questions to a file.

    Args:
        via: See `mllm3rec.evaluate`; not `calls`.
    """

    def __init__(self, settings: StageSettings, via: Via, on_event: OnEvent) -> None:
        super().__init__(settings, on_event)
        batch = batch_run(via, self.ledger, settings.retry_unparsable, on_event)
        if batch is None:
            raise InputError("a stage by batches needs a way to ask them: batch, or a file")
        self._batch = batch
        self._open.callback(batch.close)

    def ask(self, rows: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Have all questions of the rows answered, in waves.

        Args:
            rows: Reads the rows from the beginning, once for each wave.

        Raises:
            BudgetExceededError: before a wave that might exceed the budget is submitted.
            WaveWritten: after questions were written to a file.
        """
        self.prepare()

        def wave() -> None:
            for row in rows():
                try:
                    self._row(row)
                except PendingCall:
                    continue

        self._batch.until_answered(wave)

    @property
    def paid(self) -> Usage:
        """What the waves sent. A wave repeats the questions of those before it: its cache hits are not counted."""
        return self.ledger.total().model_copy(update={"cache_hits": 0})

    def _bulk(self, backends: Backends) -> Backends:
        return self._batch.backends(backends.roles)
