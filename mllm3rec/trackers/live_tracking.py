"""Live tracking: progress events as figures of a tracker while work goes on, and its record at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from mllm3rec.trackers.mlflow_tracker import MlflowTracker
from mllm3rec.trackers.tracked_record import TrackedRecord, claim_identity, metric_name, tracked_record
from mllm3rec.trackers.wandb_tracker import WandbTracker
from programs.runtime.errors import InputError, one_line
from programs.runtime.events import Event, Note, OnEvent, Progress

PERIOD = 2.0
"""Least seconds between two figures of a task."""


class Tracker(Protocol):
    """A place for records."""

    def begin(self, name: str, identity: str) -> None:
        """Open the run of an identity for figures that come while work goes on: the one there is, or a new one."""
        ...

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Add figures to it."""
        ...

    def write(self, record: TrackedRecord, failed: bool = False) -> str:
        """Write a record, of work that ended early if `failed`; returns where it is."""
        ...

    def give_up(self) -> None:
        """Close the open run as failed, if `write` has not closed it."""
        ...


def tracker_of(name: str) -> Tracker:
    """The tracker of a name, at its usual place.

    Raises:
        InputError: if there is none.
        MissingExtraError: if its library is not installed.
    """
    if name == "mlflow":
        return MlflowTracker()
    if name == "wandb":
        return WandbTracker()
    raise InputError(f"no tracker {name!r:.80}: choose mlflow or wandb")


class _Steps:
    """Sends events on, and figures of their progress to the tracker."""

    def __init__(self, tracker: Tracker, folder: Path, keep_in: Path, on_event: OnEvent) -> None:
        self._tracker = tracker
        self._folder = folder
        self._keep_in = keep_in
        self._begun = False
        self._on_event = on_event
        self._sent: dict[str, float] = {}
        self._broken = False

    def __call__(self, event: Event) -> None:
        self._on_event(event)
        if self._broken or not isinstance(event, Progress):
            return
        now = time.monotonic()
        if event.done < event.total and now - self._sent.get(event.task, -PERIOD) < PERIOD:
            return
        self._sent[event.task] = now
        task = metric_name(event.task)
        values: dict[str, float] = {
            f"live.{task}.done": event.done,
            f"live.{task}.share": event.done / max(1, event.total),
        }
        if event.usage is not None:
            facts = event.usage.model_dump(include={"calls", "cache_hits", "tokens_in", "tokens_out", "usd"})
            values |= {f"live.{name}": value for name, value in facts.items() if value is not None}
        try:
            if not self._begun:  # not earlier: most runs have the identity of their manifest by then
                self._begun = True
                self._tracker.begin(self._folder.resolve().name, claim_identity(self._folder, self._keep_in))
            self._tracker.step(values, event.done)
        except Exception as error:  # paid work does not end because nobody can look at it
            self._broken = True
            self._on_event(Note(f"warning: the tracker takes no more figures: {one_line(error)}"))


@contextmanager
def tracked(name: str | None, folder: Path, on_event: OnEvent, keep_in: Path | None = None) -> Iterator[OnEvent]:
    """Events for work whose results go into a folder; None for no tracker.

    At the end of the block, also after an interruption, the record of what the folder holds is written. All sessions,
    and later exports of the folder, are one run of the tracker.

    Args:
        keep_in: Folder that keeps the run's identity until there is a manifest; None for `folder`.

    Raises:
        InputError: if there is no such tracker.
    """
    if name is None:
        yield on_event
        return
    tracker = tracker_of(name)
    failed = True
    try:
        yield _Steps(tracker, folder, keep_in or folder, on_event)
        failed = False
    finally:
        try:
            on_event(Note(f"written: {tracker.write(tracked_record(folder), failed)}"))
        except Exception as error:  # of the tracker: the results are in the folder
            on_event(Note(f"warning: not written to {name}: {one_line(error)}; try `mllm3rec export {name} {folder}`"))
            with suppress(Exception):
                tracker.give_up()
