"""Cost of a fit: CPU time, and the largest resident memory of the process."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.fitting import Fitting
from programs.prior.default_encoder import encoder_name
from programs.ranker import Ranker
from programs.runtime.atomic import write_atomically
from programs.runtime.config_file import read_json

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
        The ranker, and the cost. That of a kept fit was measured when it was made; it is None if the fit was stopped
        and went on, or is older than this measurement.

    Raises:
        InputError, MissingExtraError: see `Baseline.fit`.
    """
    folder = settings.fit_folder(training, seed, fitting)
    file = None if folder is None else folder.with_name(f"{folder.name}.cost-{_encoder_digits()}.json")
    begun = _folders(folder)
    if file is not None and file.exists():
        if begun:
            return settings.fit(training, seed, fitting), read_json(file, FitCost, "delete it")
        file.unlink(missing_ok=True)  # Somebody has deleted the fit.
    before = time.process_time()
    with _MemoryWatch() as memory:
        ranker = settings.fit(training, seed, fitting)
    cost = FitCost(cpu_seconds=time.process_time() - before, peak_mib=memory.peak / _MIB)
    kept = _folders(folder)
    # With another sentence encoder a fit has a folder of its own beside that of the first.
    if begun and not kept - begun:
        return ranker, None
    if file is not None and kept:
        if file.exists():  # Another process has made the fit, and this one has waited for it.
            return ranker, read_json(file, FitCost, "delete it")
        save_fit_cost(cost, file)
    return ranker, cost


def save_fit_cost(cost: FitCost | None, path: Path) -> None:
    """Write the cost of a fit as JSON, if it is known."""
    if cost is not None:
        write_atomically(path, cost.model_dump_json().encode() + b"\n")


def _folders(folder: Path | None) -> set[Path]:
    """The folders of a fit: some baselines add to its name."""
    return set() if folder is None else {path for path in folder.parent.glob(f"{folder.name}*") if path.is_dir()}


def _encoder_digits() -> str:
    """Of the sentence encoder in use: some baselines fit its vectors."""
    return hashlib.sha256(encoder_name().encode()).hexdigest()[:8]


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
