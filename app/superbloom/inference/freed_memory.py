"""Memory that prompts leave behind goes back to the system: the C library would keep it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

EVERY_SECONDS = 2.0
"""It is given back at most so often: what is needed again has to be cleared first."""


class FreedMemory:
    """Gives back what was freed, once work that needs much of it has ended."""

    def __init__(self) -> None:
        self._left_behind = False
        self._given_back_at = float("-inf")

    def note_prompt(self) -> None:
        """A part of a prompt was computed."""
        self._left_behind = True

    def look(self, now: float) -> None:
        """Nothing is to be computed at this moment, in monotonic seconds. Takes milliseconds."""
        if self._left_behind and now - self._given_back_at >= EVERY_SECONDS:
            self._left_behind, self._given_back_at = False, now
            give_back()


def give_back() -> None:
    """Return freed pages to the system, where the C library has a way (GNU's, on Linux)."""
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
