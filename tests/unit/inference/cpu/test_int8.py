from __future__ import annotations

import pytest
import torch
from torch import nn

from superbloom.inference.cpu import int8
from superbloom.inference.cpu.int8 import WIDE_ROWS, Int8Linear, quantize_rows


def layer(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs, bias=bias).to(torch.bfloat16)


@pytest.mark.parametrize("wide", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 3, WIDE_ROWS - 1, WIDE_ROWS, 40])
@pytest.mark.parametrize("inputs", [16, 33, 24, 80])
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_results_are_those_of_the_rounded_weights(
    rows: int, inputs: int, bias: bool, wide: torch.dtype
) -> None:
    plain = layer(inputs, 7, bias=bias)
    made = Int8Linear(plain, wide_dtype=wide)
    hidden = torch.randn(1, rows, inputs).to(torch.bfloat16)
    found = made(hidden)
    weight = made.weight.float() * made.scale.float()[:, None]
    expected = nn.functional.linear(
        hidden.float(), weight, None if plain.bias is None else plain.bias.float()
    )
    assert found.dtype is torch.bfloat16
    assert found.shape == (1, rows, 7)
    assert float((found.float() - expected).abs().max() / expected.abs().max()) < 0.01


@torch.inference_mode()
def test_rows_do_not_depend_on_each_other() -> None:
    made = Int8Linear(layer(64, 32), wide_dtype=torch.bfloat16)
    rows = torch.randn(4, 64).to(torch.bfloat16)
    loud = torch.cat([rows, 1000 * rows[:1]])
    assert torch.equal(made(loud)[:4], made(rows))


def test_a_row_of_zeros_stays_zero() -> None:
    weight = torch.zeros(2, 16)
    weight[1, 3] = -2.0
    rows, scale = quantize_rows(weight)
    assert torch.equal(rows[0], torch.zeros(16, dtype=torch.int8))
    assert int(rows[1, 3]) == -127
    assert float(rows[1, 3] * scale[1].float()) == pytest.approx(-2.0, rel=0.01)


def test_a_byte_a_weight_is_held() -> None:
    made = Int8Linear(layer(576, 192), wide_dtype=torch.float32)
    assert sum(buffer.nbytes for buffer in made.buffers()) == 576 * 192 + 2 * 192


@torch.inference_mode()
def test_a_large_layer_is_widened_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Int8Linear(layer(64, 50), wide_dtype=torch.bfloat16)
    monkeypatch.setattr(int8, "SLAB_WEIGHTS", 64 * 16)
    parted = Int8Linear(layer(64, 50), wide_dtype=torch.bfloat16)
    rows = torch.randn(20, 64).to(torch.bfloat16)
    torch.testing.assert_close(parted(rows), whole(rows))
