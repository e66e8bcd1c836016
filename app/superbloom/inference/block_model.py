"""Transformers' own model with only some of its blocks: built empty, then filled from a checkpoint.

The blocks' weights are read block by block through transformers' own loading, so that renamed and
fused tensors of any checkpoint arrive where the model's code wants them.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.quantizers.base import HfQuantizer
from transformers.utils import logging as transformers_logging

from superbloom.domain.errors import ModelDamaged, ModelUnsupported
from superbloom.domain.span import Span
from superbloom.inference.families import slice_config, text_name
from superbloom.inference.packed_attention import PACKED
from superbloom.inference.weights import (
    DTYPES,
    Checkpoint,
    StoredTensor,
    block_of,
    tensors_of_blocks,
)


class Nothing(nn.Module):
    """Stands for learned positions, which the client has added already: adds zero."""

    def forward(self, *_: object, **__: object) -> Tensor:
        """A zero that fits any shape."""
        return torch.zeros(())


class Untouched(nn.Module):
    """Stands for the embeddings' norm and the final norm, which are the client's."""

    def forward(self, hidden: Tensor, *_: object, **__: object) -> Tensor:
        """`hidden` itself."""
        return hidden


class BlockModel:
    """A model's blocks and what transformers calls around them.

    `trunk` is the module that owns the list of blocks and runs them; `list_name` is that list's
    name in it; `packed` tells whether it runs the packed steps of several sessions.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.trunk, self.list_name, self.prefix = _trunk(model)
        self.config: PretrainedConfig = self.trunk.config
        self.packed = False
        self._attention_alone: str = self.config._attn_implementation

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks."""
        found = getattr(self.trunk, self.list_name)
        assert isinstance(found, nn.ModuleList)
        return found

    @property
    def _attention(self) -> str:
        return PACKED if self.packed else self._attention_alone

    def set_packed(self, packed: bool) -> None:
        """Choose the attention: for packed steps, or transformers' own for one session."""
        self.packed = packed
        for module in self.model.modules():
            config = getattr(module, "config", None)
            if isinstance(config, PretrainedConfig):
                config._attn_implementation_internal = self._attention

    def part(self, blocks: Span) -> PreTrainedModel:
        """The trunk with only `blocks` of its list (counted within it); weights are shared."""
        config = slice_config(self.config, blocks)
        config._attn_implementation_internal = self._attention
        trunk = copy.copy(self.trunk)
        trunk._modules = dict(self.trunk._modules)
        trunk._modules[self.list_name] = nn.ModuleList(self.layers[blocks.start : blocks.end])
        trunk.config = config
        return trunk


def build_empty(config: PretrainedConfig, blocks: Span, dtype: torch.dtype) -> BlockModel:
    """`blocks` of the model on the meta device, without its ends. Raises ModelUnsupported."""
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(  # type: ignore[no-untyped-call]
                slice_config(config, blocks), dtype=dtype
            )
        built = BlockModel(model.eval())
    except ModelUnsupported:
        raise
    except Exception as error:  # a foreign constructor raises what it likes
        raise ModelUnsupported(
            f"Blocks of the kind {config.model_type!r} cannot be built: {error}."
        ) from error
    drop_ends(built)
    return built


def drop_ends(built: BlockModel) -> None:
    """Take out what the client holds: embeddings, positions, projections, final norm."""
    embeddings = built.model.get_input_embeddings()
    for name, module in list(built.trunk.named_children()):
        if name == built.list_name or not any(True for _ in module.parameters()):
            continue
        positions = isinstance(module, nn.Embedding) and module is not embeddings
        setattr(built.trunk, name, Nothing() if positions else Untouched())


