"""Tensors and JSON in one safetensors file with a hash of the content, for checkpoints (needs torch)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from programs.runtime.errors import InputError


def packed_tensors(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """A safetensors file with JSON beside the tensors, and a hash of both."""
    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    said = json.dumps(about, sort_keys=True)
    return bytes(save(plain, metadata={"about": said, "sha256": _sha256(plain, said)}))


def read_packed(path: Path, damaged: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON of a file that `packed_tensors` made.

    Args:
        damaged: What is wrong with the file if it cannot be read, and what to do.

    Raises:
        InputError: if it cannot be read, or its content was changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise InputError(f"{damaged} ({error})") from error
    if metadata.get("sha256") != _sha256(tensors, metadata.get("about", "")):
        raise InputError(f"{damaged} (its hash is not that of its content)")
    return tensors, json.loads(metadata["about"])


def _sha256(tensors: Mapping[str, Tensor], about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        flat = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()
