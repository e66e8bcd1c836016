"""How much memory holds how many blocks of a model."""

from __future__ import annotations

from superbloom.control.messages import ModelInfo
from superbloom.domain.budget import LEAST_CACHE_TOKENS, MIB, blocks_that_fit
from superbloom.domain.model_card import ModelShape, Precision

STEP_BYTES = 16 * MIB


def blocks_held(model: ModelInfo, precision: Precision, memory_bytes: int) -> int:
    """How many blocks fit, as the server will find."""
    return blocks_that_fit(_shape(model), precision, memory_bytes)


def bytes_for(model: ModelInfo, precision: Precision, blocks: int) -> int:
    """The least budget, in whole STEP_BYTES, that holds `blocks`."""
    shape = _shape(model)
    a_block = shape.block_bytes[precision] + 2 * LEAST_CACHE_TOKENS * shape.cache_bytes_per_token
    steps = max(1, blocks * a_block // STEP_BYTES)
    while blocks_that_fit(shape, precision, steps * STEP_BYTES) < blocks:
        steps += 1 + steps // 64
    while steps > 1 and blocks_that_fit(shape, precision, (steps - 1) * STEP_BYTES) >= blocks:
        steps -= 1
    return steps * STEP_BYTES


def _shape(model: ModelInfo) -> ModelShape:
    """What the budget asks of a model; the rest plays no part there."""
    return ModelShape(
        family=model.family,
        blocks=model.blocks,
        hidden_size=model.hidden_size,
        vocabulary=0,
        context_tokens=model.context_tokens,
        parameters=model.parameters,
        block_bytes=model.block_bytes,
        client_bytes=model.client_bytes,
        cache_bytes_per_token=model.cache_bytes_per_token,
    )
