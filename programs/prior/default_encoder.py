"""The chosen sentence encoder: one setting, `--encoder` or MLLM3REC_ENCODER, for everything that reads item texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from programs.lm.deadline import wait_in_time
from programs.lm.endpoints import is_server, model_name
from programs.lm.ledger import Ledger
from programs.lm.pending import PendingCall
from programs.lm.roles import RoleConfig
from programs.prior.embedding_store import EmbeddingStore, store_path
from programs.prior.encoders import ConcatenatedEncoder, Encoder, HashingEncoder, Vectors
from programs.prior.onnx_encoder import EncoderFiles, MiniLMEncoder, OnnxEncoder
from programs.prior.served_encoder import ServedEncoder
from programs.runtime.environment import Environment, environment, using, variable
from programs.runtime.errors import InputError, quoted
from programs.runtime.events import OnEvent, Progress, ignore
from programs.runtime.weights import locate

ENCODER_VARIABLE = variable("encoder")

OPENAI = "openai/text-embedding-3-small"
"""The model of the setting `openai`."""

_NAMED = ("minilm", "openai", "hashing")
_AND = "+"
_QUIET_BELOW = 100
"""Fewer texts than this send no progress events: they take a second or two."""


@contextmanager
def use_encoder(setting: str | None) -> Iterator[None]:
    """Use another encoder inside the block, in all threads; None leaves it as it is.

    Raises:
        InputError: if the setting names no encoder.
    """
    if setting is None:
        yield
        return
    with using("encoder", setting):
        encoder_name()
        yield


def encoder_name() -> str:
    """What the chosen encoder computes: its name, or the hash of its files, so that a folder may move.

    Raises:
        InputError: if the setting names no encoder, or files are missing.
    """
    return _AND.join(_identity(part) for part in _parts())


def encoder_setting() -> dict[str, str]:
    """The encoder for a run's manifest: rows of two encoders must not be mixed.

    Empty for the default one, so that runs from before there was a choice can be resumed.
    """
    name = encoder_name()
    return {} if name == Environment.model_fields["encoder"].default else {"encoder": name}


def default_encoder(on_event: OnEvent = ignore, ledger: Ledger | None = None) -> Encoder:
    """The chosen encoder; embeddings that take time or money are kept on disk.

    Args:
        on_event: Receives the progress of texts that have to be embedded.
        ledger: Records the calls of an encoder behind a server.

    Raises:
        InputError: if the setting names no encoder, or its weights or its key are missing.
    """
    encoders = [_encoder(part, on_event, ledger) for part in _parts()]
    return encoders[0] if len(encoders) == 1 else ConcatenatedEncoder(encoders)


def stored_encoder() -> Encoder:
    """The chosen encoder where nothing may be sent: what a model would compute comes from the store, or not at all.

    Its `encode` raises `PendingCall` for a text whose vector is not stored. Encoders in this process compute as usual.

    Raises:
        InputError: if the setting names no encoder, or its weights are missing.
    """
    encoders = [_encoder(part, ignore, None, may_send=False) for part in _parts()]
    return encoders[0] if len(encoders) == 1 else ConcatenatedEncoder(encoders)


def _parts() -> list[str]:
    return environment().encoder.split(_AND)


def _is_model(part: str) -> bool:
    return is_server(part) or part.startswith(("gguf:", "local/", "openai/"))


def _identity(part: str) -> str:
    if part in _NAMED:
        return part
    if _is_model(part):
        return model_name(RoleConfig(model=part))
    return EncoderFiles.of_folder(_folder(part)).identity


def _encoder(part: str, on_event: OnEvent, ledger: Ledger | None, may_send: bool = True) -> Encoder:
    if part == "hashing":
        return HashingEncoder()
    encoder: Encoder
    if part == "minilm":
        if locate("minilm") is None:
            raise InputError(
                "the weights of the sentence encoder are not on this machine: run `mllm3rec models fetch minilm`, "
                f"or set {ENCODER_VARIABLE}=hashing to compare words instead"
            )
        encoder = MiniLMEncoder()
    elif part == "openai" or _is_model(part):
        model = OPENAI if part == "openai" else part
        encoder = ServedEncoder(model, ledger, on_event=on_event) if may_send else _NotAsked(model)
    else:
        encoder = OnnxEncoder(EncoderFiles.of_folder(_folder(part)))
    return _ReportingEncoder(_stored(encoder, on_event), on_event)


def _stored(encoder: Encoder, on_event: OnEvent) -> EmbeddingStore:
    if not isinstance(encoder, ServedEncoder):
        return EmbeddingStore(store_path(), encoder, on_event=on_event)
    # Every answer is stored before the next question is sent: it may have been paid for.
    wait = partial(wait_in_time, encoder.ledger)
    return EmbeddingStore(store_path(), encoder, encoder.batch, on_event, wait, patience=2 * encoder.config.timeout)


def _folder(part: str) -> Path:
    folder = Path(part).expanduser()
    if not part or not folder.is_dir():
        raise InputError(
            f"{ENCODER_VARIABLE} is {quoted(environment().encoder)}: {quoted(part)} is no folder and no name; give "
            "'minilm', 'openai' or 'hashing', the folder of an ONNX encoder, gguf:FILE, openai/NAME, "
            f"http://host:port/v1#NAME, or several joined by {_AND} (docs/models.md)"
        )
    return folder


class _NotAsked:
    """In place of a model's encoder: it has the model's name in the store, and computes nothing."""

    def __init__(self, model: str) -> None:
        self.name = model_name(RoleConfig(model=model))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `programs.prior.encoders.Encoder`; raises `PendingCall`."""
        raise PendingCall


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
