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

Layers that read the same input are multiplied at once: with 4 products a block instead of 7 a step
of 1, 4 and 8 rows takes 0.84, 0.78 and 0.79 of the time in fp32, and 0.8 in bf16.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from superbloom.inference.quantization import is_plain_linear

_ROWS_HINT = 8
"""oneDNN picks the order for so many rows; from 2 to 512 it is the same one."""

_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names, within a module, of layers that models call one after the other with one tensor."""


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

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output for every row of `hidden`."""
        rows = hidden.reshape(-1, self.in_features)
        return _multiply(rows, self.weight, self.bias).view(*hidden.shape[:-1], self.out_features)


class Together:
    """Layers that are called with the same tensor: the first call computes for all of them.

    A tensor that the first call did not see is simply computed anew. Not thread-safe. Takes the
    weights out of `linears`.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        biases = [_bias_or_zeros(linear) for linear in linears]
        self.bias = torch.cat(biases) if any(one.bias is not None for one in linears) else None
        self._sizes = [linear.out_features for linear in linears]
        self.weight = _packed(_joined(linears))
        self._input: Tensor | None = None
        self._outputs: list[Tensor | None] = []

    def output(self, place: int, hidden: Tensor) -> Tensor:
        """What the layer at `place` makes of `hidden` `[..., in]`."""
        if hidden is not self._input or self._outputs[place] is None:
            rows = _multiply(hidden.reshape(-1, hidden.shape[-1]), self.weight, self.bias)
            whole = rows.view(*hidden.shape[:-1], -1)
            self._input, self._outputs = hidden, list(torch.split(whole, self._sizes, dim=-1))
        made, self._outputs[place] = self._outputs[place], None
        if not any(output is not None for output in self._outputs):
            self._input = None
        assert made is not None
        return made


class OneOfTogether(nn.Module):
    """Stands for the layer at `place` of those that are computed `together`."""

    def __init__(self, together: Together, place: int, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self._together = together
        self._place = place
        if place == 0:  # counted once
            self.register_buffer("held_weight", together.weight, persistent=False)
            self.register_buffer("held_bias", together.bias, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The weights of all together: only their dtype and device mean anything."""
        return self._together.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output for every row of `hidden`."""
        return self._together.output(self._place, hidden)


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


def pack_linears(root: nn.Module) -> None:
    """Replace the plain linear layers in `root` by packed ones; each is freed at once."""
    for module in list(root.modules()):
        for names in _SAME_INPUT:
            _join(module, names)
    for name in [name for name, module in root.named_modules() if is_plain_linear(module)]:
        linear = root.get_submodule(name)
        assert is_plain_linear(linear)
        root.set_submodule(name, PackedLinear(linear))


def _join(module: nn.Module, names: Sequence[str]) -> None:
    """Have the layers of these names computed together, if `module` has them all."""
    linears = [linear for name in names if is_plain_linear(linear := getattr(module, name, None))]
    if len(linears) < len(names) or len({linear.in_features for linear in linears}) > 1:
        return
    together = Together(linears)
    for place, (name, linear) in enumerate(zip(names, linears, strict=True)):
        setattr(module, name, OneOfTogether(together, place, linear))


def _joined(linears: Sequence[nn.Linear]) -> Tensor:
    """The layers' weights one below the other; each is freed once it is copied."""
    outputs = sum(linear.out_features for linear in linears)
    joined = linears[0].weight.data.new_empty(outputs, linears[0].in_features)
    end = 0
    for linear in linears:
        start, end = end, end + linear.out_features
        joined[start:end] = linear.weight.data
        linear.weight.data = joined.new_empty(0)
    return joined


def _bias_or_zeros(linear: nn.Linear) -> Tensor:
    bias = linear._parameters["bias"]
    return linear.weight.data.new_zeros(linear.out_features) if bias is None else bias.data


def _packed(weight: Tensor) -> Tensor:
    made: Tensor = _operators()._reorder_linear_weight(weight, _ROWS_HINT)
    return made


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = _operators()._linear_pointwise(rows, weight, bias, "none", [], "")
    return made


def _operators() -> Any:
    """PyTorch's operators for its own compiler: neither typed nor promised, so they are tried."""
    return torch.ops.mkldnn
