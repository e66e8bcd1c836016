"""The toy model under the true executor: what a stage is to it, with a time for every forward."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.span import Span
from superbloom.inference.block_runner import StageStep
from toy_model import HIDDEN, toy_block


class ToyCache:
    """A session's inputs, block by block."""

    def __init__(self, blocks: Span) -> None:
        self.blocks = blocks
        self.earliest = 0
        self.inputs = [torch.zeros(0, HIDDEN) for _ in blocks]


class ToyStage:
    """Forwards take `seconds`, and `token_seconds` for each token in them, as on a device."""

    def __init__(self, span: Span, *, seconds: float = 0.0, token_seconds: float = 0.0) -> None:
        self.span = span
        self.hidden_size = HIDDEN
        self.device = SimpleNamespace(type="toy")
        self.batches: list[list[int]] = []
        """The tokens of every step in every forward."""
        self._seconds = seconds
        self._token_seconds = token_seconds

    def new_cache(self, blocks: Span) -> ToyCache:
        """An empty cache."""
        return ToyCache(blocks)

    def cache_bytes(self, blocks: Span, tokens: int) -> int:
        """A byte a token and block."""
        return len(blocks) * tokens

    def forward(self, steps: Sequence[StageStep]) -> list[Tensor]:
        """As a stage's."""
        self.batches.append([int(step.hidden.shape[0]) for step in steps])
        time.sleep(self._seconds + self._token_seconds * sum(self.batches[-1]))
        return [_through(step.cache, step.position, step.hidden) for step in steps]  # type: ignore[arg-type]


def _through(cache: ToyCache, position: int, hidden: Tensor) -> Tensor:
    for layer, block in enumerate(cache.blocks):
        earlier = cache.inputs[layer][:position]
        if earlier.shape[0] < position:
            raise ProtocolViolation(f"A step at position {position} left a gap.")
        cache.inputs[layer] = torch.cat([earlier, hidden])
        hidden = toy_block(block, hidden, earlier)
    return hidden
