"""A session's keys and values in the blocks it uses, grown page by page and written in place.

Blocks with a sliding window keep the window, and what a rewind may need, and forget the rest.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

from superbloom.domain.errors import ProtocolViolation, SessionRefused
from superbloom.domain.span import Span

PAGE_TOKENS = 256
"""Caches grow by this many tokens at a time."""

REWIND_TOKENS = 1024
"""A session may always go back by so many tokens.

That is what a client has under way while it sends a prompt: after the loss of one server the others
go back to where the chain as a whole has come.
"""

SLIDE_TOKENS = 512
"""A windowed block forgets once in so many tokens: what stays is copied then."""


def pages_for(tokens: int) -> int:
    """`tokens` rounded up to whole pages, in tokens."""
    return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS


def held_for(tokens: int, window: int | None) -> int:
    """How many tokens a block's cache has room for when its session has `tokens`.

    Holds for steps of at most SLIDE_TOKENS.
    """
    whole = pages_for(tokens)
    return whole if window is None else min(whole, _bound(window))


def _bound(window: int) -> int:
    return pages_for(window + REWIND_TOKENS + SLIDE_TOKENS)


class SessionCache:
    """Keys and values of one session: for each of its blocks `[heads, tokens, dim]` twice.

    `first_layer` is the index, within the stage, of the first block of `blocks`.
    """

    __slots__ = ("_first_layer", "_held", "blocks", "tokens")

    def __init__(self, blocks: Span, *, first_layer: int = 0) -> None:
        self.blocks = blocks
        self.tokens = 0
        self._first_layer = first_layer
        self._held = [_BlockCache() for _ in blocks]

    @property
    def nbytes(self) -> int:
        """Memory held now, in bytes."""
        return sum(held.nbytes for held in self._held)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in the session's first block; 0 before the first step."""
        first = self._held[0]
        return first.nbytes // first.capacity if first.capacity else 0

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Each block's sliding window in tokens, None without one; known after the first step."""
        return tuple(held.window for held in self._held)

    @property
    def earliest(self) -> int:
        """The earliest position above 0 that a step may go back to."""
        return max(held.earliest for held in self._held)

    def crop(self, tokens: int) -> None:
        """Forget everything from position `tokens` on; what is there is written over.

        Raises ProtocolViolation when the cache does not reach that far, SessionRefused when a
        windowed block has forgotten what that position sees. 0 is always possible.
        """
        if not 0 <= tokens <= self.tokens:
            raise ProtocolViolation(
                f"A step starts at position {tokens}, but the session holds {self.tokens} tokens."
            )
        if 0 < tokens < self.earliest:
            raise SessionRefused(
                f"A step goes back to position {tokens}, but the server remembers only what is "
                f"needed from {self.earliest} on.",
                "The text is computed again from its beginning.",
            )
        if tokens == 0:
            for held in self._held:
                held.first = 0
        self.tokens = tokens

    def write(
        self, layer: int, keys: Tensor, values: Tensor, window: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Put a step's keys and values `[heads, n, dim]` behind the tokens there are.

        `layer` counts within the stage; a token of it sees only the last `window` tokens, if any.
        Returns both with their past, as views: `[heads, tokens + n, dim]`, or for a windowed block
        at least the last `window - 1 + n` of these. `tokens` does not change until the whole step
        has passed: see `advance`.
        """
        held = self._held[layer - self._first_layer]
        held.window = window
        return held.write(self.tokens, keys, values)

    def advance(self, tokens: int) -> None:
        """A step of `tokens` tokens has passed every block."""
        self.tokens += tokens


class _BlockCache:
    """One block's keys and values, from position `first` on."""

    __slots__ = ("_keys", "_values", "first", "window")

    def __init__(self) -> None:
        self.first = 0
        self.window: int | None = None
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return sum(held.nbytes for held in (self._keys, self._values) if held is not None)

    @property
    def capacity(self) -> int:
        return 0 if self._keys is None else int(self._keys.shape[1])

    @property
    def earliest(self) -> int:
        return self.first + self.window - 1 if self.window is not None and self.first else 0

    def write(self, past: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        count = int(keys.shape[1])
        if past + count - self.first > self.capacity:
            self._make_room(past, count, keys, values)
        assert self._keys is not None
        assert self._values is not None
        begin = past - self.first
        end = begin + count
        self._keys.narrow(1, begin, count).copy_(keys)  # quicker than by an index
        self._values.narrow(1, begin, count).copy_(values)
        return self._keys.narrow(1, 0, end), self._values.narrow(1, 0, end)

    def _make_room(self, past: int, count: int, keys: Tensor, values: Tensor) -> None:
        first = self.first
        capacity = pages_for(past + count - first)
        if self.window is not None and capacity > _bound(self.window):
            first = max(first, past - REWIND_TOKENS - self.window + 1)
            capacity = max(_bound(self.window), pages_for(past + count - first))
        kept = slice(first - self.first, past - self.first)
        # Both are made before either is replaced: memory may run out between them.
        all_keys = _moved(self._keys, keys, kept, capacity)
        all_values = _moved(self._values, values, kept, capacity)
        self._keys, self._values, self.first = all_keys, all_values, first


def _moved(held: Tensor | None, like: Tensor, kept: slice, capacity: int) -> Tensor:
    """New memory for `capacity` tokens that begins with the `kept` ones of `held`."""
    size = (like.shape[0], capacity, like.shape[2])
    new = _empty(size, like.dtype, like.device)
    if held is not None and kept.stop > kept.start:
        new[:, : kept.stop - kept.start] = held[:, kept]
    return new


def _empty(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for a tensor; the computer's own comes from the system and goes back when it is freed.

    The C library would keep what caches leave behind as they grow: a fifth of what they hold.
    """
    if device.type != "cpu":
        return torch.empty(size, dtype=dtype, device=device)
    try:
        pages = mmap.mmap(-1, math.prod(size) * dtype.itemsize)
    except (OSError, ValueError) as error:
        raise MemoryError(f"{size} of {dtype}") from error
    return torch.frombuffer(pages, dtype=dtype).view(size)
