"""Sentence encoders in ONNX: all-MiniLM-L6-v2, and any folder with a network and its tokenizer, on onnxruntime."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from programs.prior.encoders import OnProgress, Vectors, clean_text, normalised
from programs.runtime import weights
from programs.runtime.config_file import read_json
from programs.runtime.environment import cpu_threads
from programs.runtime.errors import InputError, quoted, require_extra

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
LENGTH, POOLING, STEPS = "sentence_bert_config.json", "1_Pooling/config.json", "modules.json"
"""Files of a folder in the form of sentence-transformers: the most tokens, the pooling, the steps of the encoder."""

_MAX_TOKENS = 128
_STEPS = ("Transformer", "Pooling", "Normalize")
_REMEDY = "give the folder of a sentence encoder, see docs/models.md"


@dataclass(frozen=True)
class EncoderFiles:
    """The files of an encoder, and how its states become a vector.

    Attributes:
        model: The network, from `input_ids` and `attention_mask` to the last hidden states.
        max_tokens: Texts are cut there.
        pooling: Mean of the states of a text, or the state of its first token.
    """

    model: Path
    tokenizer: Path
    max_tokens: int = _MAX_TOKENS
    pooling: Literal["mean", "cls"] = "mean"

    @classmethod
    def of_folder(cls, folder: Path) -> EncoderFiles:
        """The files of a folder: `model.onnx` there or in its folder `onnx`, and `tokenizer.json`.

        The configuration of sentence-transformers is read where it is there; without it texts are cut at 128 tokens
        and their states are averaged.

        Raises:
            InputError: naming the file that is missing, or that says something this encoder cannot do.
        """
        model = next((path for path in (folder / MODEL, folder / "onnx" / MODEL) if path.is_file()), None)
        if model is None or not (folder / TOKENIZER).is_file():
            raise InputError(f"{folder}: has no {TOKENIZER if model else MODEL}; {_REMEDY}")
        steps = read_json(folder / STEPS, list[_Step], _REMEDY) if (folder / STEPS).is_file() else []
        for step in steps:
            if step.kind not in _STEPS:
                raise InputError(f"{folder / STEPS}: the step {quoted(step.kind)} is not one of {', '.join(_STEPS)}")
        length = read_json(folder / LENGTH, _Length, _REMEDY) if (folder / LENGTH).is_file() else _Length()
        pooling = read_json(folder / POOLING, _Pooling, _REMEDY) if (folder / POOLING).is_file() else _Pooling()
        return cls(model, folder / TOKENIZER, length.max_seq_length, pooling.kind(folder / POOLING))

    @property
    def identity(self) -> str:
        """A name for what the encoder computes, by the content of its files: the same wherever the folder lies."""
        # A network above 2 GB keeps its weights in files beside it.
        parts = [self.model, *sorted(self.model.parent.glob(f"{self.model.name}?data*")), self.tokenizer]
        facts = [*(weights.sha256_of(path) for path in parts), str(self.max_tokens), self.pooling]
        return f"onnx-{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:16]}"


class _Step(BaseModel):
    """An entry of `modules.json`."""

    type: str

    @property
    def kind(self) -> str:
        return self.type.rpartition(".")[2]


class _Length(BaseModel):
    """`sentence_bert_config.json`."""

    max_seq_length: int = Field(default=_MAX_TOKENS, ge=8, le=8192)


class _Pooling(BaseModel):
    """`1_Pooling/config.json`."""

    pooling_mode_mean_tokens: bool = False
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False

    def kind(self, path: Path) -> Literal["mean", "cls"]:
        chosen = [name for name, value in self.model_dump().items() if value]
        if chosen in ([], ["pooling_mode_mean_tokens"]):
            return "mean"
        if chosen == ["pooling_mode_cls_token"]:
            return "cls"
        raise InputError(f"{path}: {', '.join(chosen)}: only the mean of the tokens or the first token can be used")


class OnnxEncoder:
    """A sentence encoder on onnxruntime. Thread-safe.

    A text's vector does not depend on its neighbours in a batch beyond float32 rounding.

    Args:
        files: The network, its tokenizer and its pooling.
        name: See `Encoder.name`; by default the identity of the files.
        batch: Texts per call of the network.

    Raises:
        MissingExtraError: onnxruntime or tokenizers is not installed.
        InputError: the files cannot be loaded, or the network is no sentence encoder.
    """

    def __init__(self, files: EncoderFiles, name: str | None = None, batch: int = 32) -> None:
        purpose = "embedding texts on this machine"
        onnxruntime, tokenizers = (require_extra(name, "local", purpose) for name in ("onnxruntime", "tokenizers"))
        self.files = files
        self.name = files.identity if name is None else name
        self.batch = batch
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        # Threads that spin after their work take the cores from the language model beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(files.tokenizer))
            self._session = onnxruntime.InferenceSession(str(files.model), options, providers=["CPUExecutionProvider"])
        # Both libraries raise exceptions of their own kinds.
        except Exception as error:
            raise InputError(f"{files.model.parent}: cannot be loaded as an encoder ({error}); {_REMEDY}") from error
        self._pad = (self._tokenizer.padding or {}).get("pad_id", 0)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(files.max_tokens)
        self._inputs = {given.name for given in self._session.get_inputs()}
        states = [output.name for output in self._session.get_outputs() if len(output.shape) == 3]
        if not {"input_ids", "attention_mask"} <= self._inputs <= {*_INPUTS} or not states:
            raise InputError(
                f"{files.model}: has the inputs {', '.join(sorted(self._inputs))}; an encoder has {', '.join(_INPUTS)} "
                "and gives the states of all tokens"
            )
        self._states = states[0]

    def encode(self, texts: Sequence[str], progress: OnProgress | None = None) -> Vectors:
        """Encode n texts as an (n, d) array; see `Encoder.encode`."""
        tokens = [
            np.asarray(e.ids, dtype=np.int64) for e in self._tokenizer.encode_batch([clean_text(t) for t in texts])
        ]
        # Texts of like length share a batch: padding is computed like text.
        by_length = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        pooled: list[Vectors] = []
        for start in range(0, len(tokens), self.batch):
            rows = by_length[start : start + self.batch]
            pooled.append(self._pooled([tokens[i] for i in rows]))
            if progress is not None:
                progress(start + len(rows), len(tokens))
        if not pooled:
            return np.zeros((0, 0), dtype=np.float32)
        vectors = np.concatenate(pooled)
        ordered = np.empty_like(vectors)
        ordered[by_length] = vectors
        return normalised(ordered)

    def _pooled(self, tokens: Sequence[NDArray[np.int64]]) -> Vectors:
        ids = np.full((len(tokens), max(map(len, tokens))), self._pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run([self._states], {name: feed[name] for name in self._inputs})
        pooled: Vectors = (
            states[:, 0]
            if self.files.pooling == "cls"
            else (states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        )
        return pooled


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class MiniLMEncoder(OnnxEncoder):
    """all-MiniLM-L6-v2 (int8 weights): d = 384, mean pooling, texts cut at 128 tokens.

    Args:
        batch: See `OnnxEncoder`.

    Raises:
        MissingExtraError: onnxruntime or tokenizers is not installed.
        InputError: the weights are not there.
    """

    def __init__(self, batch: int = 32) -> None:
        for name in ("onnxruntime", "tokenizers"):
            require_extra(name, "local", "embedding texts on this machine")
        found = weights.locate("minilm")
        if found is None:
            raise InputError(
                f"the MiniLM weights are not in {weights.folder('minilm')}: "
                "download them once with programs.runtime.weights.fetch('minilm')"
            )
        super().__init__(EncoderFiles(found[MODEL], found[TOKENIZER]), "minilm-l6-v2-int8", batch)
