"""How one network is fitted: seed, number of epochs, where the fit is kept, and who is told about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from programs.runtime.events import OnEvent, ignore


@dataclass(frozen=True)
class FitPlan:
    """One fit of one network, see `train_epochs`; made by `NetworkBaseline.plan`.

    Attributes:
        task: Name of the fit in events.
        epochs: Most epochs.
        patience: Epochs without a better dev score before training stops.
        seed: Decides initial values, sampling and order.
        folder: Folder of this fit and no other; None keeps nothing.
        on_event: Told about progress and loss.
    """

    task: str
    epochs: int
    patience: int
    seed: int
    folder: Path | None = None
    on_event: OnEvent = ignore

    def suffixed(self, suffix: str) -> FitPlan:
        """The same plan, with `-suffix` after the name of its folder."""
        return replace(self, folder=self.folder and self.folder.with_name(f"{self.folder.name}-{suffix}"))
