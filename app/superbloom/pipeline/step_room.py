"""How much may lie queued on a server: bounds for one session within bounds for its client."""

from __future__ import annotations

import asyncio

SESSION_STEPS = 32
"""Steps a session may have waiting; beyond it the sender's stream is no longer read."""

SESSION_BYTES = 64 * 1024 * 1024
"""What these steps may weigh together."""

PEER_BYTES = 256 * 1024 * 1024
"""What the steps in all sessions of one client may weigh together."""


class PeerRoom:
    """The room of one client."""

    def __init__(self, limit_bytes: int = PEER_BYTES) -> None:
        self._limit = limit_bytes
        self._left = asyncio.Event()
        self.sessions: set[StepRoom] = set()

    def fits(self, nbytes: int) -> bool:
        """True if so much more may be queued; something always may where nothing is."""
        held = sum(session.held_bytes for session in self.sessions)
        return not held or held + nbytes <= self._limit

    def tell(self) -> None:
        """Something has left a queue."""
        self._left.set()

    async def wait(self) -> None:
        """Wait until something leaves."""
        self._left.clear()
        await self._left.wait()


class StepRoom:
    """The room of one session; one that is closed lets in everything and holds nothing."""

    def __init__(
        self, peer: PeerRoom, *, steps: int = SESSION_STEPS, limit_bytes: int = SESSION_BYTES
    ) -> None:
        self._peer = peer
        self._steps_limit = steps
        self._limit = limit_bytes
        self._steps = 0
        self.held_bytes = 0
        peer.sessions.add(self)

    async def enter(self, nbytes: int) -> None:
        """Wait until a step of `nbytes` has room, and give it that."""
        while self in self._peer.sessions and not self._fits(nbytes):
            await self._peer.wait()
        self._steps += 1
        self.held_bytes += nbytes

    def leave(self, nbytes: int) -> None:
        """A step of `nbytes` is no longer here."""
        self._steps -= 1
        self.held_bytes -= nbytes
        self._peer.tell()

    def close(self) -> None:
        """The session has ended: whatever it held is gone."""
        self._peer.sessions.discard(self)
        self._peer.tell()

    def _fits(self, nbytes: int) -> bool:
        own = not self._steps or (
            self._steps < self._steps_limit and self.held_bytes + nbytes <= self._limit
        )
        return own and self._peer.fits(nbytes)
