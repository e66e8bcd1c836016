"""A tiny random model in a folder, as the servers of tests hold it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

MODEL = "tiny"
BLOCKS = 4


def write_tiny_model(folder: Path) -> Path:
    """A Llama of 4 blocks, its weights the same every time. Gives the folder."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
