"""ONNX export: a sentence encoder in Hugging Face form, written as the folder that `OnnxEncoder` reads."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

from programs.prior.onnx_encoder import LENGTH, MODEL, POOLING, STEPS, TOKENIZER
from programs.runtime.errors import InputError, require_extra

_EXAMPLES = ("a wooden train", "a train set of wood, with rails, wagons and a bridge")
"""Texts that the network is traced with, of two lengths: no length is taken for a constant."""

_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs of a network, and the attributes of an encoded text that hold them."""


def export(source: Path, target: Path) -> Path:
    """Export the network of a Hugging Face folder, and copy its tokenizer and its pooling beside it.

    The network ends with its last hidden states, as 32-bit numbers; `OnnxEncoder` pools them. Two exports of one folder
    by the same libraries are the same bytes, so that stored vectors stay valid.

    Args:
        source: A folder with `config.json`, `model.safetensors` and `tokenizer.json`.
        target: A folder that is empty or does not exist.

    Returns:
        The target.

    Raises:
        InputError: a file is missing, or the target holds something.
        MissingExtraError: torch, transformers or onnx is not installed.
    """
    for name in ("config.json", "model.safetensors", TOKENIZER):
        if not (source / name).is_file():
            raise InputError(f"{source}: has no {name}; give the folder of an encoder in Hugging Face form")
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target}: holds something already; choose an empty folder")
    torch, transformers, tokenizers, _, _ = (
        require_extra(name, "export", "exporting an encoder to ONNX")
        for name in ("torch", "transformers", "tokenizers", "onnx", "onnxscript")
    )
    # "eager" is plain arithmetic, which ONNX can express.
    network = transformers.AutoModel.from_pretrained(source, attn_implementation="eager", local_files_only=True)

    module: Any = torch.nn.Module

    class States(module):
        """The network without what it computes from its last states."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return self.network(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state

    tokenizer = tokenizers.Tokenizer.from_file(str(source / TOKENIZER))
    tokenizer.enable_padding()
    texts = tokenizer.encode_batch(list(_EXAMPLES))
    names = [name for name in _FIELDS if name in inspect.signature(network.forward).parameters]
    with torch.no_grad():
        program = torch.onnx.export(
            States().eval(),
            kwargs={name: torch.tensor([getattr(text, _FIELDS[name]) for text in texts]) for name in names},
            dynamic_shapes={name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in names},
            input_names=names,
            output_names=["last_hidden_state"],
            dynamo=True,
            verbose=False,
        )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # Stack traces, with paths of this machine.
    target.mkdir(parents=True, exist_ok=True)
    program.save(target / MODEL)
    for name in (TOKENIZER, LENGTH, POOLING, STEPS):
        if (source / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / name)
    return target
