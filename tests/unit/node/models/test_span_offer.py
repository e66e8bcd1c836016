"""What of a model is on the disk, in runs of blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from superbloom.domain.errors import BudgetTooSmall, ModelDamaged
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.inference.shape import shape_of
from superbloom.inference.weights import read_config
from superbloom.node.models.span_offer import offer_of, offer_of_other_process, runs_here
from superbloom.storage.fetching import FetchWatch
from superbloom.storage.model_files import ModelFolder

from ..tiny_model import BLOCKS, write_tiny_model, write_tiny_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_shards(tmp_path / "tiny")


def test_one_file_has_every_block(tmp_path: Path) -> None:
    assert runs_here(write_tiny_model(tmp_path), BLOCKS) == (Span(0, BLOCKS),)


def test_blocks_whose_shards_are_missing_are_not_here(folder: Path) -> None:
    assert runs_here(folder, BLOCKS) == (Span(0, BLOCKS),)
    (folder / "b1.safetensors").unlink()
    assert runs_here(folder, BLOCKS) == (Span(0, 1), Span(2, BLOCKS))
    for shard in folder.glob("b*"):
        shard.unlink()
    assert runs_here(folder, BLOCKS) == ()


def test_a_block_in_two_files_needs_both(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    moved = index.read_text().replace(
        'layers.2.mlp.up_proj.weight": "b2', 'layers.2.mlp.up_proj.weight": "b3'
    )
    assert moved != index.read_text()
    index.write_text(moved)
    (folder / "b3.safetensors").unlink()
    assert runs_here(folder, BLOCKS) == (Span(0, 2),)


def test_what_is_damaged_is_not_here(folder: Path) -> None:
    ModelFolder("tiny", folder).seal("test", FetchWatch(lambda *_: None))
    shard = folder / "b3.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert runs_here(folder, BLOCKS) == (Span(0, 3),)
    (folder / "superbloom.json").write_text("{")
    with pytest.raises(ModelDamaged):
        runs_here(folder, BLOCKS)


def test_another_process_finds_the_same(folder: Path) -> None:
    shape = shape_of(read_config(folder))
    request = ShareRequest(model="tiny", device="cpu", memory_bytes=2**30)
    offer = offer_of(request, shape, folder)
    assert offer_of_other_process(request, shape, folder) == offer
    with pytest.raises(BudgetTooSmall, match="Not one block"):
        offer_of_other_process(replace(request, memory_bytes=1), shape, folder)
