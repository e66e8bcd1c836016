"""Linear layers whose weights lie in the order that the CPU's kernels read them in.

PyTorch keeps weights row by row. For a few rows of input its fp32 path falls back to kernels that
reach half of the memory's bandwidth or less, and its bf16 path orders the weights anew at every
call. oneDNN, which PyTorch brings, has an order of its own, made once here while loading; the
weights exist only in it. One order serves all numbers of rows, and in it a row's result does not
depend, to the last bit, on how many others are in the step.

The starter's 210 linear layers, milliseconds on two Zen 4 cores (PyTorch 2.13, medians):

    rows                    1      2      4      8     16     64    256
    fp32, row by row     39.0   60.5   48.6   43.5   51.7    110    390
    fp32, this           23.4   25.0   20.3   24.2   30.5     80    300
    bf16, row by row     18.3   19.9   20.8   25.5   29.8     65    163
    bf16, this           13.8   14.6   12.5   14.5   17.5     43    136
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_ROWS_HINT = 8
"""oneDNN picks the order for so many rows; from 2 to 512 it is the same one."""

_LEAST_ROWS = (1, 4, 6)
_WORTH = 0.97
"""Rows are filled up if that takes at most so much of the time."""

_TRIALS = 4
_TRIED_BYTES = 96 * 1024 * 1024
"""Layers of about so many bytes are tried: more than processors keep in their caches."""

_MOST_FILLING = 32
"""Steps of prompts are filled up to whole multiples of this."""


def kernel_rows(rows: int, least: int = 1) -> int:
    """How many rows a step of `rows` is filled up to: `least`, then 4, 8, 12, 16, 24, 32, 40, ...

    oneDNN writes machine code for every number of rows and every shape of weights, some 0.6 MB each
    time, and keeps it. A few numbers of rows keep it few, and spare the wait while it is written.
    """
    if rows <= least:
        return least if rows else 0
    eighth = 1 << max(0, (rows - 1).bit_length() - 3)
    step = min(max(eighth, 4 if rows <= 16 else 8), _MOST_FILLING)
    return -(-rows // step) * step


class PackedLinear(nn.Module):
    """A linear layer made from a plain one on the CPU. Takes `[..., in]`, gives `[..., out]`."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.register_buffer("weight", _packed(linear.weight.data), persistent=False)
        bias = linear._parameters["bias"]
        self.register_buffer("bias", None if bias is None else bias.data, persistent=False)
        self.least_rows = 1
        """Steps of fewer rows are filled up to so many: see `choose_least_rows`."""

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output for every row of `hidden`."""
        rows = hidden.reshape(-1, self.in_features)
        count = rows.shape[0]
        if filling := kernel_rows(count, self.least_rows) - count:
            rows = nn.functional.pad(rows, (0, 0, 0, filling))
        made = _multiply(rows, self.weight, self.bias)[:count]
        return made.view(*hidden.shape[:-1], self.out_features)


@torch.inference_mode()
def choose_least_rows(root: nn.Module) -> None:
    """Try how many rows the packed layers in `root` read their weights fastest with, and use it.

    Where they come from memory rather than from a cache, oneDNN's kernels for four or six rows take
    less time than the one for a single row: 0.85 of it for a model of 1.1 billion weights in bf16
    on two Zen 4 cores, 0.78 on one, and for the starter between 0.9 and as much.
    """
    layers = [module for module in root.modules() if isinstance(module, PackedLinear)]
    tried: list[PackedLinear] = []
    for layer in layers:
        if sum(chosen.weight.nbytes for chosen in tried) < _TRIED_BYTES:
            tried.append(layer)
    best = dict.fromkeys(_LEAST_ROWS, math.inf)
    for _, least in itertools.product(range(_TRIALS + 1), _LEAST_ROWS):  # the first warms up
        best[least] = min(best[least], _seconds(tried, least))
    chosen = min(best, key=lambda least: best[least] * (1.0 if least > 1 else _WORTH))
    for layer in layers:
        layer.least_rows = chosen


def _seconds(layers: Sequence[PackedLinear], least: int) -> float:
    """What a step of one row takes in `layers` if it is filled up to `least`."""
    inputs = [torch.ones(1, layer.in_features, dtype=layer.weight.dtype) for layer in layers]
    for layer in layers:
        layer.least_rows = least
    begun = time.perf_counter()
    for layer, row in zip(layers, inputs, strict=True):
        layer(row)
    return time.perf_counter() - begun


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this computer's PyTorch multiplies by packed weights of `dtype`, tried on a few."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    inputs, weight = torch.rand(2, 32).to(dtype), torch.rand(16, 32).to(dtype)
    try:
        made = _multiply(inputs, _packed(weight), None)
    except (AttributeError, RuntimeError):  # the operator is not there, or not for this dtype
        return False
    return torch.allclose(made, nn.functional.linear(inputs, weight), rtol=2e-2)


def _packed(weight: Tensor) -> Tensor:
    made: Tensor = _operators()._reorder_linear_weight(weight, _ROWS_HINT)
    return made


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = _operators()._linear_pointwise(rows, weight, bias, "none", [], "")
    return made


def _operators() -> Any:
    """PyTorch's operators for its own compiler: neither typed nor promised, so they are tried."""
    return torch.ops.mkldnn
