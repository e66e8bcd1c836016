"""The memory for all sessions' caches: reserved when they open, so that none runs out later."""

from __future__ import annotations

from bisect import bisect_right

from superbloom.domain.errors import SessionRefused
from superbloom.domain.span import Span
from superbloom.inference.kv_cache import PAGE_TOKENS
from superbloom.inference.stage import Stage

MOST_TOKENS = 4 * 1024 * 1024
"""No session is longer, so no more are offered."""


class CacheRoom:
    """`limit_bytes` for the caches of sessions on `stage`."""

    def __init__(self, stage: Stage, limit_bytes: int) -> None:
        self._stage = stage
        self._limit = limit_bytes
        self._reserved = 0

    @property
    def free_tokens(self) -> int:
        """The longest session over the whole stage that there is room for now."""
        return self._free_tokens(self._stage.span)

    def missing_bytes(self, blocks: Span, max_tokens: int, *, before: int = 0) -> int:
        """What a session that has `before` bytes lacks to grow so far; at most 0 if nothing."""
        needed = self._stage.cache_bytes(blocks, max_tokens) - before
        return needed - (self._limit - self._reserved)

    def reserve(self, blocks: Span, max_tokens: int, *, before: int = 0) -> int:
        """Raise a session's reservation from `before` bytes; the new one. Raises SessionRefused."""
        if self.missing_bytes(blocks, max_tokens, before=before) > 0:
            raise SessionRefused(
                f"The server has room for {self._free_tokens(blocks)} more tokens of "
                f"cache, and this session asks for {max_tokens}.",
                "Ask for a shorter answer, or wait until other sessions have ended.",
            )
        needed = self._stage.cache_bytes(blocks, max_tokens)
        self._reserved += needed - before
        return needed

    def give_back(self, nbytes: int) -> None:
        """A session that had so much has ended."""
        self._reserved -= nbytes

    def clear(self) -> None:
        """All sessions have ended."""
        self._reserved = 0

    def _free_tokens(self, blocks: Span) -> int:
        """The longest session over `blocks` that there is room for now, in whole pages."""
        return PAGE_TOKENS * bisect_right(
            range(PAGE_TOKENS, MOST_TOKENS + 1, PAGE_TOKENS),
            self._limit - self._reserved,
            key=lambda tokens: self._stage.cache_bytes(blocks, tokens),
        )
