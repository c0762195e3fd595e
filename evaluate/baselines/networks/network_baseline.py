"""Base class of baselines that are trained networks: the device is part of what decides a fit."""

from __future__ import annotations

from importlib.util import find_spec

from evaluate.baselines.baseline import Baseline


class NetworkBaseline(Baseline):
    """Settings of a network, trained in float32 on a graphics processor where there is one.

    On a CPU a fit runs on one thread. A graphics processor sums in another order, so its fits are others: the manifest
    and the folder of the fit name it.
    """

    def environment(self) -> dict[str, str]:
        """See `Baseline.environment`; empty on a CPU."""
        if find_spec("torch") is None:
            return {}  # `fit` says which extra is missing
        import torch

        return {"device": torch.cuda.get_device_name(), "dtype": "float32"} if torch.cuda.is_available() else {}
