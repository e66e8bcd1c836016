"""What a server refuses before it loads anything, and what it plans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING

from superbloom.domain.budget import plan_memory
from superbloom.domain.errors import BudgetTooSmall, ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.inference.kv_cache import PAGE_TOKENS
from superbloom.inference.weights import fingerprint
from superbloom.node.serving.span_host import load_span, plan_host

from ..tiny_model import BLOCKS, MODEL, write_tiny_model

GIB = 1 << 30
WHOLE = Span(0, BLOCKS)


def request(**wishes: object) -> ShareRequest:
    return ShareRequest(**{"model": MODEL, "memory_bytes": GIB, "device": "cpu", **wishes})


def folder_of(folder: Path, family: str) -> Path:
    """A model folder that has only its configuration."""
    (folder / "config.json").write_text(json.dumps(CONFIG_MAPPING[family]().to_dict()))
    return folder


def test_a_model_that_can_be_served_is_planned(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    plan = plan_host(request(precision=Precision.INT8), folder)
    assert (plan.capacity, plan.precision) == (BLOCKS, Precision.INT8)
    assert plan.fingerprint == fingerprint(folder)


def test_weights_that_take_more_than_planned_leave_less_for_sessions(tmp_path: Path) -> None:
    plan = plan_host(request(precision=Precision.FP32), write_tiny_model(tmp_path))
    real = plan.shape.block_bytes[Precision.FP32]
    told = replace(plan.shape, block_bytes={Precision.FP32: real // 2, Precision.BF16: real // 4})
    host = load_span(replace(plan, shape=told), WHOLE)
    cache = plan_memory(told, plan.precision, WHOLE, plan.memory_bytes).cache_bytes
    free = host.executor.stats().free_cache_tokens
    host.executor.shutdown(10.0)
    left = (cache - real // 2 * BLOCKS) // (2 * told.cache_bytes_per_token * BLOCKS)
    assert left - PAGE_TOKENS < free <= left


def test_weights_that_leave_no_room_for_sessions_are_refused(tmp_path: Path) -> None:
    plan = plan_host(request(precision=Precision.FP32), write_tiny_model(tmp_path))
    told = replace(plan.shape, block_bytes={Precision.FP32: 1}, cache_bytes_per_token=1)
    memory = plan_memory(told, plan.precision, WHOLE, GIB).activation_bytes + 16 * 1024
    with pytest.raises(BudgetTooSmall, match="more than the model's configuration says"):
        load_span(replace(plan, shape=told, memory_bytes=memory), WHOLE)


@pytest.mark.parametrize(
    "family",
    [
        *("mamba", "qwen3_next", "minimax", "biogpt"),  # no shape can be computed
        *("diffllama", "ctrl"),  # otherwise in stages than whole
    ],
)
def test_a_family_that_cannot_be_served_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(ModelUnsupported):
        plan_host(request(), folder_of(tmp_path, family))


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.NF4])
def test_a_precision_the_model_cannot_be_held_in_is_refused(
    tmp_path: Path, precision: Precision
) -> None:
    with pytest.raises(ModelUnsupported, match=f"held in {precision}"):
        plan_host(request(precision=precision), folder_of(tmp_path, "mixtral"))
