"""A tiny random model in a folder, as the servers of tests hold it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
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


def write_tiny_shards(folder: Path) -> Path:
    """The same model with a file for each block and one for the ends. Gives the folder."""
    write_tiny_model(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: _shard_of(name) for name in tensors}
    for shard in set(weight_map.values()):
        part = {name: tensors[name] for name, file in weight_map.items() if file == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _shard_of(name: str) -> str:
    parts = name.split(".")
    return f"b{parts[2]}.safetensors" if "layers" in parts else "ends.safetensors"
