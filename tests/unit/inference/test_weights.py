from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from superbloom.domain.errors import ModelDamaged
from superbloom.domain.span import Span
from superbloom.inference.weights import (
    FINGERPRINT_BYTES,
    FINGERPRINT_TENSORS,
    INDEX_FILE,
    SINGLE_FILE,
    Checkpoint,
    StoredTensor,
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
    index = json.loads((llama_folder / INDEX_FILE).read_text())
    ends = shards_of_ends(index["weight_map"])
    assert set(ends) < set(index["weight_map"].values())
    for name in ("config.json", INDEX_FILE, *ends):
        shutil.copy(llama_folder / name, tmp_path)
    assert fingerprint(tmp_path) == whole, "with the client's part alone here"
    checkpoint = Checkpoint(tmp_path)
    held = {
        name.removeprefix("model."): checkpoint.tensor(name).read()
        for name in tensors_of_ends(index["weight_map"])
    }
    save_file(held, tmp_path / "other.safetensors")
    index["weight_map"] = {
        name.removeprefix("model."): "other.safetensors" for name in index["weight_map"]
    }
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    for name in ends:
        (tmp_path / name).unlink()
    assert fingerprint(tmp_path) == whole, "sharded and prefixed otherwise"
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))
    assert fingerprint(tmp_path) != whole


def rewritten(folder: Path, target: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """The model in one file, changed by `change`."""
    checkpoint = Checkpoint(folder)
    tensors = {name: checkpoint.tensor(name).read() for name in checkpoint.names}
    change(tensors)
    target.mkdir()
    shutil.copy(folder / "config.json", target)
    save_file(tensors, target / SINGLE_FILE)
    return target


def test_the_fingerprint_knows_the_weights(llama_folder: Path, tmp_path: Path) -> None:
    def other_embeddings(tensors: dict[str, Tensor]) -> None:
        tensors["model.embed_tokens.weight"][3, 3] += 1

    def other_norm(tensors: dict[str, Tensor]) -> None:
        tensors["model.norm.weight"] *= 2

    def other_dtype(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    marks = [fingerprint(llama_folder)]
    same = rewritten(llama_folder, tmp_path / "same", lambda _: None)
    assert fingerprint(same) == marks[0]
    for change in (other_embeddings, other_norm, other_dtype):
        marks.append(fingerprint(rewritten(llama_folder, tmp_path / change.__name__, change)))
    assert len(set(marks)) == 4


def test_a_head_that_repeats_the_embeddings_may_be_left_out(
    llama_folder: Path, tmp_path: Path
) -> None:
    def tied(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    def without(tensors: dict[str, Tensor]) -> None:
        del tensors["lm_head.weight"]

    stored = rewritten(llama_folder, tmp_path / "tied", tied)
    assert fingerprint(stored) == fingerprint(rewritten(stored, tmp_path / "without", without))


def test_the_fingerprint_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tensors = {f"part{number:04d}.weight": torch.zeros(20_000) for number in range(200)}
    save_file(tensors, tmp_path / SINGLE_FILE)
    read = []
    beginning = StoredTensor.beginning

    def watched(stored: StoredTensor, most: int) -> bytes:
        content = beginning(stored, most)
        read.append(len(content))
        return content

    monkeypatch.setattr(StoredTensor, "beginning", watched)
    fingerprint(tmp_path)
    assert read == [FINGERPRINT_BYTES] * FINGERPRINT_TENSORS


def test_json_nested_too_deep_is_damage(tmp_path: Path) -> None:
    deep = "[" * 100_000
    (tmp_path / "config.json").write_text(f'{{"a": {deep}')
    with pytest.raises(ModelDamaged):
        read_config(tmp_path)
    content = f'{{"a": {deep}'.encode()
    (tmp_path / SINGLE_FILE).write_bytes(struct.pack("<Q", len(content)) + content)
    with pytest.raises(ModelDamaged):
        Checkpoint(tmp_path)
