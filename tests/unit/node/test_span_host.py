"""What a server refuses before it loads anything, and what it plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.inference.weights import fingerprint
from superbloom.node.span_host import plan_host

from .tiny_model import BLOCKS, MODEL, write_tiny_model

GIB = 1 << 30


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
