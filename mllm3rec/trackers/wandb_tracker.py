"""Weights & Biases: records as runs, a study as a group; offline, without an account, unless WANDB_MODE is `online`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm3rec.trackers.tracked_record import TrackedRecord
from programs.runtime.errors import require_extra


class WandbTracker:
    """Writes runs of one project. Offline runs lie in a folder; `wandb sync` sends them.

    Args:
        folder: Where the folder `wandb` is made.
        project: Its name.

    Raises:
        MissingExtraError: without the extra `wandb`.
    """

    def __init__(self, folder: Path = Path(), project: str = "mllm3rec") -> None:
        self._wandb: Any = require_extra("wandb", "wandb", "Weights & Biases")
        self._folder = folder
        self._project = project
        self._live: Any = None

    def begin(self, name: str, identity: str) -> None:
        """See `MlflowTracker.begin`."""
        self._live = self._opened(name, identity)

    def step(self, values: Mapping[str, float], step: int) -> None:
        """See `MlflowTracker.step`."""
        self._live.log(dict(values))

    def write(self, record: TrackedRecord, failed: bool = False) -> str:
        """See `MlflowTracker.write`."""
        where = self._written(record, self._live, failed=failed)
        self._live = None
        for child in record.children:
            self._written(child, group=record.name)
        return where

    def give_up(self) -> None:
        """See `MlflowTracker.give_up`."""
        if self._live is not None:
            self._live.finish(exit_code=1)

    def _opened(self, name: str, identity: str, group: str | None = None) -> Any:
        return self._wandb.init(
            project=self._project,
            name=name,
            id=hashlib.sha256(identity.encode()).hexdigest()[:16],
            group=group,
            dir=self._folder,
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            # Neither the source nor the terminal of this machine belongs to the record.
            settings=self._wandb.Settings(console="off", disable_code=True, disable_git=True, silent=True),
        )

    def _written(self, record: TrackedRecord, run: Any = None, group: str | None = None, failed: bool = False) -> str:
        run = run or self._opened(record.name, record.identity, group)
        run.config.update({"kind": record.kind, **record.params}, allow_val_change=True)
        run.summary.update(dict(record.metrics))
        if record.prompts:
            rows = [list(one) for one in record.prompts.items()]
            run.log({"prompts": self._wandb.Table(columns=["predictor", "prompt"], data=rows)})
        if record.report is not None:
            run.log({"report": self._wandb.Html(record.report.read_text("utf-8"), inject=False)})
        if record.files:
            kept = self._wandb.Artifact(f"{record.kind}-{run.id}", type=record.kind)
            for path in record.files:
                kept.add_file(str(path))
            run.log_artifact(kept)
        where = str(Path(run.dir).parent)
        run.finish(exit_code=int(failed))
        return where
