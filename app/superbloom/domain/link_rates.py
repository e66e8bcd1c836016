"""How fast links to peers are, and whether one of them is what a prompt waits for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median_high

KNOWN_SECONDS = 300.0
"""After this long without news a link counts as unknown: it may be another one by now."""

LATEST = 3
"""Of so many measurements the middle one counts, so that one hiccup decides nothing for long."""

FELT_SECONDS = 0.2
"""A step that takes less is not worth any rounding, whatever the rest takes."""

MOST_PEERS = 512
"""The links remembered at most, those heard of last."""


@dataclass(slots=True)
class _Link:
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    at: float = 0.0


class LinkRates:
    """The links from this computer, by peer. `now` is monotonic, in seconds.

    What is noted is how fast data came in while it came, so it tells of the link and not of what
    lies in buffers, and is the same for long and short steps.
    """

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    def note(self, peer: str, bytes_per_second: float, now: float) -> None:
        """The peer got data at this rate."""
        known = self.bytes_per_second(peer, now) is not None
        link = self._links.pop(peer) if known else _Link()
        link.rates.append(bytes_per_second)
        link.at = now
        self._links[peer] = link
        while len(self._links) > MOST_PEERS:
            del self._links[next(iter(self._links))]

    def bytes_per_second(self, peer: str, now: float) -> float | None:
        """How fast the link is, None while that is not known."""
        link = self._links.get(peer)
        if link is None or now - link.at > KNOWN_SECONDS:
            return None
        return median_high(link.rates)


def is_bottleneck(bytes_per_second: float, nbytes: int, computing_seconds: float) -> bool:
    """True if steps of `nbytes`, each computed in `computing_seconds`, wait for the link."""
    return nbytes > bytes_per_second * max(FELT_SECONDS, computing_seconds)
