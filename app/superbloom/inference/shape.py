"""A model's sizes, computed from its configuration on the meta device: nothing is typed by hand.

One block of each kind is built without memory, and counted as often as the model has that kind.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Cache, PretrainedConfig, PreTrainedModel

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.model_card import ModelShape, Precision
from superbloom.domain.span import Span
from superbloom.inference.block_model import BlockModel
from superbloom.inference.cpu.fast_linears import holds_half
from superbloom.inference.cpu.joined_linears import is_plain_linear
from superbloom.inference.families import block_count, slice_config, text_config
from superbloom.inference.quantization import (
    NF4_GROUP,
    NF4_SCALE_GROUP,
    is_held_in,
)

_VALUE_BYTES: Mapping[Precision, int] = {
    Precision.FP32: 4,
    Precision.BF16: 2,
    Precision.FP16: 2,
}
_BF16_BYTES = 2
_WIDEST_BYTES = 4

# bitsandbytes keeps with each nf4 tensor its tables (256 and 16 values) and an offset.
_NF4_TABLE_BYTES = 256 * 4 + 16 * 4 + 4


def shape_of(config: Mapping[str, object]) -> ModelShape:
    """The sizes of the model with this configuration (the content of its config.json).

    Raises ModelUnsupported for a family or a configuration that transformers cannot build, or
    whose blocks keep something else than keys and values.
    """
    try:
        return _shape_of(json.dumps(config, sort_keys=True))
    except ModelUnsupported:
        raise
    except Exception as error:  # a foreign family's code raises what it likes
        raise ModelUnsupported(
            f"The sizes of a model of the kind {config.get('model_type')!r} cannot be computed: "
            f"{error}."
        ) from error


def shape_on(device: torch.device, shape: ModelShape) -> ModelShape:
    """The sizes as `device` holds the model: a CPU computes in fp32 with weights of 16 bits.

    It does so with linear layers; families that keep weights elsewhere count as before.
    """
    sizes = shape.block_bytes
    short = shape.published_bytes == _BF16_BYTES and Precision.INT8 in sizes
    if device.type != "cpu" or not short or not holds_half(torch.float32):
        return shape
    return dataclasses.replace(shape, block_bytes={**sizes, Precision.FP32: sizes[Precision.BF16]})


@lru_cache(maxsize=64)
def _shape_of(content: str) -> ModelShape:
    whole = cast("dict[str, object]", json.loads(content))
    config = text_config(whole)
    count = block_count(config)
    kinds = Counter(_kind(config, block) for block in range(count))
    blocks: dict[str, nn.Module] = {}
    ends = 0
    cache_bytes = 0
    for kind in kinds:
        model = _build(json.loads(kind), type(config))
        block = BlockModel(_trunk_of(model)).layers[0]
        blocks[kind] = block
        ends = _parameters(model) - _parameters(block)
        cache_bytes = max(cache_bytes, _cache_bytes(model))
    total = ends + sum(_parameters(blocks[kind]) * times for kind, times in kinds.items())
    return ModelShape(
        family=config.model_type,
        blocks=count,
        hidden_size=int(config.hidden_size),
        vocabulary=int(config.vocab_size),
        context_tokens=_context(config, whole),
        parameters=total,
        block_bytes={
            precision: max(_block_bytes(block, precision) for block in blocks.values())
            for precision in Precision
            if all(is_held_in(precision, block) for block in blocks.values())
        },
        client_bytes=ends * _BF16_BYTES,
        cache_bytes_per_token=cache_bytes,
        published_bytes=_published_bytes(config, whole),
    )


def _kind(config: PretrainedConfig, block: int) -> str:
    """A block's kind: the configuration of a model that has only this block, as text."""
    content = slice_config(config, Span(block, block + 1)).to_dict()
    return json.dumps(content, sort_keys=True, default=str)


def _build(content: dict[str, Any], kind: type[PretrainedConfig]) -> PreTrainedModel:
    """A causal language model of this configuration that takes no memory."""
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(kind.from_dict(content))  # type: ignore[no-untyped-call]
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise ModelUnsupported(
            f"The model's configuration cannot be built by transformers: {error}"
        ) from error
    built: PreTrainedModel = model.eval()
    return built


def _trunk_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its head."""
    return cast("PreTrainedModel", model.base_model)


def _parameters(module: nn.Module) -> int:
    """Parameters of a module; a tensor used twice counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _block_bytes(block: nn.Module, precision: Precision) -> int:
    """A block's weights as a server holds them: only linear layers are ever quantized."""
    if precision in _VALUE_BYTES:
        return _parameters(block) * _VALUE_BYTES[precision]
    quantized = [module.weight for module in block.modules() if is_plain_linear(module)]
    rest = _parameters(block) - sum(weight.numel() for weight in quantized)
    stored = _int8_bytes if precision is Precision.INT8 else _nf4_bytes
    return rest * _BF16_BYTES + sum(stored(weight) for weight in quantized)


def _int8_bytes(weight: torch.Tensor) -> int:
    """One byte a weight and a 32-bit scale a row (LLM.int8(), arXiv 2208.07339)."""
    return weight.numel() + weight.shape[0] * 4


def _nf4_bytes(weight: torch.Tensor) -> int:
    """Half a byte a weight and doubly quantized scales (QLoRA, arXiv 2305.14314)."""
    groups = math.ceil(weight.numel() / NF4_GROUP)
    scales = groups + math.ceil(groups / NF4_SCALE_GROUP) * 4
    return math.ceil(weight.numel() / 2) + scales + _NF4_TABLE_BYTES


class _CacheReached(Exception):
    """The forward came as far as its cache; `values` were to be kept there."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values


class _CountingCache(Cache):
    """Ends the forward as soon as keys and values of a block are handed over, and counts them."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise _CacheReached(key_states.numel() + value_states.numel())

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return query_length, 0


def _cache_bytes(model: PreTrainedModel) -> int:
    """Keys and values of one token, seen on one token that goes through the block.

    A family that keeps something else from token to token counts as 0.
    """
    hidden = torch.zeros(1, 1, model.config.hidden_size, dtype=model.dtype, device="meta")
    try:
        model.base_model(inputs_embeds=hidden, cache=_CountingCache(), use_cache=True)
    except _CacheReached as reached:
        return reached.values * _BF16_BYTES
    return 0


def _published_bytes(config: PretrainedConfig, whole: Mapping[str, object]) -> int:
    """Bytes of a weight by the configuration's dtype; the widest where it names none."""
    dtype = config.dtype or whole.get("dtype") or whole.get("torch_dtype")
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else _WIDEST_BYTES


def _context(config: PretrainedConfig, whole: Mapping[str, object]) -> int:
    """The longest text the model was made for, in tokens; families name it differently."""
    for name in ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"):
        value = getattr(config, name, None) or whole.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return 2048
