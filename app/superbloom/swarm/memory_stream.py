"""The streams of the in-memory network: `swarm.transport.Stream` between two queues."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from superbloom.domain.errors import PeerLost
from superbloom.swarm.transport import MAX_FRAME_BYTES

SEND_BUFFER_BYTES = 2 * MAX_FRAME_BYTES
SEND_SECONDS = 10.0


class Links(Protocol):
    """What a stream asks of its network."""

    def delay_of(self, a: str, b: str) -> float:
        """Seconds one way between two peers."""

    def rate_of(self, a: str, b: str) -> float:
        """Bytes per second that a stream between two peers carries each way."""

    def is_partitioned(self, a: str, b: str) -> bool:
        """True while nothing comes through between two peers."""

    def forget(self, stream: MemoryStream) -> None:
        """The stream's end is closed or lost."""


class MemoryStream:
    """One end of a stream: `swarm.transport.Stream`."""

    other: MemoryStream

    def __init__(self, network: Links, owner: str, peer: str) -> None:
        self.owner = owner
        self.peer = peer
        self.received_bytes = 0
        self._network = network
        self._on_way: deque[tuple[float, bytes | None]] = deque()
        self._arrived: deque[bytes | None] = deque()
        self._unread_bytes = 0
        self._way_free_at = 0.0
        self._loss: str = ""
        self._changed = asyncio.Event()

    async def send(self, frame: bytes) -> None:
        check_size(frame, MAX_FRAME_BYTES)
        other = self.other
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await other.wait_until(
                    lambda: bool(self._loss) or other.unread_bytes <= SEND_BUFFER_BYTES
                )
        except TimeoutError:
            self.lose("The other computer takes nothing more.")
        if self._loss:
            raise PeerLost(self._loss, peer=self.peer)
        if self._arrived and self._arrived[-1] is None:
            raise PeerLost("The other computer closed the stream.", peer=self.peer)
        other.put_on_way(bytes(frame))

    async def receive(self, most: int = MAX_FRAME_BYTES) -> bytes | None:
        await self.wait_until(lambda: bool(self._arrived or self._loss))
        if self._arrived and len(self._arrived[0] or b"") > most:
            self.lose("The other computer sent a frame that is too long.")
        if self._loss:
            raise PeerLost(self._loss, peer=self.peer)
        frame = self._arrived[0]
        if frame is not None:  # the end of a stream stays where it is
            self._arrived.popleft()
            self._unread_bytes -= len(frame)
            self._changed.set()
        return frame

    @property
    def arrival_rate(self) -> float:
        return self._network.rate_of(self.owner, self.peer)

    async def close(self) -> None:
        if not self._loss:
            self._end("The stream is closed.")
            self.other.put_on_way(None)

    # --- the network's doing ----------------------------------------------------------------

    @property
    def unread_bytes(self) -> int:
        """What was sent here and not received yet."""
        return self._unread_bytes

    def put_on_way(self, frame: bytes | None) -> None:
        """Let a frame, or the end (None), travel here."""
        if not self._loss:
            self._unread_bytes += len(frame or b"")
            taken = len(frame or b"") / self._network.rate_of(self.owner, self.peer)
            self._way_free_at = max(_now(), self._way_free_at) + taken
            due = self._way_free_at + self._network.delay_of(self.owner, self.peer)
            if self._on_way:
                due = max(due, self._on_way[-1][0])
            self._on_way.append((due, frame))
            self.deliver()

    def deliver(self) -> None:
        """Hand over what is due, in order; come back when the rest is."""
        while self._on_way and not self._network.is_partitioned(self.owner, self.peer):
            due, frame = self._on_way[0]
            if due > _now():
                asyncio.get_running_loop().call_at(due, self.deliver)
                return
            self._on_way.popleft()
            self._arrived.append(frame)
            self.received_bytes += 1 + len(frame or b"")
            self._changed.set()

    def lose(self, why: str) -> None:
        """Reset both ends."""
        self._end(why)
        self.other._end(why)

    def _end(self, why: str) -> None:
        if not self._loss:
            self._loss = why
            self._on_way.clear()
            self._arrived.clear()
            self._unread_bytes = 0
            self._network.forget(self)
        self._changed.set()
        self.other._changed.set()

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()


def check_size(frame: bytes, most: int) -> None:
    """Refuse, as a programming error, what no transport would send."""
    if len(frame) > most:
        raise ValueError(f"{len(frame)} bytes are more than the {most} that may be sent at once")
