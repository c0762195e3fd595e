"""Random Llamas, in Hugging Face form and as a GGUF file, with tokenizers of a few words; need the extra `finetune`."""

from __future__ import annotations

from pathlib import Path

import pytest

NEEDED = ("torch", "transformers", "peft", "gguf", "safetensors")
"""Packages that train a language model."""
WORDS = ("red", "blue", "green", "ball", "cube", "car", "A", "shopper", "bought", "Would", "this", "buy", "next", "-")


def need_training() -> None:
    """Skip the test where the packages to train a language model are not installed."""
    for package in NEEDED:
        pytest.importorskip(package)


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a model of two layers to a folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "Yes", "No", "?", ":", ",", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_tiny_gguf(file: Path) -> Path:
    """Write a model of one layer to a GGUF file."""
    import numpy as np
    from gguf import GGUFWriter

    tokens, width, inner = ["<s>", "</s>", "a", "b", "ab"], 16, 32
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 1, 1, 1])  # 3: a control token, 1: a normal one
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    square = {f"attn_{part}": (width, width) for part in ("q", "k", "v", "output")}
    wide = {"ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner)}
    layer = square | wide | {"attn_norm": (width,), "ffn_norm": (width,)}
    shapes = {"token_embd": (len(tokens), width), "output_norm": (width,)}
    shapes |= {f"blk.0.{part}": shape for part, shape in layer.items()}
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
