"""Hidden states survive their way as bytes, and bad bytes are refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.errors import ProtocolViolation
from superbloom.pipeline.tensor_codec import (
    COMPACT_BLOCK,
    decode_hidden,
    encode_compact,
    encode_hidden,
    is_compact,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@given(st.integers(0, 5), st.integers(1, 9), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_round_trip(rows: int, columns: int, dtype: torch.dtype, seed: int) -> None:
    hidden = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    back = decode_hidden(memoryview(encode_hidden(hidden)), rows=rows, columns=columns)
    assert back.dtype == dtype
    assert torch.equal(back, hidden)


def test_a_view_of_a_larger_tensor_is_sent_as_itself() -> None:
    hidden = torch.arange(12.0).view(4, 3)[2:]
    assert torch.equal(decode_hidden(memoryview(encode_hidden(hidden)), rows=2, columns=3), hidden)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    data = memoryview(encode_hidden(torch.tensor([[1.0, value]])))
    with pytest.raises(ProtocolViolation, match="finite"):
        decode_hidden(data, rows=1, columns=2)


def test_other_shapes_are_refused() -> None:
    data = memoryview(encode_hidden(torch.zeros(2, 3)))
    with pytest.raises(ProtocolViolation, match="shape"):
        decode_hidden(data, rows=3, columns=2)


@given(st.binary(max_size=80))
def test_random_bytes_are_refused_or_decode_to_what_was_asked(data: bytes) -> None:
    try:
        hidden = decode_hidden(memoryview(data), rows=2, columns=3)
    except ProtocolViolation:
        return
    assert hidden.shape == (2, 3)
    assert bool(torch.isfinite(hidden).all())


@given(st.integers(0, 28))
def test_a_cut_message_is_refused(length: int) -> None:
    data = encode_hidden(torch.ones(1, 5))[:length]
    with pytest.raises(ProtocolViolation):
        decode_hidden(memoryview(data), rows=1, columns=5)


# --- compact rows ---------------------------------------------------------------------------

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 3 * COMPACT_BLOCK))


def spread(rows: int, columns: int, seed: int, decades: float) -> torch.Tensor:
    """Values of which columns, rows and single ones differ by powers of ten."""
    dice = torch.Generator().manual_seed(seed)
    powers = (
        torch.randn(1, columns, generator=dice)
        + torch.randn(rows, 1, generator=dice)
        + torch.randn(rows, columns, generator=dice)
    ) * decades
    return torch.randn(rows, columns, generator=dice) * 10**powers


def there_and_back(hidden: torch.Tensor) -> torch.Tensor:
    data = memoryview(encode_compact(hidden))
    assert is_compact(data)
    rows, columns = hidden.shape
    return decode_hidden(data, rows=rows, columns=columns, may_be_compact=True)


@given(SIZES, st.sampled_from(DTYPES), st.integers(0, 2**31), st.floats(0, 1.0))
def test_a_compact_value_is_off_by_half_a_step_at_most(
    size: tuple[int, int], dtype: torch.dtype, seed: int, decades: float
) -> None:
    hidden = spread(*size, seed, decades).clamp(-6e4, 6e4).to(dtype)
    back = there_and_back(hidden)
    assert back.dtype == torch.float32
    exact = hidden.to(torch.float32)
    columns = torch.exp2(exact.abs().mean(0).log2().round().clamp(-100, 100))
    for start in range(0, size[1], COMPACT_BLOCK):
        part = slice(start, start + COMPACT_BLOCK)
        off = (back - exact)[:, part].abs() / columns[part]
        largest = (exact[:, part].abs() / columns[part]).amax(1, keepdim=True)
        assert bool((off <= largest / 254 * 1.01 + 1e-30).all())


@given(SIZES, st.integers(0, 2**31), st.floats(-44, 37))
def test_any_size_of_number_survives(size: tuple[int, int], seed: int, power: float) -> None:
    dice = torch.Generator().manual_seed(seed)
    hidden = torch.rand(size, generator=dice) * 10**power
    back = there_and_back(hidden)
    assert bool((back.sign() * hidden.sign() >= 0).all())
    assert float(back.abs().max()) <= float(hidden.abs().max()) * 1.01 + 1e-35


def test_columns_that_are_far_larger_cost_the_others_no_digits() -> None:
    hidden = torch.randn(32, 200, generator=torch.Generator().manual_seed(1))
    large = hidden.clone()
    large[:, 70] *= 1024
    others = torch.arange(200) != 70
    off = (there_and_back(large) - large)[:, others].norm() / large[:, others].norm()
    assert off < 0.01


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_zeros_stay_zeros(rows: int) -> None:
    assert torch.equal(there_and_back(torch.zeros(rows, 70)), torch.zeros(rows, 70))


def test_compact_rows_take_half_the_bytes_of_16_bits() -> None:
    hidden = torch.randn(256, 576).to(torch.bfloat16)
    assert len(encode_compact(hidden)) < 0.52 * len(encode_hidden(hidden))


def test_compact_rows_are_refused_where_exact_ones_are_due() -> None:
    data = memoryview(encode_compact(torch.ones(2, 3)))
    with pytest.raises(ProtocolViolation, match="unknown type 3"):
        decode_hidden(data, rows=2, columns=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("rows", [1, 20])
def test_compact_values_that_are_not_finite_are_refused(value: float, rows: int) -> None:
    hidden = torch.ones(rows, 70)
    hidden[0, 66] = value
    with pytest.raises(ProtocolViolation, match="finite"):
        there_and_back(hidden)


def test_scales_beyond_all_numbers_are_refused() -> None:
    data = bytearray(encode_compact(torch.ones(1, 3)))
    data[9:12] = b"\x7f\x7f\x7f"  # the exponents
    data[12:14] = b"\x7f\x7f"  # the scale
    with pytest.raises(ProtocolViolation, match="finite"):
        decode_hidden(memoryview(data), rows=1, columns=3, may_be_compact=True)


@given(st.binary(max_size=80), st.booleans())
def test_random_compact_bytes_are_refused_or_decode_to_what_was_asked(
    data: bytes, headed: bool
) -> None:
    whole = encode_compact(torch.ones(2, 3))
    sent = whole[:9] + data[: len(whole) - 9] if headed else b"\x03" + data
    try:
        hidden = decode_hidden(memoryview(sent), rows=2, columns=3, may_be_compact=True)
    except ProtocolViolation:
        return
    assert hidden.shape == (2, 3)
    assert bool(torch.isfinite(hidden).all())


@given(st.data())
def test_cut_or_long_compact_rows_are_refused(data: st.DataObject) -> None:
    whole = encode_compact(torch.ones(2, 70))
    length = data.draw(st.integers(0, len(whole) + 5).filter(lambda n: n != len(whole)))
    with pytest.raises(ProtocolViolation):
        decode_hidden(
            memoryview((whole + bytes(5))[:length]), rows=2, columns=70, may_be_compact=True
        )
