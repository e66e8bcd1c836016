"""Tiny random models of every family, saved as model folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

PLAIN = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 128}
SHARED = {**PLAIN, "intermediate_size": 96, "num_key_value_heads": 2}

FAMILIES: Mapping[str, Callable[[], PretrainedConfig]] = {
    "bloom": lambda: BloomConfig(**PLAIN),
    "llama": lambda: LlamaConfig(**SHARED),
    "falcon": lambda: FalconConfig(**PLAIN),
    "falcon-new": lambda: FalconConfig(**PLAIN, num_kv_heads=2, new_decoder_architecture=True),
    "falcon-alibi": lambda: FalconConfig(**PLAIN, alibi=True),
    "mixtral": lambda: MixtralConfig(**SHARED, num_local_experts=4, sliding_window=8),
    "qwen2": lambda: Qwen2Config(**SHARED),
    "qwen3": lambda: Qwen3Config(**SHARED, head_dim=16),
    "gemma3": lambda: Gemma3TextConfig(
        **{**SHARED, "num_hidden_layers": 7}, head_dim=16, sliding_window=8
    ),
    "gpt-oss": lambda: GptOssConfig(
        **{**SHARED, "intermediate_size": 64}, head_dim=16, num_local_experts=4, sliding_window=8
    ),
    "gpt-neox": lambda: GPTNeoXConfig(**PLAIN, intermediate_size=96),
    "opt": lambda: OPTConfig(
        **PLAIN, ffn_dim=96, word_embed_proj_dim=64, max_position_embeddings=128
    ),
}


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PreTrainedModel]:
    """`tiny_model(family)`: a random model, the same for every test; its folder is `.name_or_path`.

    Norms and biases are not the ones and zeros they start as, so that none can be forgotten.
    """
    made: dict[str, PreTrainedModel] = {}

    def make(name: str) -> PreTrainedModel:
        if name not in made:
            torch.manual_seed(7)
            model = AutoModelForCausalLM.from_config(FAMILIES[name](), dtype=torch.float32).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    spread = 0.1 if parameter.ndim == 1 else 0.05
                    parameter.add_(torch.randn_like(parameter) * spread)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder, max_shard_size="100KB")
            model.name_or_path = str(folder)
            made[name] = model
        return made[name]

    return make


@pytest.fixture(scope="session")
def llama_folder(tiny_model: Callable[[str], PreTrainedModel]) -> Path:
    """The folder of the tiny llama: 4 blocks, hidden size 64."""
    return Path(tiny_model("llama").name_or_path)
