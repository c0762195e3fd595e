"""The default sentence encoder, chosen by MLLM3REC_ENCODER (`minilm` unless set)."""

from __future__ import annotations

from collections.abc import Sequence

from programs.prior.embedding_store import EmbeddingStore, store_path
from programs.prior.encoders import Encoder, HashingEncoder, MiniLMEncoder, OpenAIEncoder, Vectors
from programs.runtime.environment import Environment, environment, variable
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, Progress, ignore
from programs.runtime.weights import locate

ENCODER_VARIABLE = variable("encoder")

_QUIET_BELOW = 100
"""Fewer texts than this send no progress events: they take a second or two."""


def encoder_name() -> str:
    """Name of the chosen encoder.

    Raises:
        InputError: if MLLM3REC_ENCODER names no encoder.
    """
    return environment().encoder


def encoder_setting() -> dict[str, str]:
    """The encoder for a run's manifest: rows of two encoders must not be mixed.

    Empty for the default one, so that runs from before there was a choice can be resumed.
    """
    kind = encoder_name()
    return {} if kind == Environment.model_fields["encoder"].default else {"encoder": kind}


def default_encoder(on_event: OnEvent = ignore) -> Encoder:
    """The chosen encoder; embeddings that take time or money are kept on disk.

    Args:
        on_event: Receives the progress of texts that have to be embedded.

    Raises:
        InputError: if its weights or its key are missing.
    """
    kind = encoder_name()
    if kind == "hashing":
        return HashingEncoder()
    if kind == "openai":
        return _ReportingEncoder(EmbeddingStore(store_path(), OpenAIEncoder(), on_event=on_event), on_event)
    if locate("minilm") is None:
        raise InputError(
            "the weights of the sentence encoder are not on this machine: run `mllm3rec models fetch minilm`, "
            f"or set {ENCODER_VARIABLE}=hashing to compare words instead"
        )
    return _ReportingEncoder(EmbeddingStore(store_path(), MiniLMEncoder(), on_event=on_event), on_event)


class _ReportingEncoder:
    """An embedding store that sends its progress as events."""

    def __init__(self, store: EmbeddingStore, on_event: OnEvent) -> None:
        self._store = store
        self._on_event = on_event

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self._store.name

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `programs.prior.encoders.Encoder`."""
        if len(texts) < _QUIET_BELOW:
            return self._store.encode(texts)
        return self._store.encode(
            texts, progress=lambda done, total: self._on_event(Progress("embedding item texts, once", done, total))
        )
