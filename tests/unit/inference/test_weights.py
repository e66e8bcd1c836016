from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from superbloom.domain.errors import ModelDamaged
from superbloom.domain.span import Span
from superbloom.inference.weights import (
    INDEX_FILE,
    SINGLE_FILE,
    Checkpoint,
    block_of,
    fingerprint,
    read_config,
    shards_of_blocks,
    shards_of_ends,
    tensors_of_blocks,
    tensors_of_ends,
)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.12.self_attn.q_proj.weight", 12),
        ("transformer.h.3.mlp.dense_h_to_4h.weight", 3),
        ("h.0.input_layernorm.bias", 0),
        ("model.layers.7.block_sparse_moe.experts.5.w1.weight", 7),
        ("model.decoder.layers.1.fc1.weight", 1),
        ("model.embed_tokens.weight", None),
        ("lm_head.weight", None),
        ("model.vision_tower.vision_model.encoder.layers.4.mlp.fc1.weight", None),
        ("visual.blocks.2.attn.qkv.weight", None),
    ],
)
def test_a_name_tells_its_block(name: str, block: int | None) -> None:
    assert block_of(name) == block


def test_names_and_shards_of_a_span_and_of_the_ends() -> None:
    index = {
        "model.embed_tokens.weight": "1",
        "model.layers.0.a.weight": "1",
        "model.layers.1.a.weight": "2",
        "model.layers.2.a.weight": "3",
        "model.vision_tower.layers.0.a.weight": "4",
        "model.norm.weight": "3",
    }
    assert tensors_of_blocks(index, Span(1, 3)) == (
        "model.layers.1.a.weight",
        "model.layers.2.a.weight",
    )
    assert tensors_of_ends(index) == ("model.embed_tokens.weight", "model.norm.weight")
    assert shards_of_blocks(index, Span(1, 3)) == ("2", "3")
    assert shards_of_ends(index) == ("1", "3")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_a_tensor_is_read_as_it_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    written = (torch.randn(3, 5) * 10).to(dtype)
    save_file({"a": torch.zeros(7), "b": written, "c": torch.empty(0, 4)}, tmp_path / SINGLE_FILE)
    checkpoint = Checkpoint(tmp_path)
    assert set(checkpoint.names) == {"a", "b", "c"}
    assert torch.equal(checkpoint.tensor("b").read(), written)
    assert checkpoint.tensor("c").read().shape == (0, 4)


def header(content: object) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 5) + b"{nope",
        header([1, 2]),
        header({"a": entry()}) + b"1234",
        header({"a": entry(data_offsets=[8, 0])}) + bytes(8),
        header({"a": entry(shape=[2, 2])}) + bytes(8),
        header({"a": entry(dtype="PICKLE")}) + bytes(8),
        header({"a": {"dtype": "F32"}}) + bytes(8),
    ],
)
def test_a_broken_shard_is_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SINGLE_FILE).write_bytes(content)
    with pytest.raises(ModelDamaged):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_damage(tmp_path: Path, index: str) -> None:
    (tmp_path / INDEX_FILE).write_text(index)
    with pytest.raises(ModelDamaged):
        Checkpoint(tmp_path)


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "outside.safetensors")
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / INDEX_FILE).write_text('{"weight_map": {"a": "../outside.safetensors"}}')
    with pytest.raises(ModelDamaged, match="outside the folder"):
        Checkpoint(inside).tensor("a")


def test_a_shard_that_shrinks_after_its_header_was_read_is_damage(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(100)}, tmp_path / SINGLE_FILE)
    stored = Checkpoint(tmp_path).tensor("a")
    content = (tmp_path / SINGLE_FILE).read_bytes()
    (tmp_path / SINGLE_FILE).write_bytes(content[:-10])
    with pytest.raises(ModelDamaged, match="cut short"):
        stored.read()


def test_a_missing_or_broken_configuration_is_damage(tmp_path: Path) -> None:
    with pytest.raises(ModelDamaged, match="missing"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelDamaged, match="not a JSON object"):
        read_config(tmp_path)


def test_the_fingerprint_knows_the_shape_and_not_the_sharding(
    llama_folder: Path, tmp_path: Path
) -> None:
    whole = fingerprint(llama_folder)
    assert len(whole) == 16
    for name in ("config.json", INDEX_FILE):
        shutil.copy(llama_folder / name, tmp_path)
    assert fingerprint(tmp_path) == whole, "without a single shard here"
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    index["weight_map"] = {
        name.removeprefix("model."): "other.safetensors" for name in index["weight_map"]
    }
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    assert fingerprint(tmp_path) == whole, "sharded and prefixed otherwise"
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))
    assert fingerprint(tmp_path) != whole
