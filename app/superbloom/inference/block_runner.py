"""Runs a span's blocks for steps of many sessions: packed in one row, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from superbloom.domain.span import Span
from superbloom.inference.block_model import BlockModel
from superbloom.inference.cpu.half import half_layers
from superbloom.inference.kv_cache import SessionCache, held_for
from superbloom.inference.packed_attention import PackedCache, PackedPart, running


@dataclass(slots=True)
class StageStep:
    """One session's part of a forward.

    `hidden` is `[tokens, hidden]`; `position` is the index of its first token, to which the cache
    is cropped first.
    """

    cache: SessionCache
    position: int
    hidden: Tensor


class BlockRunner:
    """Blocks `span` of a model. Not thread-safe: one thread owns it."""

    def __init__(self, built: BlockModel, span: Span, dtype: torch.dtype, device: torch.device):
        self.span = span
        self.dtype = dtype
        self.device = device
        self.hidden_size = int(built.config.hidden_size)
        self.before_block: Callable[[], None] | None = None
        """Called, on the CPU, before each block of every forward, in the thread that runs it."""
        if device.type == "cpu":
            for layer in built.layers:
                layer.register_forward_pre_hook(self._begin_block)
        self._built = built
        self._parts: dict[Span, PreTrainedModel] = {}
        tensors = [*built.model.parameters(), *built.model.buffers()]
        self.weight_bytes = sum(tensor.nbytes for tensor in tensors) + sum(
            layer.held_bytes for layer in half_layers(built.model)
        )
        self.cache_bytes_per_token, self._windows = self._measure_cache()

    @property
    def packed(self) -> bool:
        """True if steps of many sessions go through one forward, False if one after the other."""
        return self._built.packed

    def new_cache(self, blocks: Span) -> SessionCache:
        """An empty cache for a session that uses `blocks`, which lie within the stage's span."""
        if not self.span.covers(blocks):
            raise ValueError(f"blocks {blocks} of a stage that holds {self.span}")
        return SessionCache(blocks, first_layer=blocks.start - self.span.start)

    def cache_bytes(self, blocks: Span, tokens: int) -> int:
        """What a session's cache over `blocks` may take when it grows to `tokens` tokens."""
        first = self.span.start
        windows = self._windows[blocks.start - first : blocks.end - first]
        return self.cache_bytes_per_token * sum(held_for(tokens, window) for window in windows)

    @torch.inference_mode()
    def forward(self, steps: Sequence[StageStep]) -> list[Tensor]:
        """Run every step through the blocks their caches share; one `[tokens, hidden]` a step.

        Steps are of different sessions. When anything raises, no cache has advanced.
        Raises ProtocolViolation for a position beyond what a session holds, SessionRefused for one
        that windowed blocks have forgotten.
        """
        blocks = steps[0].cache.blocks
        assert all(step.cache.blocks == blocks for step in steps)
        for step in steps:
            step.cache.crop(step.position)
        part = self._part(blocks)
        outputs = (
            self._run_packed(part, steps) if self.packed else list(self._run_each(part, steps))
        )
        for step in steps:
            step.cache.advance(step.hidden.shape[0])
        return outputs

    def _run_packed(self, part: PreTrainedModel, steps: Sequence[StageStep]) -> list[Tensor]:
        counts = [step.hidden.shape[0] for step in steps]
        parts, positions, start = [], [], 0
        for step, count in zip(steps, counts, strict=True):
            parts.append(PackedPart(step.cache, start, count, step.position))
            positions.append(torch.arange(step.position, step.position + count))
            start += count
        row = self._call(
            part,
            torch.cat([self._arrived(step.hidden) for step in steps]),
            torch.cat(positions),
            PackedCache(len(steps[0].cache.blocks)),
            parts,
        )
        return list(torch.split(row, counts)) if len(counts) > 1 else [row]

    def _run_each(self, part: PreTrainedModel, steps: Sequence[StageStep]) -> Iterator[Tensor]:
        for step in steps:
            positions = torch.arange(step.position, step.position + step.hidden.shape[0])
            cache = OwnCache(step.cache)
            yield self._call(part, self._arrived(step.hidden), positions, cache, ())

    def _call(
        self,
        part: PreTrainedModel,
        row: Tensor,
        positions: Tensor,
        cache: Any,
        parts: Sequence[PackedPart],
    ) -> Tensor:
        token = running.set(parts)
        try:
            result = part(
                inputs_embeds=row[None],
                position_ids=positions.to(self.device)[None],
                cache=cache,
                use_cache=True,
            )
        finally:
            running.reset(token)
        output: Tensor = result.last_hidden_state
        return output[0]

    def _begin_block(self, *_: object) -> None:
        if self.before_block is not None:
            self.before_block()

    def _arrived(self, hidden: Tensor) -> Tensor:
        return hidden.to(device=self.device, dtype=self.dtype)

    def _part(self, blocks: Span) -> PreTrainedModel:
        if blocks not in self._parts:
            offset = self.span.start
            self._parts[blocks] = self._built.part(Span(blocks.start - offset, blocks.end - offset))
        return self._parts[blocks]

    def _measure_cache(self) -> tuple[int, tuple[int | None, ...]]:
        """Bytes of one token in one block, and the blocks' windows, seen on one token."""
        cache = self.new_cache(self.span)
        self.forward([StageStep(cache, 0, torch.zeros(1, self.hidden_size))])
        return cache.token_bytes, cache.windows


class OwnCache:
    """A session's cache as transformers expects one, for one forward of that session alone."""

    is_compileable = False

    def __init__(self, cache: SessionCache) -> None:
        self._cache = cache
        self.is_sliding = [False] * len(cache.blocks)

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append a step's `[1, heads, tokens, dim]`; both with their past."""
        all_keys, all_values = self._cache.write(layer, keys[0], values[0])
        return all_keys[None], all_values[None]

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens held before this step."""
        return self._cache.tokens

    def get_query_offset(self, layer: int = 0) -> int:
        """The position of this step's first token."""
        return self._cache.tokens

    def get_mask_sizes(self, tokens: int, layer: int = 0) -> tuple[int, int]:
        """Keys that a step of `tokens` tokens sees, and where they begin."""
        return self._cache.tokens + tokens, 0

    def get_max_cache_shape(self, layer: int = 0) -> int:
        """Unbounded: the executor bounds sessions."""
        return -1
