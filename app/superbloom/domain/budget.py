"""How much memory a share may take, and how many blocks with their cache fit into it."""

from __future__ import annotations

from dataclasses import dataclass

from superbloom.domain.errors import BudgetTooSmall, ModelUnsupported
from superbloom.domain.model_card import ModelShape, Precision
from superbloom.domain.span import Span

MIB = 1024 * 1024
GIB = 1024 * MIB

LEAST_CACHE_TOKENS = 1024
"""A span that cannot hold this many tokens of cache is of no use to anybody."""

MOST_CACHE_CONTEXTS = 16
"""Full-length sessions beyond this many would wait for the device anyway."""

ACTIVATION_TOKENS = 2048
"""The most tokens one forward carries: bounds what activations take."""

ACTIVATION_WIDTH = 24
"""Bytes that one token's activations take, in multiples of the hidden size (several in fp32)."""

SCORE_BYTES = 64 * MIB
"""Attention scores that are computed at once take no more, however long the text."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What one span takes, in bytes."""

    weight_bytes: int
    cache_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.activation_bytes


def careful_part(free_bytes: int, *, accelerator: bool) -> int:
    """The default budget out of what is free now: the owner's other programs keep room."""
    if accelerator:
        return max(0, min(free_bytes * 9 // 10, free_bytes - 512 * MIB))
    return max(0, min(free_bytes * 6 // 10, free_bytes - 2 * GIB))


def blocks_that_fit(shape: ModelShape, precision: Precision, memory_bytes: int) -> int:
    """How many blocks with a least useful cache fit into the budget (0 to `shape.blocks`).

    Raises ModelUnsupported for a precision that the model cannot be held in.
    """
    one_block = _block_bytes(shape, precision) + _cache_bytes_a_token(shape, precision) * (
        LEAST_CACHE_TOKENS
    )
    room = memory_bytes - _activation_bytes(shape) - _loading_bytes(shape, precision)
    return max(0, min(shape.blocks, room // one_block))


def plan_memory(
    shape: ModelShape, precision: Precision, span: Span, memory_bytes: int
) -> MemoryPlan:
    """Divide the budget for `span`; what loading takes besides is the cache's later.

    Raises BudgetTooSmall when it does not fit, and ModelUnsupported as `blocks_that_fit` does.
    """
    fitting = blocks_that_fit(shape, precision, memory_bytes)
    if fitting < len(span):
        raise BudgetTooSmall(
            f"Blocks {span} in {precision.value} need more than the memory budget of "
            f"{in_words(memory_bytes)}, which holds {fitting} of {shape.blocks} blocks."
        )
    weights = _block_bytes(shape, precision) * len(span)
    activations = _activation_bytes(shape)
    a_token = _cache_bytes_a_token(shape, precision) * len(span)
    most = a_token * shape.context_tokens * MOST_CACHE_CONTEXTS
    return MemoryPlan(weights, min(memory_bytes - weights - activations, most), activations)


def in_words(size: int) -> str:
    """Bytes as people say them."""
    return f"{size / GIB:.1f} GB" if size >= GIB else f"{size / MIB:.0f} MB"


def parse_size(text: str) -> int:
    """Read `4GB`, `800 MB`, `1.5g` or plain bytes; ValueError otherwise."""
    cleaned = text.strip().lower().replace(" ", "").removesuffix("ib").removesuffix("b")
    factors = {"k": 1024, "m": MIB, "g": GIB, "t": 1024 * GIB}
    factor = factors.get(cleaned[-1:], 0)
    size = int(float(cleaned[:-1] if factor else cleaned) * (factor or 1))
    if size <= 0:
        raise ValueError(f"a size is above zero, not {text!r}")
    return size


def _block_bytes(shape: ModelShape, precision: Precision) -> int:
    size = shape.block_bytes.get(precision)
    if size is None:
        raise ModelUnsupported(
            f"Models of the family {shape.family} keep their weights in a form that cannot be "
            f"held in {precision.value} yet.",
            "Choose the precision bf16.",
        )
    return max(1, size)


def _loading_bytes(shape: ModelShape, precision: Precision) -> int:
    """How much larger the block that is being loaded is than in the form in which it is held."""
    plain = shape.block_bytes.get(Precision.BF16, 0) * (2 if precision is Precision.FP32 else 1)
    return max(0, plain - _block_bytes(shape, precision))


def _cache_bytes_a_token(shape: ModelShape, precision: Precision) -> int:
    """Keys and values of one block for one token: twice as wide when the stage computes in fp32."""
    return shape.cache_bytes_per_token * (2 if precision is Precision.FP32 else 1)


def _activation_bytes(shape: ModelShape) -> int:
    return ACTIVATION_TOKENS * ACTIVATION_WIDTH * shape.hidden_size + SCORE_BYTES
