"""A random Llama of two layers in Hugging Face form, with a tokenizer of a few words; needs the extra `finetune`."""

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
    """Write the model to a folder."""
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
