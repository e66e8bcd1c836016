"""A stage: a span of a model's blocks, loaded from a model folder onto one device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.inference.block_model import build_empty, fill
from superbloom.inference.block_runner import BlockRunner, StageStep
from superbloom.inference.cpu.fast_linears import has_fast_form, quicken
from superbloom.inference.cpu.packed import choose_least_rows
from superbloom.inference.families import block_count, text_config
from superbloom.inference.quantization import (
    check_held_in,
    compute_dtype,
    filling_device,
    quantize_block,
    stored_quantizer,
)
from superbloom.inference.self_check import check_family
from superbloom.inference.weights import read_config

__all__ = ["Stage", "StageStep"]


class Stage(BlockRunner):
    """Blocks `span` of a model folder's model. Not thread-safe: one thread owns it."""

    @classmethod
    def load(
        cls,
        folder: Path,
        span: Span,
        *,
        precision: Precision,
        device: torch.device,
        progress: Callable[[int, int], None] | None = None,
    ) -> Stage:
        """Read `span` from a model folder, block by block; `progress(done, total)` counts blocks.

        Memory holds at most 1.3 times the span's weights meanwhile, and beside weights that are
        held in another form one block in its plain form, on the CPU. Raises ModelDamaged,
        ModelUnsupported.
        """
        content = read_config(folder)
        quantizer = stored_quantizer(content)
        config = text_config(content)
        if span.end > block_count(config):
            raise ModelUnsupported(
                f"The model has {block_count(config)} blocks, so there is no span {span}.",
                "Choose blocks that the model has.",
            )
        packed = check_family(content)
        dtype = compute_dtype(precision, device)
        built = build_empty(config, span, dtype)
        check_held_in(precision, built.layers)
        built.set_packed(packed)
        quickened = device.type == "cpu" and has_fast_form(dtype)

        def after_block(place: int, block: torch.nn.Module) -> None:
            quantize_block(block, precision, dtype, device)
            if quickened:
                quicken(block, dtype)
            if progress is not None:
                progress(place + 1, len(span))

        fill(
            built,
            folder,
            span,
            dtype=dtype,
            device=device,
            fill_on=filling_device(precision, device),
            after_block=after_block,
            quantizer=quantizer,
        )
        if quickened:
            choose_least_rows(built.model)
        return cls(built, span, dtype, device)
