"""A stream that notices when the other side falls silent.

Both sides wrap their end. A side that has sent nothing for a while sends a ping, which is an empty
frame (so a frame of data is never empty, and costs no prefix and no copy). A watch counts how long
nothing has come in while somebody waits for a frame.
"""

from __future__ import annotations

import asyncio
import time

from superbloom.domain.errors import PeerLost
from superbloom.swarm.pace import Pace
from superbloom.swarm.transport import MAX_FRAME_BYTES, Stream

PING = b""


class LiveStream:
    """Wraps `stream`. Owns a task that ends with `close()` or with the stream.

    `ping_every` and `silent_after` are seconds, the latter counted in looks at the stream, so that
    a time in which our own event loop stood still is not held against the peer. `pace` is shared by
    streams that may only together take so many frames; without it the stream has its own.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        ping_every: float = 0.5,
        silent_after: float = 4.0,
        pace: Pace | None = None,
    ) -> None:
        self.peer = stream.peer
        self._stream = stream
        self._ping_every = ping_every
        self._silent_after = silent_after
        self._pace = pace or Pace()
        self._receiving = 0
        self._sent_frames = 0
        self._sending = 0
        self._loss: PeerLost | None = None
        self._watching = asyncio.create_task(self._watch(), name=f"watch {self.peer}")

    @property
    def received_bytes(self) -> int:
        """Bytes that have come in, pings and unfinished frames included."""
        return self._stream.received_bytes

    @property
    def arrival_rate(self) -> float:
        """Bytes per second at which the latest frame came in, by its later half."""
        return self._stream.arrival_rate

    async def send(self, frame: bytes) -> None:
        """Send a frame, which may not be empty. Raises PeerLost."""
        if not frame:
            raise ValueError("a frame of a live stream is not empty")
        if self._loss is not None:
            raise self._loss
        self._sending += 1
        try:
            await self._stream.send(frame)
        finally:
            self._sending -= 1
            self._sent_frames += 1

    async def receive(self, most: int = MAX_FRAME_BYTES) -> bytes | None:
        """The next frame, of at most `most` bytes, or None after a close in good order.

        Raises PeerLost on a longer one, on a reset, and when nothing has come for `silent_after`
        seconds.
        """
        self._receiving += 1
        try:
            while True:
                if ahead := self._pace.seconds_ahead(time.monotonic()):
                    await asyncio.sleep(ahead)  # without a wait a flood holds up everybody else
                frame = await self._stream.receive(most)
                if frame:
                    return frame
                if frame is None:
                    break
        except PeerLost:
            if self._loss is not None:
                raise self._loss from None
            raise
        finally:
            self._receiving -= 1
        if self._loss is not None:
            raise self._loss
        self._watching.cancel()
        return None

    async def close(self) -> None:
        """End the stream in both directions; safe to call twice, never raises, never hangs."""
        self._watching.cancel()
        await self._stream.close()

    async def _watch(self) -> None:
        """Send pings and count silence, a look at a time."""
        look = min(self._ping_every, self._silent_after / 8)
        looks_to_silence = round(self._silent_after / look)
        looks_to_ping = round(self._ping_every / look)
        received = sent = -1
        silent = quiet = 0
        while silent < looks_to_silence:
            quiet = quiet + 1 if sent == self._sent_frames and not self._sending else 0
            sent = self._sent_frames
            if quiet >= looks_to_ping:
                quiet = 0
                if not await self._ping(look):
                    return
            await asyncio.sleep(look)
            silent = silent + 1 if received == self._stream.received_bytes else 0
            received = self._stream.received_bytes
            if not self._receiving:
                silent = 0  # nobody reads: what comes may lie in a buffer that we do not see
        self._loss = PeerLost(
            f"The other computer fell silent: nothing came for {self._silent_after:.0f} s.",
            peer=self.peer,
        )
        await self._stream.close()

    async def _ping(self, patience: float) -> bool:
        """False if the stream is gone; whoever receives learns why."""
        try:
            async with asyncio.timeout(patience):
                await self._stream.send(PING)
        except TimeoutError:
            return True  # its buffer is full: what lies there is sign enough
        except PeerLost:
            return False
        return True
