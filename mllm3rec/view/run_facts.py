"""What the list of runs shows of one run: figures with intervals, users, dollars, and whether it is running."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

from evaluate.experiments.study_reading import CatalogueRanks
from evaluate.runs.costs import stand_alone_usage
from evaluate.runs.directory import RunDirectory
from evaluate.runs.evaluation import of_metric
from evaluate.runs.journal import RunManifest, stored_manifest
from evaluate.runs.run_metrics import RunMetrics
from evaluate.stats.intervals import Difference, Estimate
from evaluate.stats.metrics import per_user, summarize
from mllm3rec.view.case_lines import CaseLines, ListedTarget
from mllm3rec.view.ledger_lines import LedgerLines
from mllm3rec.view.process import working_process
from mllm3rec.view.rows import RunRows
from programs.lm.ledger import by_role, read_calls
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError
from signatures.rows import Usage, total_usage

SUMMED_AT_ONCE, LARGEST_LEDGER = 1 << 20, 16 << 20
"""Bytes of a ledger whose stand-alone cost is summed while a page waits for it, and at all: all its calls are in memory
meanwhile, about eight times as many bytes."""

_SLICE = 0.04
"""Seconds of indexing after which others may read the rows."""

_ANEW = "evaluate the run again to write it anew"


@dataclass(frozen=True)
class RunFacts:
    """Figures of one run, finished or not.

    Attributes:
        name: Of its folder, relative to the viewed one.
        metrics: With intervals, by name with the list size (`HR@5/30`); empty before there are any.
        prior: Likewise, by the prior alone.
        against_prior: Paired differences to the prior alone.
        users: With a scored row.
        failed: Whose calls failed.
        unparsable: Share of users without a readable answer.
        usage: What was really sent and paid for.
        state: `finished`, `running`, or `stopped` with users left.
        problem: Why it could not be read; or empty.
    """

    name: str
    ranker: str
    cases: str
    created: datetime | None = None
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    prior: Mapping[str, Estimate] = field(default_factory=dict)
    against_prior: Mapping[str, Difference] = field(default_factory=dict)
    users: int = 0
    unresolved: int = 0
    failed: int = 0
    unparsable: float = 0.0
    usage: Usage = field(default_factory=Usage)
    state: str = "stopped"
    problem: str = ""

    def metric(self, name: str) -> Estimate | None:
        """The metric of a name without the list size, such as `HR@5`."""
        return of_metric(self.metrics, name)

    def metric_of_prior(self, name: str) -> Estimate | None:
        """Likewise, for the prior alone."""
        return of_metric(self.prior, name)


class ViewedRun:
    """One run folder, read as far as it is needed.

    Attributes:
        name: Its name in the view.
        cases: The cases that it ranked; None if their file was not found.
        rows: Its journal.
        ledger: Its calls.
    """

    def __init__(self, name: str, path: Path, cases: CaseLines | None) -> None:
        self.name = name
        self.files = RunDirectory(path)
        self.cases = cases
        self.rows = RunRows(self.files.journal, self._listed)
        self.ledger = LedgerLines(self.files.ledger)
        self._facts: tuple[object, RunFacts] | None = None
        self._not_before = 0.0
        self._indexing: threading.Thread | None = None
        self._stand_alone: tuple[int, Usage] | None = None
        self._begun = stamp_of(self.files.manifest)

    @property
    def is_replaced(self) -> bool:
        """Whether the folder holds another run now: nothing that was read of this one counts for that one."""
        return stamp_of(self.files.manifest) != self._begun

    def _listed(self, user: str) -> ListedTarget | None:
        return None if self.cases is None else self.cases.listed(user)

    def index(self, seconds: float) -> bool:
        """Index the journal for so long, and then in a thread of its own.

        Returns:
            Whether the index is complete.

        Raises:
            InputError: if a row cannot be read.
        """
        if self.rows.extend(seconds):
            return True
        if not (self._indexing is not None and self._indexing.is_alive()):
            self._indexing = threading.Thread(target=self._index, daemon=True)
            self._indexing.start()
        return False

    def _index(self) -> None:
        with suppress(InputError, OSError):  # the next page says what is wrong
            while not self.rows.extend(_SLICE):
                time.sleep(_SLICE)  # pages come first

    @cached_property
    def manifest(self) -> RunManifest:
        """What was run.

        Raises:
            InputError: if it was damaged.
        """
        manifest = stored_manifest(self.files.path)
        if manifest is None:
            raise InputError(f"{self.files.path}: its manifest is gone")
        return manifest

    @property
    def state_of_files(self) -> tuple[object, ...]:
        """Changes whenever the run goes on."""
        return (
            *(
                stamp_of(path)
                for path in (self.files.manifest, self.files.journal, self.files.metrics, self.files.ranks)
            ),
            working_process(self.files.path),
        )

    def facts(self) -> RunFacts:
        """Figures of the run; made again only if its files have changed."""
        state = self.state_of_files
        began = time.monotonic()
        if self._facts is not None and (self._facts[0] == state or began < self._not_before):
            return self._facts[1]
        try:
            found = self._read()
        except (InputError, OSError, ArithmeticError) as error:  # ranks may be numbers that no integer of ours holds
            found = RunFacts(self.name, self.name.rpartition("/")[2], "", problem=str(error))
        self._facts = state, found
        if found.state == "running":
            # Intervals of a running run are not worth more than a tenth of the time.
            self._not_before = time.monotonic() + 9 * (time.monotonic() - began)
        return found

    def _read(self) -> RunFacts:
        manifest = self.manifest
        bare = RunFacts(self.name, manifest.ranker, manifest.cases_sha256, manifest.created)
        running = working_process(self.files.path) is not None
        if self.files.ranks.exists():
            ranks = read_json(self.files.ranks, CatalogueRanks, _ANEW)
            metrics = summarize(per_user(ranks.ranks), negatives=ranks.size - 1)
            return replace(bare, metrics=metrics, users=len(ranks.ranks), state="finished")
        if self.files.metrics.exists() and not running:
            found: RunMetrics = read_json(self.files.metrics, RunMetrics, _ANEW)
            return replace(
                bare,
                metrics=found.metrics,
                prior=found.components.get("prior", {}),
                against_prior=found.against_prior,
                users=found.users,
                unresolved=found.unresolved,
                failed=found.unresolved,
                unparsable=found.unparsable_users / max(1, found.asked),
                usage=found.usage,
                state="stopped" if found.unresolved else "finished",
            )
        return self._unfinished(bare, "running" if running else "stopped")

    def _unfinished(self, bare: RunFacts, state: str) -> RunFacts:
        self.rows.extend()
        negatives, spent = max(1, self.rows.list_size - 1), self.rows.spent()
        # Calls that were in flight at a kill count, too, as in every report; while a run goes on they may still end.
        if state == "running":
            usage = self.ledger.spent()
        else:
            usage = total_usage(by_role(read_calls(self.files.ledger)).values())
        ranks, prior = self.rows.ranks(), self.rows.ranks(of_prior=True)
        return replace(
            bare,
            metrics=summarize(per_user(ranks), negatives) if ranks else {},
            prior=summarize(per_user(prior), negatives) if prior else {},
            users=spent.users - spent.failed,
            failed=spent.failed,
            unparsable=spent.unparsable / max(1, spent.users - spent.failed),
            usage=usage,
            state=state,
        )

    def stand_alone(self, wait: bool = True) -> Usage | None:
        """Usage as if there had been no cache hits; None where a large ledger is not summed (yet).

        Args:
            wait: Sum it now, however long that takes.
        """
        size = self.files.ledger.stat().st_size if self.files.ledger.exists() else 0
        known = self._stand_alone
        if known is not None and known[0] == size:
            return known[1]
        if size <= (LARGEST_LEDGER if wait else SUMMED_AT_ONCE):
            with suppress(InputError, OSError):  # the run's line says what is wrong
                calls = list(read_calls(self.files.ledger))
                self._stand_alone = size, total_usage(stand_alone_usage(calls).values())
        return None if self._stand_alone is None else self._stand_alone[1]


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """What differs between two versions of a file: its number in the file system, bytes and nanoseconds; or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
