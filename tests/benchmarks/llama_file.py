"""The starter as one GGUF file, in the form that llama.cpp reads, for the comparison with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray
from safetensors.torch import load_file

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}
SPLITTING = "smollm"
"""llama.cpp's name for how this vocabulary cuts a text before it merges."""

END_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

Config = dict[str, Any]
Weights = NDArray[np.float32]


def llama_file(starter: Path, kind: str, data: Path) -> Path:
    """The file in the benchmarks' data folder, made on first use. `kind`: a key of FILE_TYPES."""
    file = data / "gguf" / f"{starter.name}-{kind}.gguf"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        write_llama_file(starter, kind, unfinished)
        unfinished.rename(file)
    return file


def write_llama_file(starter: Path, kind: str, file: Path) -> None:
    """Write the Llama model in the folder `starter`; its norms stay in 32 bits."""
    config: Config = read_json(starter / "config.json")
    writer = GGUFWriter(file, "llama")
    writer.add_file_type(FILE_TYPES[kind])
    add_shape(writer, config)
    add_tokenizer(writer, read_json(starter / "tokenizer.json"), config)
    for name, weights in llama_tensors(starter, config):
        stored = GGMLQuantizationType[kind if weights.ndim > 1 else "F32"]
        writer.add_tensor(name, quantize(weights, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_shape(writer: GGUFWriter, config: Config) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(writer: GGUFWriter, tokenizer: Config, config: Config) -> None:
    """A byte-level vocabulary with its merges, as `tokenizer.json` has them."""
    control = {token["id"] for token in tokenizer["added_tokens"]}
    by_id = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    by_id |= {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLITTING)
    writer.add_token_list([by_id[number] for number in range(config["vocab_size"])])
    kinds = [TokenType.NORMAL, TokenType.CONTROL]
    writer.add_token_types([kinds[number in control] for number in range(config["vocab_size"])])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


def llama_tensors(starter: Path, config: Config) -> Iterator[tuple[str, Weights]]:
    """The model's weights in 32 bits under llama.cpp's names."""
    for shard in sorted(starter.glob("*.safetensors")):
        for name, tensor in sorted(load_file(shard).items()):
            weights: Weights = tensor.float().numpy()
            ours = llama_name(name.removesuffix(".weight"))
            if ours.endswith("attn_q"):
                weights = in_pairs(weights, config["num_attention_heads"])
            elif ours.endswith("attn_k"):
                weights = in_pairs(weights, config["num_key_value_heads"])
            yield f"{ours}.weight", weights


def llama_name(name: str) -> str:
    """llama.cpp's name of a module: `model.layers.3.mlp.up_proj` is `blk.3.ffn_up`."""
    if name in END_NAMES:
        return END_NAMES[name]
    _, _, block, module = name.split(".", 3)
    return f"blk.{block}.{BLOCK_NAMES[module]}"


def in_pairs(weights: Weights, heads: int) -> Weights:
    """Rows of queries or keys in llama.cpp's order.

    transformers turns a head's row n together with row n + half, llama.cpp turns neighbours.
    """
    rows, width = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, width)
    return halves.swapaxes(1, 2).reshape(rows, width)


def read_json(file: Path) -> Config:
    content: Config = json.loads(file.read_text(encoding="utf-8"))
    return content
