"""The form in which this computer's CPU computes plain linear layers fastest."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

import torch
from torch import nn

from superbloom.inference.cpu.half import can_hold_half, half_layers, hold_half
from superbloom.inference.cpu.joined_linears import replace_linears
from superbloom.inference.cpu.packed import PackedLinear, can_pack
from superbloom.inference.device import fast_cpu_dtype, use_threads

_MOST_WORKERS = 8
"""So many parts of layers are in work at a time: each takes up to 64 MB meanwhile."""


def has_fast_form(dtype: torch.dtype) -> bool:
    """Whether layers in `dtype` have a faster form here than their plain one."""
    return can_pack(dtype) or holds_half(dtype)


def holds_half(dtype: torch.dtype) -> bool:
    """Whether layers in `dtype` are held in 16 bits here wherever that is without loss.

    Those in bf16 are not where the CPU has instructions for bf16: prompts take half as long there.
    """
    return (dtype != torch.bfloat16 or fast_cpu_dtype() != dtype) and can_hold_half()


def quicken(root: nn.Module, dtype: torch.dtype) -> None:
    """Put the fast form of the plain linear layers within `root` in their place.

    Layers that models call with one tensor are joined. Each plain layer is freed meanwhile.
    """
    threads = min(torch.get_num_threads(), _MOST_WORKERS)
    with ThreadPoolExecutor(threads, initializer=use_threads, initargs=(1,)) as workers:
        replace_linears(root, partial(_fast_form, dtype=dtype, workers=workers))
        for layer in half_layers(root):
            layer.finish()


def _fast_form(linear: nn.Linear, *, dtype: torch.dtype, workers: Executor) -> nn.Module:
    half = hold_half(linear, workers) if holds_half(dtype) else None
    if half is not None:
        return half
    return PackedLinear(linear) if can_pack(dtype) else linear
