"""Hidden states as bytes: a fixed header and the raw rows, checked before use.

Layout (little endian): dtype u8, rows u32, columns u32, then rows x columns values in C order.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from superbloom.domain.errors import ProtocolViolation

_HEADER = struct.Struct("<BII")
_DTYPES = {0: torch.float32, 1: torch.bfloat16, 2: torch.float16}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def encode_hidden(hidden: Tensor) -> bytes:
    """Bytes of `hidden` [tokens, hidden_size] (fp32, bf16 or fp16, any device; rows may be 0)."""
    rows, columns = hidden.shape
    raw = hidden.detach().to("cpu").contiguous().view(torch.uint8).numpy().tobytes()
    return _HEADER.pack(_CODES[hidden.dtype], rows, columns) + raw


def decode_hidden(data: memoryview, *, rows: int, columns: int) -> Tensor:
    """The tensor [rows, columns] in `data`, its own copy, in the sender's dtype.

    Raises ProtocolViolation unless dtype, shape and length are as expected and every value is
    finite.
    """
    if len(data) < _HEADER.size:
        raise ProtocolViolation("A peer sent hidden states that are cut short.")
    code, sent_rows, sent_columns = _HEADER.unpack_from(data)
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise ProtocolViolation(f"A peer sent hidden states of unknown type {code}.")
    if (sent_rows, sent_columns) != (rows, columns):
        raise ProtocolViolation(
            f"A peer sent hidden states of shape {sent_rows}x{sent_columns}, not {rows}x{columns}."
        )
    body = data[_HEADER.size :]
    if len(body) != rows * columns * dtype.itemsize:
        raise ProtocolViolation("A peer sent hidden states whose length does not fit their shape.")
    if rows == 0:
        return torch.empty(0, columns, dtype=dtype)
    hidden = torch.frombuffer(bytearray(body), dtype=dtype).view(rows, columns)
    if not bool(torch.isfinite(hidden).all()):
        raise ProtocolViolation("A peer sent hidden states that are not finite numbers.")
    return hidden
