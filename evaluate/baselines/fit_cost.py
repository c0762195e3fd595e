"""Cost of a fit: CPU time, and the largest resident memory of the process."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import psutil
from pydantic import BaseModel, ConfigDict, Field

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.fitting import Fitting
from programs.prior.default_encoder import encoder_name
from programs.ranker import Ranker
from programs.runtime.atomic import write_atomically
from programs.runtime.config_file import read_json
from programs.runtime.events import Event, KeptFit, OnEvent

Fitted = TypeVar("Fitted")

_PERIOD = 0.05
"""Seconds between two looks at the memory."""

_MIB = 1 << 20


class FitCost(BaseModel):
    """What a fit took of the machine.

    Attributes:
        cpu_seconds: Of all threads of the process.
        peak_mib: Largest resident memory of the process during the fit, in MiB; dataset and encoder are part of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_seconds: float = Field(ge=0, allow_inf_nan=False)
    peak_mib: float = Field(ge=0, allow_inf_nan=False)


def fit_and_measure(
    settings: Baseline, training: TrainingData, seed: int, fitting: Fitting
) -> tuple[Ranker, FitCost | None]:
    """Fit a baseline, and measure what that takes.

    Returns:
        The ranker, and the cost. That of a kept fit was measured when it was made, also where it is a part of another
        fit. It is None if a fit was stopped and went on, or is older than this measurement.

    Raises:
        InputError, MissingExtraError: see `Baseline.fit`.
    """

    def fit(on_event: OnEvent) -> Ranker:
        return settings.fit(training, seed, replace(fitting, on_event=on_event))

    return measured(fit, settings.fit_folder(training, seed, fitting), fitting.on_event)


def measured(fit: Callable[[OnEvent], Fitted], folder: Path | None, on_event: OnEvent) -> tuple[Fitted, FitCost | None]:
    """Make a fit, or find it, and measure what making it takes; so the parts of a fit have costs of their own, too.

    Args:
        fit: Makes the fit; tells of kept ones by `KeptFit`.
        folder: Where it is kept; its cost is kept beside it. None if fits are not kept.
        on_event: Told all that `fit` tells.

    Returns:
        As `fit_and_measure`.
    """
    kept: list[Path] = []

    def told(event: Event) -> None:
        if isinstance(event, KeptFit):
            kept.append(event.folder)
        on_event(event)

    before = time.process_time()
    with _MemoryWatch() as memory:
        fitted = fit(told)
    spent = FitCost(cpu_seconds=time.process_time() - before, peak_mib=memory.peak / _MIB)
    if folder is None:
        return fitted, spent
    file = _cost_file(folder)
    if any(one.name.startswith(folder.name) for one in kept):
        return fitted, _read(file)
    parts = [_read(_cost_file(one)) for one in dict.fromkeys(kept)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return fitted, None
    cost = FitCost(
        cpu_seconds=sum(part.cpu_seconds for part in (spent, *known)),
        peak_mib=max(part.peak_mib for part in (spent, *known)),
    )
    if any(folder.parent.glob(f"{folder.name}*/")):
        save_fit_cost(cost, file)
    return fitted, cost


def save_fit_cost(cost: FitCost | None, path: Path) -> None:
    """Write the cost of a fit as JSON, if it is known."""
    if cost is not None:
        write_atomically(path, cost.model_dump_json().encode() + b"\n")


def _cost_file(folder: Path) -> Path:
    """Where the cost of a fit is kept; its name holds the sentence encoder in use, whose vectors some baselines fit."""
    encoder = hashlib.sha256(encoder_name().encode()).hexdigest()[:8]
    return folder.with_name(f"{folder.name}.cost-{encoder}.json")


def _read(file: Path) -> FitCost | None:
    return read_json(file, FitCost, "delete it") if file.exists() else None


class _MemoryWatch:
    """Watches the resident memory of this process in a thread.

    Attributes:
        peak: Largest value so far, in bytes.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = self._process.memory_info().rss

    def _watch(self) -> None:
        while not self._ended.wait(_PERIOD):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __enter__(self) -> _MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
