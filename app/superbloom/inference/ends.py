"""The client's part of a model: embeddings, final norm and head, and none of its blocks.

Whatever a family does around its blocks (embedding norms and scales, learned positions,
projections, soft caps) is done by transformers' own forward: the model is built with one block,
and in that block's place stands a `Port` that takes out what would enter it, or puts in what
would leave it.

Embeddings and heads too large to be held are mapped from their file, in their stored dtype: rows
are looked up where they lie, and the system may take the memory of the head back at any time.
Smaller heads are held as `fast_head` has them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as transformers_logging

from superbloom.domain.errors import ModelDamaged, ModelNotHere, ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.inference.block_model import BlockModel, LazyTensor, fill_buffers
from superbloom.inference.families import slice_config, text_config, text_name
from superbloom.inference.fast_head import quicken_head
from superbloom.inference.quantization import compute_dtype
from superbloom.inference.weights import Checkpoint, StoredTensor, read_config, tensors_of_ends

EMBED_TOKENS = 256
"""Tokens embedded at once: some families make a mask of the square of this on the way."""


MAPPED_BYTES = 512 * 1024 * 1024
"""On a CPU, tensors of at least so many stored bytes are mapped."""


class ClientEnds:
    """What the client computes of a model. May be shared by threads: they take turns."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> None:
        built = BlockModel(model)
        self.vocabulary = int(built.config.vocab_size)
        self.hidden_size = int(built.config.hidden_size)
        self.dtype = dtype
        self.device = device
        self._model = model
        self._trunk = built.trunk
        self._port = Port()
        self._turn = threading.Lock()
        setattr(built.trunk, built.list_name, nn.ModuleList([self._port]))

    @classmethod
    def load(cls, folder: Path, *, precision: Precision, device: torch.device) -> ClientEnds:
        """Read the ends of the model in `folder`; the blocks' shards need not be there.

        `dtype` becomes that of the largest mapped tensor, if any. INT8 has the head in 8 bits.

        Raises ModelNotHere, ModelDamaged, ModelUnsupported.
        """
        if not folder.is_dir():
            raise ModelNotHere(f"There is no model in {folder}.")
        config = text_config(read_config(folder))
        dtype = compute_dtype(precision, device)
        checkpoint = Checkpoint(folder)
        tensors = [checkpoint.tensor(name) for name in tensors_of_ends(checkpoint.names)]
        largest = max(tensors, key=lambda stored: stored.nbytes, default=None)
        large = largest is not None and device.type == "cpu" and largest.nbytes >= MAPPED_BYTES
        if largest is not None and large:
            dtype = largest.dtype
        model = _build_empty(config, dtype)
        ends = cls(model, dtype, device)
        _fill(model, tensors, dtype, device)
        if device.type == "cpu" and not large:
            quicken_head(model, tensors, precision, dtype)
        ends._learn_what_blocks_return()
        return ends

    def embed(self, token_ids: Sequence[int], position: int) -> Tensor:
        """What enters the first block: `[tokens, hidden]`. `position`: the first token's index."""
        return self.embed_each([(token_ids, position)])[0]

    @torch.inference_mode()
    def embed_each(self, parts: Sequence[tuple[Sequence[int], int]]) -> list[Tensor]:
        """As `embed`, for several `(token_ids, position)` at once."""
        ids = torch.tensor([token for tokens, _ in parts for token in tokens], device=self.device)
        ranges = [torch.arange(position, position + len(tokens)) for tokens, position in parts]
        places = torch.cat(ranges).to(self.device)
        with self._turn:
            chunks = [
                self._entering(some_ids, some_places)
                for some_ids, some_places in zip(
                    torch.split(ids, EMBED_TOKENS), torch.split(places, EMBED_TOKENS), strict=True
                )
            ]
        entering = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        return list(torch.split(entering, [len(tokens) for tokens, _ in parts]))

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Scores `[tokens, vocabulary]` float32 from the last block's output `[tokens, hidden]`."""
        row = hidden.to(device=self.device, dtype=self.dtype)[None]
        places = torch.arange(row.shape[1], device=self.device)[None]
        with self._turn:
            self._port.leaving = row
            try:
                # The ids are only there to make the call: the port replaces what comes of them.
                result = self._model(
                    input_ids=torch.zeros_like(places), position_ids=places, use_cache=False
                )
            finally:
                self._port.leaving = None
        scores: Tensor = result.logits
        return scores[0].float()

    def _entering(self, ids: Tensor, places: Tensor) -> Tensor:
        self._trunk(input_ids=ids[None], position_ids=places[None], use_cache=False)
        entered = self._port.entered
        self._port.entered = None
        assert entered is not None
        return entered[0]

    @torch.inference_mode()
    def _learn_what_blocks_return(self) -> None:
        """Families differ: some blocks return the hidden states, some a tuple that begins so."""
        nothing = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        result = self._trunk(input_ids=nothing, position_ids=nothing, use_cache=False)
        self._port.returns_tuple = result.last_hidden_state.dim() != 3


class Port(nn.Module):
    """Stands where the blocks were. `entered` is what came to the first one; `leaving`, if set,
    is passed on instead of it. Both are `[1, tokens, hidden]`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered: Tensor | None = None
        self.leaving: Tensor | None = None
        self.returns_tuple = False

    def forward(self, hidden: Tensor, *_: object, **__: object) -> Tensor | tuple[Tensor]:
        """As a block is called."""
        self.entered = hidden
        passed = hidden if self.leaving is None else self.leaving
        return (passed,) if self.returns_tuple else passed


def _build_empty(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model with one block, on the meta device. Raises ModelUnsupported."""
    try:
        with torch.device("meta"):
            # Eager attention is the form that every family has; no attention is computed here.
            model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                slice_config(config, Span(0, 1)), dtype=dtype, attn_implementation="eager"
            )
    except Exception as error:
        raise ModelUnsupported(
            f"A model of the kind {config.model_type!r} cannot be built: {error}."
        ) from error
    model.eval()  # type: ignore[no-untyped-call]
    return model


class MappedTensor(LazyTensor):
    """A stored tensor that stays on its file when it is large."""

    def __getitem__(self, _: object) -> Tensor:
        large = self.stored.nbytes >= MAPPED_BYTES
        return self.stored.map() if large else self.stored.read()


def _fill(
    model: PreTrainedModel,
    tensors: Sequence[StoredTensor],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Read what is of no block, as transformers reads it: old names and tied heads included."""
    kind = MappedTensor if device.type == "cpu" else LazyTensor
    stored = {text_name(tensor.name): kind(tensor) for tensor in tensors}
    settings = LoadStateDictConfig(
        device_map={"": str(device)},
        dtype=dtype,
        dtype_plan=model._get_dtype_plan(dtype),
        weight_mapping=get_model_conversion_mapping(model),  # type: ignore[arg-type]
    )
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    info, _ = convert_and_load_state_dict_in_model(model, dict(stored), settings)
    if info.conversion_errors:
        raise ModelUnsupported(
            "The model's embeddings or head are in a form that this version cannot read."
        ) from RuntimeError("\n".join(info.conversion_errors.values()))
    odd = sorted(name for name, *_ in info.mismatched_keys)
    if odd:
        raise ModelDamaged(f"The files do not fit the configuration: {', '.join(odd[:3])}.")
    model.tie_weights()
    missing = sorted(name for name, weight in model.named_parameters() if weight.is_meta)
    if missing:
        raise ModelDamaged(f"The files lack {', '.join(missing[:3])}.")
    fill_buffers(model, device)
