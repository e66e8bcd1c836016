"""Linear layers with 8-bit weights on a CPU: read as bytes for a few rows, as bf16 for many.

Weights are rounded to 255 levels, symmetric, with one scale an output row; activations stay in
bf16. A row's result depends on no other row of the step. Single tokens are bound by reading the
weights, so they go through PyTorch's `_weight_int8pack_mm`, which never widens them in memory.
From `WIDE_ROWS` rows on, widening one layer at a time and multiplying as usual is faster: bytes are
exact in bf16, and the scale is applied to the result.

The starter's 210 linear layers, milliseconds of one Zen 4 core (PyTorch 2.13, medians; without
matrix units; from 8 rows on another run than to the left, the last two lines of one run):

    rows                               1      4      8     64    512
    fp32                            34.6   48.3   55.1    181   1206
    bf16                            28.0   35.8   33.4     91    560
    this: few rows                  14.1   23.0   33.8    196
    this: many rows                               34.3    101    594
    bitsandbytes int8                127           219     (two busy cores, the best of 9)
    dynamic int8 (torch.ao)         11.6   13.5   14.8
    int4 (`_weight_int4pack_mm`)     6.6   11.8   22.0

and of two cores:

    rows                               1      4      8     12     16     32
    this: few rows                  11.1   13.5   29.2   32.2   39.2   61.5
    this: many rows                 30.9   32.9   37.0   38.4   41.0   50.7

What it costs in quality, the starter against bf16 over 200 tokens of each of two answers: the same
likeliest token at 0.96 of the positions (bf16 against fp32: 0.98), a mean divergence of 0.004 nats
(0.0006), the largest difference of a score 0.03 to 0.05 of the largest score (0.02). A greedy text
leaves bf16's after 2 and after 24 tokens.

PyTorch's dynamic int8 is not used: it rounds the activations of all rows by one scale, so that a
session's result would depend on who else is in the batch. FBGEMM's product with a fixed scale, each
row as two rows of 7 bits, would be as exact as bf16. For 1 and 8 rows, layers of 2048 to 11264
inputs and outputs took 0.74 and 0.48 of the time so, but the starter's 1.4 for 1 row, and prompts
of 512 rows 1.5 to 2.5 times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDE_ROWS = 12
"""From so many rows on, the weights are widened."""

SLAB_WEIGHTS = 864 * 1024
"""So many weights are widened at a time: the bf16 form stays in the cache.

A step of 8 rows through the starter's head took 9 ms so, and 31 ms with 1024 * 1024.
"""

_LEVELS = 127
_KERNEL_STEP = 16
"""The kernel for few rows reads inputs by so many, past the end of a row that does not divide."""


class Int8Linear(nn.Module):
    """A linear layer made from a plain one. Takes and gives `[..., in]` and `[..., out]` in bf16.

    `wide_dtype` is what the CPU multiplies matrices in faster: bf16 or fp32.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, *, wide_dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self._wide_dtype = wide_dtype
        self._narrow_rows = WIDE_ROWS - 1 if linear.in_features % _KERNEL_STEP == 0 else 0
        self._slab = max(1, SLAB_WEIGHTS // linear.in_features)
        rows, scale = quantize_rows(linear.weight.data)
        self.register_buffer("weight", rows)
        self.register_buffer("scale", scale)
        bias = linear._parameters["bias"]
        self.register_buffer("bias", None if bias is None else bias.data.to(torch.bfloat16))

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output for every row of `hidden`."""
        rows = hidden.reshape(-1, self.in_features)
        if rows.shape[0] <= self._narrow_rows:
            result = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            wide = self._wide_dtype
            inputs = rows.to(wide)
            parts = [
                nn.functional.linear(inputs, part.to(wide))
                for part in torch.split(self.weight, self._slab)
            ]
            result = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            result = result.mul_(self.scale).to(hidden.dtype)
        if self.bias is not None:
            result += self.bias
        return result.view(*hidden.shape[:-1], self.out_features)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` `[out, in]` as int8, and the bf16 scale of each row: they multiply to the weight.

    Made some rows at a time, so that the fp32 copies on the way stay small.
    """
    rows = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty(weight.shape[0], dtype=torch.bfloat16)
    step = max(1, SLAB_WEIGHTS // max(1, weight.shape[1]))
    for start in range(0, weight.shape[0], step):
        some = slice(start, start + step)
        exact = weight[some].to(torch.float32)
        # Rounded first, so that the scale's own rounding costs nothing.
        scale[some] = (exact.abs().amax(dim=1) / _LEVELS).to(torch.bfloat16)
        divisor = scale[some].to(torch.float32).clamp(min=torch.finfo(torch.float32).tiny)
        rows[some] = (exact / divisor[:, None]).round_().clamp_(-_LEVELS, _LEVELS).to(torch.int8)
    return rows, scale
