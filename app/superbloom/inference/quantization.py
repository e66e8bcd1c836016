"""Precisions: what a stage computes in, and int8 and nf4 made tensor by tensor.

nf4 and a GPU's int8 are bitsandbytes'; a CPU's int8 is `cpu.int8`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.quantizers.base import HfQuantizer

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.inference.cpu.int8 import Int8Linear
from superbloom.inference.cpu.joined_linears import is_plain_linear, replace_linears
from superbloom.inference.device import CPU, fast_cpu_dtype

_DIRECT: Mapping[Precision, torch.dtype] = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
_DEVICES = frozenset({"cpu", "cuda"})
_UNPACKED = frozenset({"mxfp4"})
"""Stored forms that transformers unpacks to plain weights without a GPU."""

NF4_GROUP = 64
"""bitsandbytes: nf4 keeps one 8-bit scale for so many weights..."""
NF4_SCALE_GROUP = 256
"""...and one 32-bit scale for so many of those."""
_CPU_CHUNK = 1024 * NF4_GROUP
"""So many weights are made nf4 on a CPU at a time: that takes a multiple of their size."""

_NEXT = "Choose the precision bf16."


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of hidden states: bf16 for quantized weights. Raises ModelUnsupported."""
    if precision in _DIRECT:
        return _DIRECT[precision]
    if device.type not in _DEVICES:
        raise ModelUnsupported(f"{precision} weights cannot be held on {device.type}.", _NEXT)
    if precision is Precision.INT8 and device.type == "cpu":
        return torch.bfloat16
    try:
        importlib.import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelUnsupported(
            f"{precision} weights need the library bitsandbytes, which does not start here.", _NEXT
        ) from error
    return torch.bfloat16


def stored_quantizer(config: Mapping[str, object]) -> HfQuantizer | None:
    """What turns a checkpoint's stored form into plain weights; None for plain weights.

    Raises ModelUnsupported for forms that are not read.
    """
    stored = config.get("quantization_config")
    if not isinstance(stored, dict):
        return None
    if stored.get("quant_method") not in _UNPACKED:
        raise ModelUnsupported(
            f"The model's files are quantized already ({stored.get('quant_method', 'unknown')}), "
            "which this version cannot serve.",
            "Choose the model's version in bf16; int8 and nf4 are made while loading.",
        )
    made: HfQuantizer = AutoHfQuantizer.from_config(
        {**stored, "dequantize": True}, pre_quantized=True
    )
    return made


def is_held_in(precision: Precision, block: nn.Module) -> bool:
    """Whether a server can hold such a block in `precision`; its weights need not be there."""
    return precision in _DIRECT or _other_weights(block) is None


def check_held_in(precision: Precision, blocks: Iterable[nn.Module]) -> None:
    """Raises ModelUnsupported where weights are not in linear layers (fused experts)."""
    for block in blocks:
        other = None if precision in _DIRECT else _other_weights(block)
        if other is not None:
            raise ModelUnsupported(
                f"This family keeps its weights in a form ({other}) that cannot be held in "
                f"{precision} yet.",
                _NEXT,
            )


def _other_weights(block: nn.Module) -> str | None:
    """What keeps the most weights beside plain linear layers, by its class; None if nothing."""
    others = {
        type(module).__name__: parameter.numel()
        for module in block.modules()
        if not (is_plain_linear(module) or isinstance(module, nn.Embedding))
        for parameter in module.parameters(recurse=False)
        if parameter.ndim > 1
    }
    return max(others, key=lambda kind: others[kind], default=None)


def filling_device(precision: Precision, device: torch.device) -> torch.device:
    """Where a block's plain weights are read to: an accelerator gets the quantized ones only."""
    return device if precision in _DIRECT else CPU


def quantize_block(
    block: nn.Module, precision: Precision, dtype: torch.dtype, device: torch.device
) -> None:
    """Replace the block's linear layers by quantized ones on `device`, and move the rest there.

    The block lies on the CPU. It goes tensor by tensor, and each plain one is freed at once.
    """
    if precision in _DIRECT:
        return
    if precision is Precision.INT8 and device.type == "cpu":
        replace_linears(block, partial(Int8Linear, wide_dtype=fast_cpu_dtype()))
    for name in [name for name, module in block.named_modules() if is_plain_linear(module)]:
        linear = block.get_submodule(name)
        assert is_plain_linear(linear)
        block.set_submodule(name, _quantized(linear, precision, dtype, device))
    for module in block.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.device.type != device.type:
                moved = nn.Parameter(parameter.data.to(device), requires_grad=False)
                module.register_parameter(name, moved)
        for name, buffer in module.named_buffers(recurse=False):
            if not buffer.is_meta and buffer.device.type != device.type:
                module._buffers[name] = buffer.to(device)


def _quantized(
    linear: nn.Linear, precision: Precision, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """The layer in bitsandbytes' form."""
    # Heavy, and needed for quantized weights only; its types are not exported.
    bnb: Any = importlib.import_module("bitsandbytes")

    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    made: nn.Module
    with torch.device("meta"):
        if precision is Precision.INT8:
            made = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
        else:
            made = bnb.nn.Linear4bit(*sizes, compute_dtype=dtype, quant_type="nf4")
    weight = linear.weight.data
    if precision is Precision.INT8:
        made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False).to(
            device
        )
    elif device.type == "cpu":
        made.weight = _nf4_on_cpu(bnb, weight)
    else:
        made.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4").to(device)
    if linear.bias is not None:
        made.bias = nn.Parameter(linear.bias.data.to(device), requires_grad=False)
    return made


def _nf4_on_cpu(bnb: Any, weight: torch.Tensor) -> nn.Parameter:
    """What `Params4bit(weight).to("cpu")` gives, to the bit, made a chunk at a time."""
    functional = bnb.functional
    flat = weight.reshape(-1)
    packed = torch.empty(math.ceil(flat.numel() / 2), 1, dtype=torch.uint8)
    largest = torch.empty(math.ceil(flat.numel() / NF4_GROUP))
    for start in range(0, flat.numel(), _CPU_CHUNK):
        some, state = functional.quantize_4bit(
            flat[start : start + _CPU_CHUNK], blocksize=NF4_GROUP, quant_type="nf4"
        )
        packed[start // 2 : start // 2 + some.shape[0]] = some
        largest[start // NF4_GROUP :][: state.absmax.numel()] = state.absmax
    offset = largest.mean()
    scales, scales_state = functional.quantize_blockwise(
        largest - offset, blocksize=NF4_SCALE_GROUP
    )
    whole = functional.QuantState(
        absmax=scales,
        shape=weight.shape,
        dtype=weight.dtype,
        blocksize=NF4_GROUP,
        code=functional.get_4bit_type("nf4", device=weight.device),
        quant_type="nf4",
        offset=offset,
        state2=scales_state,
    )
    made: nn.Parameter = bnb.nn.Params4bit(
        packed,
        requires_grad=False,
        quant_state=whole,
        blocksize=NF4_GROUP,
        quant_type="nf4",
        bnb_quantized=True,
    )
    return made
