"""A reader that scores candidates' texts for a user's text, loaded when it is first asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from programs.runtime.errors import InputError, require_extra
from programs.tuned.settings import TuningSettings

EXTRA = "finetune"
DEFAULT_BASE = "local/smollm2-135m"


class Reader(Protocol):
    """Scores candidates by their texts."""

    def logits(self, prefix: str, suffixes: Sequence[str]) -> NDArray[np.float64]:
        """A value for each suffix, higher where yes is a likelier answer than no; shape (k,)."""
        ...


class AdapterRecord(BaseModel):
    """What an adapter file belongs to, as artifacts record it.

    Attributes:
        base: Name of the base model, see `programs.tuned.backbone.load_backbone`.
        base_sha256: Identity of the base.
        settings: That the adapter was trained with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field(min_length=1, max_length=4096)
    base_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    settings: TuningSettings


class LazyReader:
    """A reader that is loaded once, by whichever thread asks first."""

    def __init__(self, load: Callable[[], Reader]) -> None:
        self._load, self._lock = load, threading.Lock()
        self._reader: Reader | None = None

    def logits(self, prefix: str, suffixes: Sequence[str]) -> NDArray[np.float64]:
        """See `Reader`."""
        with self._lock:
            if self._reader is None:
                self._reader = self._load()
        return self._reader.logits(prefix, suffixes)


def require_packages(purpose: str) -> None:
    """Check that the packages of the extra are there.

    Raises:
        MissingExtraError: naming the extra.
    """
    for module in ("torch", "transformers", "peft", "gguf", "safetensors"):
        require_extra(module, EXTRA, purpose)


def untuned_reader(base: str = DEFAULT_BASE) -> LazyReader:
    """The base model as it is, without training."""

    def load() -> Reader:
        require_packages("the program 'tuned'")
        from programs.tuned.backbone import load_backbone
        from programs.tuned.finetuned import FineTuned

        return FineTuned(load_backbone(base), TuningSettings(layers=1, rank=1))

    return LazyReader(load)


def tuned_reader(record: AdapterRecord, adapter: bytes, where: Path) -> LazyReader:
    """A base model with an adapter.

    Args:
        adapter: Content of a safetensors file; untrusted.
        where: Its path, for messages.
    """

    def load() -> Reader:
        require_packages("the program 'tuned'")
        from programs.tuned.backbone import load_backbone, sha256_of_base, source_of
        from programs.tuned.finetuned import FineTuned, read_tensors

        tensors = read_tensors(adapter, where)
        # The base's hash is checked before a byte of it is parsed: an artifact names the file.
        if sha256_of_base(source_of(record.base)) != record.base_sha256:
            raise InputError(
                f"{where}: was trained on another base than {record.base!r} holds now (sha256 differs); "
                "put the base of that hash there, or fine-tune again"
            )
        model = FineTuned(load_backbone(record.base), record.settings)
        model.load(tensors, where)
        return model

    return LazyReader(load)
