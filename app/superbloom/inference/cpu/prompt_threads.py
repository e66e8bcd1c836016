"""How many threads a CPU computes a part of a prompt with: as many as other programs leave cores.

The servers of a chain compute the parts of a long prompt at the same time. Where several of them
share a computer, and each takes all cores, the threads of a layer wait for those that the others
have pushed aside: 256 tokens through half of the starter took 0.7 s in each of two servers with two
threads on two cores, and 0.42 s with one thread (0.25 s and 0.35 s for one server alone). A prompt
is too short to try it out, so what others take is read from the system's own figures, before each
block: the last part of a prompt has all cores as soon as the server before is done (the starter's
1,024 tokens through two servers: 2.08 s to the first token where that was looked at once a part,
1.94 s so). Single tokens are another matter: there servers compute in turn (see `thread_count`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

LEAST_SECONDS = 0.05
"""Nothing is concluded from less: systems count in hundredths of a second."""

MOST_SECONDS = 2.0
"""What others did longer ago says nothing of now."""

PAUSE_SECONDS = 0.5
"""After so long the parts of the prompt before are over."""

Times = Callable[[], tuple[float, float]]
"""Seconds for which cores were busy since the start: for all programs, and for this one."""


def busy_seconds() -> tuple[float, float]:
    """As `Times`, by the system's figures."""
    times = psutil.cpu_times()
    aside = ("idle", "iowait", "steal", "guest", "guest_nice")  # guests count as user as well
    idle = sum(getattr(times, name, 0.0) for name in aside)
    return sum(times) - idle, time.process_time()


class PromptThreads:
    """From half of `most` to `most`, by what others took of the computer's cores lately.

    `now` is in monotonic seconds. With hyper-threads a busy one counts as its part of a core.
    """

    def __init__(self, most: int, times: Times = busy_seconds) -> None:
        logical = psutil.cpu_count() or 1
        self._cores = psutil.cpu_count(logical=False) or logical
        self._core_part = self._cores / logical
        self._most = most
        self._times = times
        self._since: tuple[float, float] | None = None
        """When others were looked at, and how many seconds of cores they had taken by then."""
        self._others = 0.0
        """Cores that others keep busy."""

    def look(self, now: float) -> None:
        """A prompt may come soon: what others do from now on counts, if none is being computed."""
        if self._since is None or now - self._since[0] > PAUSE_SECONDS:
            self._since = now, self._taken()
            self._others = 0.0

    def threads(self, now: float) -> int:
        """For a part of a prompt that begins now."""
        self._measure(now)
        left = round(self._cores - self._others)
        return min(self._most, max(-(-self._most // 2), left))

    def _measure(self, now: float) -> None:
        if self._since is not None and now - self._since[0] < LEAST_SECONDS:
            return
        taken = self._taken()
        since, before = self._since or (now, taken)
        if LEAST_SECONDS <= now - since <= MOST_SECONDS:
            self._others = max(0.0, taken - before) / (now - since) * self._core_part
        else:
            self._others = 0.0
        self._since = now, taken

    def _taken(self) -> float:
        everything, own = self._times()
        return everything - own
