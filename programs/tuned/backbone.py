"""Base language model that is fine-tuned: a Hugging Face folder or a GGUF file, on a GPU where there is one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from programs.runtime import weights
from programs.runtime.atomic import write_atomically
from programs.runtime.device import best_device, device_name
from programs.runtime.environment import cache_dir
from programs.runtime.errors import InputError
from programs.runtime.lock import awaited

LOCAL = "local/"
"""Prefix of the models that `mllm3rec models fetch` gets."""

_UNPACKED = "dequantised"
"""Subfolder of the cache for weights of GGUF files: reading them there takes a second, dequantising half a minute."""

_TOKENIZER = "tokenizer.json"
"""The whole tokenizer in one file, which is read before all others of it."""

_IDENTITY = ("*.safetensors", "*.json")
"""Files of a folder that decide what a base computes: weights, configuration and the tokenizer in one file."""

_VOCABULARY = ("*.txt", "*.model")
"""Further ones where the tokenizer is not in one file: merges.txt, vocab.txt, tokenizer.model."""


@dataclass
class Backbone:
    """A base model in evaluation mode with its tokenizer.

    Attributes:
        name: As given: a folder, a GGUF file, or `local/NAME`.
        sha256: Of the GGUF file; of the names and hashes of a folder's files of weights, configuration and tokenizer.
    """

    name: str
    sha256: str
    model: Any
    tokenizer: Any
    device: torch.device

    @property
    def positions(self) -> int | None:
        """Most tokens of a text that the model was made for; None if its configuration does not say."""
        found: int | None = getattr(self.model.config, "max_position_embeddings", None)
        return found


def load_backbone(name: str, dtype: torch.dtype | None = None) -> Backbone:
    """Load a base model.

    Args:
        name: A Hugging Face folder with safetensors, a GGUF file, or `local/NAME`.
        dtype: Of the weights; None for the fastest one of this machine.

    Raises:
        InputError: if there is no such model, or it holds pickled weights only.
    """
    source = source_of(name)
    digest = sha256_of_base(source)
    device = best_device()
    dtype = dtype or fastest_dtype(device)
    folder, config = source, None
    if source.is_file():
        folder = _dequantised(source, digest)
        config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if config is None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    else:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        found = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        model.tie_weights()
        tied = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
        if found.unexpected_keys or set(found.missing_keys) - tied:
            raise InputError(f"{folder}: was written by another version of transformers; delete it")
    model.to(device).eval()  # not `to(dtype)`, which also rounds the frequencies of the positions
    model.requires_grad_(False)
    _check_form(name, model)
    return Backbone(name, digest, model, tokenizer, device)


def source_of(name: str) -> Path:
    """The folder or GGUF file of a model.

    Raises:
        InputError: if there is none.
    """
    if name.startswith(LOCAL):
        short = name.removeprefix(LOCAL)
        files = weights.locate(short)
        if files is None:
            raise InputError(f"{name} is not on this machine; run 'mllm3rec models fetch {short}'")
        return next(path for path in files.values() if path.suffix == ".gguf")
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return path
    if path.is_dir() and any(path.glob("*.safetensors")) and (path / "config.json").exists():
        return path
    raise InputError(
        f"base model {name!r}: give a GGUF file, a folder with config.json and *.safetensors, or local/NAME"
    )


def sha256_of_base(source: Path) -> str:
    """Identity of a base model: what its weights and tokenizer are, wherever it is stored."""
    if source.is_file():
        return weights.sha256_of(source)
    kinds = _IDENTITY if (source / _TOKENIZER).exists() else _IDENTITY + _VOCABULARY
    files = sorted(path for kind in kinds for path in source.glob(kind))
    listing = [[path.name, weights.sha256_of(path)] for path in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


@cache
def hardware_of(name: str) -> dict[str, str]:
    """Base model, device and number format that decide what a model computes, for manifests.

    Raises:
        InputError: if there is no such model.
    """
    device = best_device()
    dtype = str(fastest_dtype(device)).removeprefix("torch.")
    return {"base_sha256": sha256_of_base(source_of(name)), "device": device_name(device), "dtype": dtype}


@torch.no_grad()
def _check_form(name: str, model: Any) -> None:
    """Check that the output layer after the decoder is all of the model, which is how states are read here.

    Raises:
        InputError: if there is more, such as a factor or a cap on the logits.
    """
    ids = torch.arange(3, device=model.device)[None]
    states = getattr(model, model.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
    expected = model(input_ids=ids, use_cache=False).logits
    if not about_equal(model.get_output_embeddings()(states), expected):
        raise InputError(f"{name}: changes its logits after the output layer; choose a base of Llama's form")


def about_equal(values: Tensor, others: Tensor) -> bool:
    """Whether two results of the same arithmetic differ by rounding at most, in any number format."""
    return bool((values.float() - others.float()).norm() <= 0.05 * others.float().norm())


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU and on a CPU with bfloat16 instructions (AVX-512 BF16, AMX); float32 otherwise.

    A CPU without them multiplies bfloat16 matrices several times slower than float32 ones.
    """
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def _dequantised(source: Path, digest: str) -> Path:
    """The folder of a GGUF file's weights in float32; made where it is missing or was not finished.

    It is moved to its place when it is complete. Of two processes that need it, one waits for the other.
    """
    folder = cache_dir() / _UNPACKED / digest
    if not _is_whole(folder):
        with awaited(folder.parent, on_wait=lambda holder: None):
            if not _is_whole(folder):
                partial = folder.with_name(f"{digest}.partial")
                for left in (folder, partial):
                    shutil.rmtree(left, ignore_errors=True)
                _dequantise(source, partial)
                partial.rename(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether nothing is missing: older versions wrote into the folder itself, this file last."""
    return (folder / _TOKENIZER).exists()


def _dequantise(source: Path, folder: Path) -> None:
    """Write tokenizer, configuration and float32 weights of a GGUF file to a folder."""
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    tensors, seen = {}, set()
    for key, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # tied weights are stored once
            seen.add(tensor.data_ptr())
            tensors[key] = tensor.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    # `save` would hold a second copy in memory, and only the whole folder is moved to where it is found.
    save_file(tensors, folder / "model.safetensors")
    with (folder / "model.safetensors").open("rb") as file:
        os.fsync(file.fileno())
    config = {k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    write_atomically(folder / "config.json", json.dumps(config, default=str).encode())
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
