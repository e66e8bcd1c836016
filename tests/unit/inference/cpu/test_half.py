"""Layers held in 16 bits compute in fp32 what the plain ones do, and every row for itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from superbloom.inference.cpu import fast_linears, half
from superbloom.inference.cpu.fast_linears import has_fast_form, holds_half, quicken
from superbloom.inference.cpu.half import HalfLinear, can_hold_half, half_layers, hold_half
from superbloom.inference.cpu.packed import PackedLinear, can_pack

pytestmark = pytest.mark.skipif(
    not can_hold_half(), reason="PyTorch has no FBGEMM on this computer"
)


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def published(
    inputs: int, outputs: int, stored: torch.dtype = torch.bfloat16, *, bias: bool = False
) -> nn.Linear:
    """A layer in fp32 whose weights were published in `stored`."""
    torch.manual_seed(inputs)
    return nn.Linear(inputs, outputs, bias=bias).to(stored).float().requires_grad_(False)


def held(linear: nn.Linear, workers: ThreadPoolExecutor) -> HalfLinear:
    made = hold_half(linear, workers)
    assert made is not None
    made.finish()
    return made


def exact(linear: nn.Linear, rows: Tensor) -> Tensor:
    made = rows.double() @ linear.weight.double().T
    return made if linear.bias is None else made + linear.bias.double()


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (13, 7), (1, 1), (1536, 576)])
@torch.inference_mode()
def test_it_computes_what_the_plain_layer_does(
    inputs: int, outputs: int, bias: bool, stored: torch.dtype, workers: ThreadPoolExecutor
) -> None:
    linear = published(inputs, outputs, stored, bias=bias)
    layer = held(linear, workers)
    hidden = torch.randn(2, 5, inputs)
    found = layer(hidden)
    assert found.dtype == torch.float32
    assert found.shape == (2, 5, outputs)
    torch.testing.assert_close(found.double(), exact(linear, hidden), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_row_does_not_depend_on_the_others_nor_on_the_threads(
    workers: ThreadPoolExecutor,
) -> None:
    layer = held(published(576, 960), workers)
    rows = torch.randn(600, 576)
    whole: Tensor = layer(rows)
    for count in (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 17, 31, 64, 100, 256, 511):
        assert torch.equal(layer(rows[:count]), whole[:count])
        assert torch.equal(layer(rows[600 - count :]), whole[600 - count :])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(layer(rows), whole)
    finally:
        torch.set_num_threads(before)


@given(exponent=st.integers(-60, 60), stored=st.sampled_from([torch.bfloat16, torch.float16]))
@torch.inference_mode()
def test_weights_of_any_size_keep_their_digits(exponent: int, stored: torch.dtype) -> None:
    linear = published(64, 33, stored, bias=True)
    with torch.no_grad():
        linear.weight.mul_(2.0**exponent)
        linear.bias.mul_(2.0**exponent)
    with ThreadPoolExecutor(1) as workers:
        layer = held(linear, workers)
    rows = torch.randn(3, 64)
    expected = exact(linear, rows)
    error = (layer(rows).double() - expected).abs().max() / expected.abs().max()
    assert error < 1e-6


@torch.inference_mode()
def test_the_smallest_weights_lose_next_to_nothing(workers: ThreadPoolExecutor) -> None:
    linear = published(64, 64)
    linear.weight.copy_(torch.logspace(0, -12, 64).bfloat16().float())  # all rows alike
    layer = held(linear, workers)
    picked = layer(torch.eye(64))  # each row of it picks one weight of all outputs
    assert (picked.T - linear.weight).abs().max() <= 2.0**-39
    assert torch.equal(picked[:32].T, linear.weight[:, :32])


@torch.inference_mode()
def test_zeros_are_held(workers: ThreadPoolExecutor) -> None:
    linear = published(32, 16)
    linear.weight.zero_()
    assert not held(linear, workers)(torch.randn(4, 32)).any()


@pytest.mark.parametrize("value", [1 + 2.0**-11, math.inf, math.nan, 2.0**120, 2.0**-120])
def test_what_16_bits_would_round_is_not_held(value: float, workers: ThreadPoolExecutor) -> None:
    linear = published(32, 16)
    linear.weight.zero_()
    linear.weight[7, 9] = value
    assert hold_half(linear, workers) is None


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_large_layers_are_held_in_parts(
    bias: bool, workers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = published(48, 300, bias=bias)
    whole = held(linear, workers)
    monkeypatch.setattr(half, "PART_WEIGHTS", 48 * 100)
    parts = held(linear, workers)
    rows = torch.randn(5, 48)
    assert len(parts._parts) == 5
    assert torch.equal(parts(rows), whole(rows))
    assert parts.held_bytes == whole.held_bytes == 2 * 48 * 300 + (1200 if bias else 0)


def test_each_layer_gets_the_form_that_fits_it() -> None:
    block = nn.Sequential(published(32, 16), nn.Linear(16, 16), nn.ReLU()).requires_grad_(False)
    assert has_fast_form(torch.float32)
    quicken(block, torch.float32)
    other = PackedLinear if can_pack(torch.float32) else nn.Linear
    assert [type(layer) for layer in block] == [HalfLinear, other, nn.ReLU]
    assert len(list(half_layers(block))) == 1
    assert block(torch.randn(2, 32)).shape == (2, 16)


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_bf16_is_held_so_only_where_the_cpu_does_not_know_it(
    fast: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_linears, "fast_cpu_dtype", lambda: fast)
    assert holds_half(torch.float32)
    assert holds_half(torch.float16)
    assert holds_half(torch.bfloat16) == (fast == torch.float32)
    block = nn.Sequential(published(32, 16).to(torch.bfloat16))
    rows = torch.randn(3, 32).to(torch.bfloat16)
    expected = block(rows)
    quicken(block, torch.bfloat16)
    found = block(rows)
    assert isinstance(block[0], HalfLinear) == (fast == torch.float32)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_without_the_operator_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(half, "_packed", refuse)
    can_hold_half.cache_clear()
    try:
        assert not can_hold_half()
        assert not holds_half(torch.float32)
    finally:
        monkeypatch.undo()
        can_hold_half.cache_clear()
