"""A random model of the size that a computer without a GPU may well hold, in the starter's place.

It has the shape of Llama 3.2 1B and the starter's vocabulary. What it writes means nothing, but a
token costs what it costs in such a model: the weights weigh more than what is done around them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.frame import say, superbloom
from tests.benchmarks.starter import FETCH_SECONDS, MODEL

SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
TEXT_FILES = ("*.jinja", "generation_config.json", "tokenizer*.json")


def large_data(starter: Path, data: Path) -> Path:
    """A data folder beside the benchmarks' own, whose starter is the large model."""
    folder = data / "large"
    if not (folder / "models" / MODEL / "superbloom.json").exists():
        say(f"making a large model in {folder}")
        with tempfile.TemporaryDirectory() as scratch:
            write_model(starter, Path(scratch))
            words = ("model", "import", scratch, "--id", MODEL, "--data-dir", str(folder))
            subprocess.run(superbloom(*words), check=True, timeout=FETCH_SECONDS)
    return folder


def write_model(starter: Path, folder: Path) -> None:
    """Random weights, and around them what the starter has."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    for pattern in TEXT_FILES:
        for file in starter.glob(pattern):
            shutil.copy(file, folder)
    config = json.loads((starter / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(**{**config, **SHAPE}), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
