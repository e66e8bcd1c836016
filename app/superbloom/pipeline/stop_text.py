"""Ending an answer at a stop string, without showing any part of it."""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """Passes text through until one of `stops` appears in it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The part of the text so far that is surely before any stop string."""
        if self.found or not self._stops:
            return "" if self.found else text
        self._held += text
        at = min((i for i in map(self._held.find, self._stops) if i >= 0), default=-1)
        if at >= 0:
            self.found = True
            shown, self._held = self._held[:at], ""
            return shown
        keep = self._longest_beginning()
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """What was held back, now that no more text comes."""
        shown, self._held = self._held, ""
        return "" if self.found else shown

    def _longest_beginning(self) -> int:
        """Length of the longest end of the held text that could begin a stop string."""
        longest = min(len(self._held), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
