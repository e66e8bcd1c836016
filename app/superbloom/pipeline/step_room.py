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
        self._held_bytes = 0
        self._changed = asyncio.Event()

    def fits(self, nbytes: int) -> bool:
        """True if so much more may be queued; something always may where nothing is."""
        return not self._held_bytes or self._held_bytes + nbytes <= self._limit

    def hold(self, nbytes: int) -> None:
        """So much more is queued; a negative number has left."""
        self._held_bytes += nbytes
        self._changed.set()

    async def wait(self) -> None:
        """Wait until something changes."""
        self._changed.clear()
        await self._changed.wait()


class StepRoom:
    """The room of one session; one that is closed lets in everything and holds nothing.

    Who waits is woken by its own session only, but for the peer's room: with many sessions, to wake
    all of them for every step costs more than the steps do.
    """

    def __init__(
        self, peer: PeerRoom, *, steps: int = SESSION_STEPS, limit_bytes: int = SESSION_BYTES
    ) -> None:
        self._peer = peer
        self._steps_limit = steps
        self._limit = limit_bytes
        self._steps = 0
        self._changed = asyncio.Event()
        self._closed = False
        self.held_bytes = 0

    async def enter(self, nbytes: int) -> None:
        """Wait until a step of `nbytes` has room, and give it that."""
        while not self._closed:
            if not self._fits(nbytes):
                self._changed.clear()
                await self._changed.wait()
            elif not self._peer.fits(nbytes):
                await self._peer.wait()
            else:
                break
        self._hold(1, nbytes)

    def leave(self, nbytes: int) -> None:
        """A step of `nbytes` is no longer here."""
        self._hold(-1, -nbytes)

    def close(self) -> None:
        """The session has ended: whatever it held is gone."""
        if not self._closed:
            self._closed = True
            self._peer.hold(-self.held_bytes)
            self._changed.set()

    def _hold(self, steps: int, nbytes: int) -> None:
        self._steps += steps
        self.held_bytes += nbytes
        self._changed.set()
        if not self._closed:
            self._peer.hold(nbytes)

    def _fits(self, nbytes: int) -> bool:
        return not self._steps or (
            self._steps < self._steps_limit and self.held_bytes + nbytes <= self._limit
        )
