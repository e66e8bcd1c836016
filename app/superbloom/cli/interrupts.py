"""Ctrl-C and SIGTERM where they must not strike in the middle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends the command as Ctrl-C does, and is never taken for a mere stop."""


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that come during the block take effect at its end. The block takes bounded time."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
