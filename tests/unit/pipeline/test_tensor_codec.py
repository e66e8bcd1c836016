"""Hidden states survive their way as bytes, and bad bytes are refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.errors import ProtocolViolation
from superbloom.pipeline.tensor_codec import decode_hidden, encode_hidden

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
