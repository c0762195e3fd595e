"""Base class of baselines that are trained networks: the device is part of what decides a fit."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.networks.fit_plan import FitPlan
from programs.runtime.device import best_device, device_name
from programs.runtime.errors import require_extra


def require_divisible(dimensions: int, heads: int) -> None:
    """Check the shape of a Transformer.

    Raises:
        ValueError: if the heads do not divide the dimensions.
    """
    if dimensions % heads:
        raise ValueError(f"{dimensions} dimensions cannot be divided by {heads} heads")


class NetworkBaseline(Baseline):
    """Settings of a network, trained in float32 on a graphics processor where there is one.

    On a CPU a fit runs on one thread of torch. A graphics processor sums in another order, so its fits are others: the
    manifest and the folder of the fit name it.
    """

    if TYPE_CHECKING:  # fields of every subclass, which keeps its own order of fields
        epochs: int
        patience: int

    def environment(self) -> dict[str, str]:
        """See `Baseline.environment`; empty on a CPU."""
        found = self.hardware()
        return {} if found["device"] == "cpu" else found

    def hardware(self) -> dict[str, str]:
        """See `Baseline.hardware`."""
        if find_spec("torch") is None:
            return {"device": "cpu"}  # `fit` says which extra is missing
        return {"device": device_name(best_device()), "dtype": "float32"}

    def require_torch(self) -> None:
        """Raise `MissingExtraError` if the extra `neural` is not installed."""
        for package in ("torch", "safetensors"):
            require_extra(package, "neural", f"the ranker '{self.name}'")

    def plan(self, training: TrainingData, seed: int, fitting: Fitting) -> FitPlan:
        """The plan of a fit; see `Baseline.fit`."""
        folder = self.fit_folder(training, seed, fitting)
        return FitPlan(f"fitting {self.name}", self.epochs, self.patience, seed, folder, fitting.on_event)

    def plan_beside(self, other: FitPlan, part: str) -> FitPlan:
        """The plan of a fit that another fit needs first: with the same seed, kept in a folder beside the other's.

        Args:
            part: What it is to the other fit; ends the name of its folder.
        """
        return replace(other.suffixed(part), task=f"fitting {self.name}", epochs=self.epochs, patience=self.patience)
