"""Ctrl-C, SIGTERM and a closed terminal, also where they must not strike in the middle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDS = tuple(
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)
"""Signals by which the system ends a program; SIGHUP tells that its terminal was closed."""


class Terminated(KeyboardInterrupt):
    """One of ENDS: ends the command as Ctrl-C does, and is never taken for a mere stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number
        """What a shell gives for a program that this signal ended."""


def end_on_signals() -> None:
    """Raise Terminated for ENDS from now on; what is ignored (by nohup) stays ignored."""
    for number in ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise Terminated(number)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that come during the block take effect at its end. The block takes bounded time."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in (signal.SIGINT, *ENDS)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
