"""Where torch computes: the graphics processor if there is one, otherwise the CPU; torch is imported on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> torch.device:
    """The graphics processor if there is one that torch can use, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """A device in manifests: of a graphics processor the card's own name, as each kind rounds in its own way."""
    import torch

    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type
