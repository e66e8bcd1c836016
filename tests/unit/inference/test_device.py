from __future__ import annotations

import pytest
import torch

from superbloom.domain.model_card import Precision
from superbloom.inference.device import CPU, cpu_dtype, default_precision


@pytest.mark.parametrize(
    ("dots", "tiles", "expected"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
        (True, True, torch.bfloat16),
    ],
)
def test_a_cpu_computes_in_what_it_has_instructions_for(
    dots: bool, tiles: bool, expected: torch.dtype
) -> None:
    assert cpu_dtype(bf16_dots=dots, bf16_tiles=tiles) is expected


@pytest.mark.parametrize(
    ("device", "tiles", "expected"),
    [
        (CPU, False, Precision.FP32),
        (CPU, True, Precision.BF16),
        (torch.device("cuda", 0), False, Precision.BF16),
    ],
)
def test_a_server_takes_the_devices_own_precision(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, tiles: bool, expected: Precision
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert default_precision(device) is expected
