"""Linear layers whose weights are held in 16 bits without loss, and computed with in fp32.

Nearly all models are published in 16 bits. Held in fp32, half of what a single token reads of
memory is zeros. FBGEMM, which PyTorch brings for x86, multiplies fp32 rows by fp16 weights, and
widens these in the registers: products and sums are fp32's. A weight of bf16 or fp16 fits into fp16
exactly once its layer is scaled by a power of two that brings the largest weight near the top of
fp16's range; what then lies below its range loses at most 2 ** -39 of the largest weight, far less
than a sum in fp32 does. A row's result does not depend, to the last bit, on the others in the step.

The starter's 120 joined linear layers, milliseconds on two Zen 4 cores (PyTorch 2.13, medians; the
lower two without AVX-512 in PyTorch and oneDNN):

    rows                        1      4      8     32    128    512
    fp32 (`packed`)          21.3   19.6   22.4   45.2    137    542
    this                      8.8    9.7   12.3   37.7    136    555
    bf16 (`packed`)          12.8   11.5   13.4   25.0     73    274
    fp32 on AVX2             26.0   31.6   32.9   59.4    173    575
    bf16 on AVX2, row by row 10.4   32.4   48.3    181    685   2730
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_LOST_BITS = 0x1FFF
"""The bits of an fp32 number's mantissa that fp16 has no place for."""

_TOP = 15
"""Weights are scaled to below 2 ** 15; fp16 ends at 2 ** 16."""

_MOST_EXPONENT = 100
"""Scales lie within 2 ** this either way, so that their inverses are numbers as well."""

_LOOK_WEIGHTS = 1024 * 1024
"""So many weights are looked at together: what that takes stays in the processor's cache."""

PART_WEIGHTS = 16 * 1024 * 1024
"""Larger layers are held in parts: bringing one into order takes one thread 4 to 10 ns a weight."""
_PART_STEP = 64
"""Parts have a multiple of so many outputs."""


class HalfLinear(nn.Module):
    """A linear layer made from a plain one on the CPU by `hold_half`.

    Takes `[..., in]` and gives `[..., out]`, both in the dtype of the layer it was made from.
    """

    weight: Tensor
    """Nothing: only its dtype and device mean anything."""

    def __init__(self, linear: nn.Linear, exponent: int, workers: Executor) -> None:
        """Have `workers` bring the weights, times 2 ** `exponent`, into FBGEMM's order."""
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight, bias = linear.weight.data, linear._parameters["bias"]
        self.held_bytes = 2 * weight.numel() + (0 if bias is None else 4 * bias.numel())
        self.register_buffer("weight", weight.new_empty(0), persistent=False)
        self._scale = 2.0**-exponent
        self._parts: list[Any] = []
        self._waited_for: list[Future[Any]] = [
            workers.submit(
                _packed, weight[some], None if bias is None else bias.data[some], exponent
            )
            for some in _slices(weight, PART_WEIGHTS, _PART_STEP)
        ]

    def finish(self) -> None:
        """Wait until the weights lie as they should; the plain ones are not needed any more."""
        self._parts += [waited_for.result() for waited_for in self._waited_for]
        self._waited_for.clear()

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output for every row of `hidden`. Not before `finish`."""
        rows = hidden.reshape(-1, self.in_features).to(torch.float32)
        if not rows.shape[0]:
            return hidden.new_empty(*hidden.shape[:-1], self.out_features)
        made = [_multiply(rows, part) for part in self._parts]
        row = made[0] if len(made) == 1 else torch.cat(made, dim=1)
        row = row.mul_(self._scale).to(hidden.dtype)
        return row.view(*hidden.shape[:-1], self.out_features)


def hold_half(linear: nn.Linear, workers: Executor) -> HalfLinear | None:
    """The layer with its weights in 16 bits; None where these would round them.

    Call its `finish` before `workers` end.
    """
    weight = linear.weight.data
    parts = [weight[some] for some in _slices(weight, _LOOK_WEIGHTS)]
    if not all(_is_short(part) for part in parts):
        return None
    ends = [float(end) for part in parts for end in torch.aminmax(part)]
    if not all(map(math.isfinite, ends)):
        return None
    largest = max(map(abs, ends), default=0.0)
    exponent = _TOP - math.frexp(largest)[1] if largest else 0
    return HalfLinear(linear, exponent, workers) if abs(exponent) <= _MOST_EXPONENT else None


def half_layers(root: nn.Module) -> Iterator[HalfLinear]:
    """The layers in `root` that are held so."""
    return (module for module in root.modules() if isinstance(module, HalfLinear))


@cache
def can_hold_half() -> bool:
    """Whether this computer's PyTorch multiplies by fp16 weights in fp32, tried on a few."""
    inputs, weight, bias = torch.rand(2, 32), torch.rand(16, 32).half(), torch.rand(16)
    try:
        made = _multiply(inputs, _packed(weight, bias, 0))
    except (AttributeError, NotImplementedError, RuntimeError):  # not there, or not for this CPU
        return False
    return torch.allclose(made, nn.functional.linear(inputs, weight.float(), bias), rtol=1e-4)


def _slices(weight: Tensor, most: int, step: int = 1) -> list[slice]:
    """The rows of `weight` in runs of about `most` weights at most, and of whole `step`s."""
    outputs, inputs = weight.shape
    rows = max(step, most // max(1, inputs) // step * step)
    return [slice(start, start + rows) for start in range(0, outputs, rows)]


def _is_short(weight: Tensor) -> bool:
    """Whether no number has more digits than fp16 has place for; its range is another matter."""
    if weight.dtype != torch.float32:
        return True
    return not bool(weight.contiguous().view(torch.int32).bitwise_and(_LOST_BITS).any())


@torch.inference_mode()
def _packed(weight: Tensor, bias: Tensor | None, exponent: int) -> Any:
    scale = 2.0**exponent
    scaled = weight.to(torch.float32, copy=True).mul_(scale)
    scaled_bias = None if bias is None else bias.to(torch.float32) * scale
    return torch.ops.quantized.linear_prepack_fp16(scaled, scaled_bias)


def _multiply(rows: Tensor, packed: Any) -> Tensor:
    made: Tensor = torch.ops.quantized.linear_dynamic_fp16(rows, packed)
    return made