def fill(
    built: BlockModel,
    folder: Path,
    blocks: Span,
    *,
    dtype: torch.dtype,
    device: torch.device,
    after_block: Callable[[int, nn.Module], None],
    fill_on: torch.device | None = None,
    quantizer: HfQuantizer | None = None,
) -> None:
    """Read the blocks' weights one block at a time; `after_block(place, block)` follows each.

    Weights are read to `fill_on` if it is given, from where `after_block` brings them to `device`.
    `quantizer` unpacks a checkpoint that is stored quantized.

    Raises ModelDamaged for missing or odd tensors, ModelUnsupported for a form not understood.
    """
    checkpoint = Checkpoint(folder)
    places = {"": str(fill_on or device)}
    if quantizer is not None:
        quantizer.preprocess_model(built.model, dtype=dtype, device_map=places)
    settings = LoadStateDictConfig(
        device_map=places,
        dtype=dtype,
        hf_quantizer=quantizer,
        dtype_plan=built.model._get_dtype_plan(dtype),
        weight_mapping=get_model_conversion_mapping(built.model, hf_quantizer=quantizer),  # type: ignore[arg-type]
    )
    names = tensors_of_blocks(checkpoint.names, blocks)
    for place, block in enumerate(blocks):
        stored = {
            _moved(text_name(name), block, place): LazyTensor(checkpoint.tensor(name))
            for name in names
            if block_of(name) == block
        }
        _fill_block(built, place, stored, settings, block)
        after_block(place, built.layers[place])
    fill_buffers(built.model, device)


class LazyTensor:
    """A stored tensor as transformers' loading takes it: read when it is indexed."""

    def __init__(self, stored: StoredTensor) -> None:
        self.stored = stored

    def __getitem__(self, _: object) -> Tensor:
        return self.stored.read()

    def get_dtype(self) -> str:
        """The stored dtype's name in safetensors."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.stored.dtype)

    def get_shape(self) -> list[int]:
        """The stored shape."""
        return list(self.stored.shape)


def _fill_block(
    built: BlockModel,
    place: int,
    stored: Mapping[str, LazyTensor],
    settings: LoadStateDictConfig,
    block: int,
) -> None:
    prefix = f"{built.prefix}{place}."
    wanted = {name for name in built.model.state_dict() if name.startswith(prefix)}
    with _one_tensor_at_a_time():
        info, _ = convert_and_load_state_dict_in_model(built.model, dict(stored), settings)
    if info.conversion_errors:
        raise ModelUnsupported(
            f"The weights of block {block} are in a form that this version cannot read."
        ) from RuntimeError("\n".join(info.conversion_errors.values()))
    odd = sorted(name for name, *_ in info.mismatched_keys)
    if odd:
        raise ModelDamaged(f"Block {block} does not fit the configuration: {', '.join(odd[:3])}.")
    missing = sorted(wanted & info.missing_keys)
    if missing:
        raise ModelDamaged(f"Block {block} lacks {len(missing)} tensors: {', '.join(missing[:3])}.")


def fill_buffers(model: PreTrainedModel, device: torch.device) -> None:
    """Compute what no checkpoint stores, such as rotary frequencies, as transformers does."""
    for name, buffer in list(model.named_buffers()):
        if buffer.device.type == "meta":
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = torch.empty_like(buffer, device=device)
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        for parameter in own:
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        if own and not any(True for _ in module.buffers(recurse=False)):
            module._is_hf_initialized = True  # type: ignore[assignment]
    model.initialize_weights()  # type: ignore[no-untyped-call]
    model.requires_grad_(False)


def _trunk(model: PreTrainedModel) -> tuple[PreTrainedModel, str, str]:
    """The owner of the blocks, its list's name, and the prefix of the blocks' tensors."""
    count = int(model.config.num_hidden_layers)
    for path, module in model.named_modules():
        for name, child in module.named_children():
            if (
                isinstance(child, nn.ModuleList)
                and len(child) == count
                and isinstance(module, PreTrainedModel)
            ):
                return module, name, ".".join(part for part in (path, name) if part) + "."
    raise ModelUnsupported(f"No list of blocks was found in a model {model.config.model_type!r}.")


def _moved(name: str, block: int, place: int) -> str:
    """The tensor's name when its block stands at `place`."""
    return re.sub(rf"(^|\.){block}\.", rf"\g<1>{place}.", name, count=1)


@contextmanager
def _one_tensor_at_a_time() -> Iterator[None]:
    """Keep transformers from reading many tensors ahead, and from drawing a bar for each block."""
    switch = "HF_DEACTIVATE_ASYNC_LOAD"
    before: Any = os.environ.get(switch)
    os.environ[switch] = "1"
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before
