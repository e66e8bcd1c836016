"""Precisions: what a stage computes in, and int8 and nf4 made block by block.

nf4 and a GPU's int8 are bitsandbytes'; a CPU's int8 is `cpu_int8`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.quantizers.base import HfQuantizer

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.inference.cpu_int8 import Int8Linear
from superbloom.inference.device import fast_cpu_dtype

_DIRECT: Mapping[Precision, torch.dtype] = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
_DEVICES = frozenset({"cpu", "cuda"})
_UNPACKED = frozenset({"mxfp4"})
"""Stored forms that transformers unpacks to plain weights without a GPU."""

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


def quantize_block(
    block: nn.Module, precision: Precision, dtype: torch.dtype, device: torch.device
) -> None:
    """Replace the block's linear layers by quantized ones, one at a time.

    Raises ModelUnsupported where most of a block is not in linear layers (fused experts).
    """
    if precision in _DIRECT:
        return
    _refuse_other_weights(block, precision)
    for name, module in list(block.named_modules()):
        if isinstance(module, nn.Linear) and type(module) is nn.Linear:
            block.set_submodule(name, _quantized(module, precision, dtype, device))


def _refuse_other_weights(block: nn.Module, precision: Precision) -> None:
    for module in block.modules():
        for parameter in module.parameters(recurse=False):
            other = type(module) is not nn.Linear and parameter.ndim > 1
            if other and (parameter.ndim > 2 or isinstance(module, Conv1D)):
                raise ModelUnsupported(
                    f"This family keeps its weights in a form ({type(module).__name__}) that "
                    f"cannot be held in {precision} yet.",
                    _NEXT,
                )


def _quantized(
    linear: nn.Linear, precision: Precision, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    if precision is Precision.INT8 and device.type == "cpu":
        return Int8Linear(linear, wide_dtype=fast_cpu_dtype())
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
        made.weight = bnb.nn.Int8Params(
            weight.to("cpu"), requires_grad=False, has_fp16_weights=False
        ).to(device)
    else:
        made.weight = bnb.nn.Params4bit(weight.to("cpu"), requires_grad=False, quant_type="nf4").to(
            device
        )
    if linear.bias is not None:
        made.bias = nn.Parameter(linear.bias.data.to(device), requires_grad=False)
    return made
