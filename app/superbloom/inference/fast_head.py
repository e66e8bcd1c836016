"""The client's head in the form that a CPU computes fastest, and embeddings that stay on disk.

A head that shares the embeddings' weights needs them in another order than rows are looked up in,
so the rows are then read from the model's file, where the system may take their memory back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from superbloom.domain.model_card import Precision
from superbloom.inference.cpu.fast_linears import has_fast_form, quicken
from superbloom.inference.cpu.int8 import Int8Linear
from superbloom.inference.cpu.packed import choose_least_rows
from superbloom.inference.device import fast_cpu_dtype
from superbloom.inference.families import text_name
from superbloom.inference.weights import StoredTensor


class MappedEmbedding(nn.Module):
    """A table on its file: `[...]` ids in, `[..., width]` in `dtype` out."""

    def __init__(self, table: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", table, persistent=False)
        self._dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of `ids`."""
        return nn.functional.embedding(ids, self.get_buffer("weight")).to(self._dtype)


def quicken_head(
    model: PreTrainedModel,
    tensors: Sequence[StoredTensor],
    precision: Precision,
    dtype: torch.dtype,
) -> None:
    """Reorder the head of a filled `model` on the CPU, or make it 8 bits for INT8.

    `tensors` are what it was filled from. Raises ModelDamaged when its file has gone.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if type(head) is not nn.Linear:
        return
    if precision is Precision.INT8:
        model.set_output_embeddings(Int8Linear(head, wide_dtype=fast_cpu_dtype()))  # type: ignore[no-untyped-call]
    elif has_fast_form(dtype) and _give_up_table(model, head, tensors, dtype):
        holder = nn.ModuleList([head])
        quicken(holder, dtype)
        choose_least_rows(holder)
        model.set_output_embeddings(holder[0])  # type: ignore[no-untyped-call]


def _give_up_table(
    model: PreTrainedModel, head: nn.Linear, tensors: Sequence[StoredTensor], dtype: torch.dtype
) -> bool:
    """Let the embeddings be read from their file if `head` shares them; False if they cannot."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Module)
    if embeddings.weight is not head.weight:
        return True
    stored = _stored_table(model, head, tensors)
    if type(embeddings) is not nn.Embedding or stored is None:
        return False
    model.set_input_embeddings(MappedEmbedding(stored.map(), dtype))
    return True


def _stored_table(
    model: PreTrainedModel, head: nn.Linear, tensors: Sequence[StoredTensor]
) -> StoredTensor | None:
    """Where the shared table was read from; writers may have put a prefix before its name."""
    name = next(name for name, weight in model.named_parameters() if weight is head.weight)
    for tensor in tensors:
        stored = text_name(tensor.name)
        same = name == stored or name.endswith(f".{stored}") or stored.endswith(f".{name}")
        if same and tensor.shape == tuple(head.weight.shape):
            return tensor
    return None
