"""Packed linear layers compute what the plain ones do, and every row for itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from superbloom.inference.cpu import packed as packed_module
from superbloom.inference.cpu.joined_linears import replace_linears
from superbloom.inference.cpu.packed import (
    PackedLinear,
    can_pack,
    choose_least_rows,
    kernel_rows,
)

pytestmark = pytest.mark.skipif(
    not can_pack(torch.float32), reason="PyTorch has no oneDNN on this computer"
)
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(dtype)]


def plain(inputs: int, outputs: int, dtype: torch.dtype, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(inputs)
    return nn.Linear(inputs, outputs, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (13, 7), (576, 1536)])
@torch.inference_mode()
def test_a_packed_layer_is_near_the_plain_one(
    inputs: int, outputs: int, bias: bool, dtype: torch.dtype
) -> None:
    linear = plain(inputs, outputs, dtype, bias=bias)
    packed = PackedLinear(linear)
    hidden = torch.randn(2, 5, inputs).to(dtype)
    found, expected = packed(hidden), linear(hidden)
    assert found.shape == expected.shape
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.inference_mode()
def test_a_row_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    packed = PackedLinear(plain(576, 192, dtype))
    rows = torch.randn(40, 576).to(dtype)
    whole: Tensor = packed(rows)
    for count in (0, 1, 2, 3, 4, 7, 8, 17):
        assert torch.equal(packed(rows[:count]), whole[:count])


@pytest.mark.parametrize("least", [1, 4, 6])
def test_steps_of_all_lengths_take_few_kernels(least: int) -> None:
    filled = [kernel_rows(rows, least) for rows in range(513)]
    assert filled[0] == 0
    assert filled[1] == least
    assert filled == sorted(filled)
    assert all(kernel_rows(rows, least) == rows for rows in filled)
    assert all(rows <= made <= max(least, rows + 3, 1.5 * rows) for rows, made in enumerate(filled))
    assert all(made <= 1.25 * rows for rows, made in enumerate(filled) if rows > 32)
    assert len(set(filled)) < 30


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.inference_mode()
def test_filling_single_rows_up_changes_nothing(dtype: torch.dtype) -> None:
    packed = PackedLinear(plain(576, 192, dtype, bias=True))
    rows = torch.randn(3, 576).to(dtype)
    found = []
    for least in (1, 4, 6):
        packed.least_rows = least
        found += [packed(rows), torch.cat([packed(row[None]) for row in rows])]
    assert all(torch.equal(one, found[0]) for one in found)


def test_all_layers_are_filled_up_to_what_was_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: 1.0, 4: 0.8, 6: 0.9}
    monkeypatch.setattr(packed_module, "_seconds", lambda _, least: seconds[least])
    block = nn.Sequential(plain(8, 8, torch.float32), nn.ReLU(), plain(8, 4, torch.float32))
    replace_linears(block, PackedLinear)
    choose_least_rows(block)
    assert [m.least_rows for m in block.modules() if isinstance(m, PackedLinear)] == [4, 4]
    seconds[1] = 0.82  # too little to be gained
    choose_least_rows(block)
    assert [m.least_rows for m in block.modules() if isinstance(m, PackedLinear)] == [1, 1]


def test_what_is_tried_is_not_left_behind() -> None:
    packed = PackedLinear(plain(8, 8, torch.float32))
    choose_least_rows(nn.Sequential(packed, nn.ReLU()))
    assert packed.least_rows in {1, 4, 6}
    choose_least_rows(nn.ReLU())  # nothing to choose for


def test_every_linear_layer_is_replaced_and_its_weights_counted() -> None:
    block = nn.Sequential(plain(8, 8, torch.float32), nn.ReLU(), nn.Sequential(nn.Linear(8, 4)))
    replace_linears(block, PackedLinear)
    assert [type(module) for module in block.modules()].count(PackedLinear) == 2
    assert sum(buffer.nbytes for buffer in block.buffers()) == 4 * (8 * 8 + 8 * 4 + 4)


class Attention(nn.Module):
    """Calls three layers with one tensor, as transformers' models do."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.q_proj = plain(32, 24, torch.float32, bias=bias)
        self.k_proj = plain(32, 8, torch.float32)
        self.v_proj = plain(32, 8, torch.float32, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.cat([self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)], dim=-1)


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_layers_with_one_input_are_computed_together(bias: bool) -> None:
    attention = Attention(bias=bias)
    inputs = [torch.randn(1, tokens, 32) for tokens in (1, 5)]
    expected = [attention(hidden) for hidden in inputs]
    held = sum(weight.nbytes for weight in attention.parameters())
    replace_linears(attention, PackedLinear)
    for hidden, whole in zip(inputs, expected, strict=True):
        torch.testing.assert_close(attention(hidden), whole, rtol=1e-5, atol=1e-6)
    first, second = inputs
    attention.q_proj(first)  # never followed by the others
    torch.testing.assert_close(attention.k_proj(second), expected[1][..., 24:32])
    torch.testing.assert_close(attention.k_proj(second), expected[1][..., 24:32])
    unbiased = 8 * 4 if bias else 0
    assert sum(buffer.nbytes for buffer in attention.buffers()) == held + unbiased


def test_a_dtype_that_is_not_supported_stays_plain() -> None:
    assert not can_pack(torch.float64)
