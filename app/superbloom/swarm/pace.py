"""How fast frames of one peer are taken, so that one that floods us leaves time for the others."""

from __future__ import annotations

FRAMES_PER_SECOND = 2000
"""Far more than the steps of all sessions that one client has use for."""

BURST_FRAMES = 32
"""So many may follow each other at once; they take a few ms of the event loop."""


class Pace:
    """The pace of one stream, or of all streams of one peer that share it.

    What comes faster is left where it lies, so that the sender finds its stream full.
    """

    def __init__(
        self, *, frames_per_second: float = FRAMES_PER_SECOND, burst_frames: int = BURST_FRAMES
    ) -> None:
        self._interval = 1 / frames_per_second
        self._burst = burst_frames * self._interval
        self._due = float("-inf")

    def seconds_ahead(self, now: float) -> float:
        """Count a frame that is asked for at `now` (monotonic seconds); how long to wait for it."""
        self._due = max(self._due, now - self._burst) + self._interval
        return max(0.0, self._due - now)
