"""Text that grows token by token, passed on in pieces at most so many times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PIECES_A_SECOND = 30


class TextStream:
    """Collects text and gives it to `send(text)`: the first piece at once, later ones coalesced."""

    def __init__(
        self, send: Callable[[str], None], *, pieces_a_second: float = PIECES_A_SECOND
    ) -> None:
        self._send = send
        self._pause = 1.0 / pieces_a_second
        self._waiting = ""
        self._next_piece = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, text: str) -> None:
        """More text. Must be called in the event loop."""
        self._waiting += text
        if self._timer is None and self._waiting:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._next_piece:
                self.flush()
            else:
                self._timer = loop.call_at(self._next_piece, self.flush)

    def flush(self) -> None:
        """Pass on what waits, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        text, self._waiting = self._waiting, ""
        if text:
            self._next_piece = asyncio.get_running_loop().time() + self._pause
            self._send(text)
