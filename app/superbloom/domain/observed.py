"""What servers were seen to take: who is slower than it says is remembered, for a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

from superbloom.domain.swarm_map import ServerInfo

HALF_LIFE_SECONDS = 600.0
"""After this long half of what was seen is forgiven: the server may have been busy then."""

FORGOTTEN_SECONDS = 8 * HALF_LIFE_SECONDS
MOST_PEERS = 512
"""The servers remembered at most, those seen last."""

SLOW_FACTOR = 2.0
SLOW_SECONDS = 0.03
"""What takes so many times what is said, and so much more, is slow."""

FINE_FACTOR = 1.5
"""What takes less than so many times what is said is as said."""


def is_slow(taken: float, expected: float) -> bool:
    """True if a chain or a server takes markedly longer than its announcements say, in seconds."""
    return taken > SLOW_FACTOR * expected and taken > expected + SLOW_SECONDS


def is_fine(taken: float, expected: float) -> bool:
    """True if it takes about what they say."""
    return taken < FINE_FACTOR * expected


@dataclass(frozen=True, slots=True)
class _Seen:
    block_seconds: float
    at: float


class ObservedPace:
    """The slow servers that this computer has met. `now` is monotonic, in seconds.

    What is seen never makes a server quicker than it says, so nobody gains by what it shows.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def note(self, peer: str, block_seconds: float, now: float) -> None:
        """A step took this long a block at `peer`."""
        self._seen.pop(peer, None)
        self._seen[peer] = _Seen(block_seconds, now)
        while len(self._seen) > MOST_PEERS:
            del self._seen[next(iter(self._seen))]

    def forgive(self, peer: str) -> None:
        """The peer was seen to be as quick as it says."""
        self._seen.pop(peer, None)

    def corrected(self, server: ServerInfo, now: float) -> ServerInfo:
        """The server's announcement, with the pace that is to be expected."""
        seen = self._seen.get(server.peer)
        if seen is None:
            return server
        if now - seen.at > FORGOTTEN_SECONDS:
            del self._seen[server.peer]
            return server
        excess = seen.block_seconds * len(server.span) - server.step_seconds
        if excess <= 0:
            return server
        left = 0.5 ** (max(0.0, now - seen.at) / HALF_LIFE_SECONDS)
        return replace(server, step_seconds=server.step_seconds + excess * left)
