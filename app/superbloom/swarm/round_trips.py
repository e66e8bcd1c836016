"""How far away other peers are, measured by small calls, and who measures their way to us."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from superbloom.domain.errors import SuperbloomError
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Transport

PING_SERVICE = "ping"
PING_SECONDS = 2.0
"""A peer that takes longer counts as this far away."""

MEASURE_SECONDS = 10.0
LISTENER_SECONDS = 30.0
MOST_LISTENERS = 256
AT_ONCE = 8
NEW_SHARE = 0.3
"""How much a new measurement counts against the smoothed ones before."""


class RoundTrips:
    """Answers and sends pings. Members that pinged lately are `listeners`."""

    def __init__(self, transport: Transport, membership: Membership) -> None:
        self._transport = transport
        self._membership = membership
        self._seconds: dict[str, float] = {}
        self._measured_at: dict[str, float] = {}
        self._heard_at: dict[str, float] = {}
        transport.handle_call(PING_SERVICE, self._answer)

    def seconds(self, peer: str) -> float | None:
        """Seconds to `peer` and back, smoothed; None if not measured yet."""
        return 0.0 if peer == self._transport.peer_id else self._seconds.get(peer)

    def listeners(self) -> tuple[str, ...]:
        """The members that pinged within LISTENER_SECONDS."""
        since = time.monotonic() - LISTENER_SECONDS
        return tuple(peer for peer, heard_at in self._heard_at.items() if heard_at > since)

    async def measure(self, peers: Iterable[str]) -> None:
        """Ping those of `peers` whose measurement is not fresh; forget all others."""
        wanted = set(peers) - {self._transport.peer_id}
        self._seconds = {p: s for p, s in self._seconds.items() if p in wanted}
        self._measured_at = {p: at for p, at in self._measured_at.items() if p in wanted}
        stale = time.monotonic() - MEASURE_SECONDS
        due = sorted(p for p in wanted if self._measured_at.get(p, stale) <= stale)
        for first in range(0, len(due), AT_ONCE):
            await asyncio.gather(*(self._ping(peer) for peer in due[first : first + AT_ONCE]))

    async def _ping(self, peer: str) -> None:
        tag = self._tag_of(self._transport.peer_id)
        began = time.perf_counter()
        try:
            if peer not in self._seconds:  # the first call also connects
                await self._transport.call(peer, PING_SERVICE, tag, timeout=PING_SECONDS)
                began = time.perf_counter()
            await self._transport.call(peer, PING_SERVICE, tag, timeout=PING_SECONDS)
            taken = time.perf_counter() - began
        except SuperbloomError:
            taken = PING_SECONDS
        before = self._seconds.get(peer, taken)
        self._seconds[peer] = before + NEW_SHARE * (taken - before)
        self._measured_at[peer] = time.monotonic()

    async def _answer(self, peer: str, tag: bytes) -> bytes:
        if self._membership.check(tag, b"ping", peer.encode()):
            self._heard_at.pop(peer, None)
            self._heard_at[peer] = time.monotonic()
            while len(self._heard_at) > MOST_LISTENERS:
                del self._heard_at[next(iter(self._heard_at))]
        return b""

    def _tag_of(self, peer: str) -> bytes:
        return self._membership.tag(b"ping", peer.encode())
