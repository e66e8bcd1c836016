"""A stream of frames over a pair of asyncio reader and writer.

A frame goes out in parts: a header of 4 bytes (the length, with the highest bit set if more parts
follow), then the bytes. Parts keep memory bounded, and show life while a long frame travels. A
header of four 0xFF is the end in good order; a connection that ends without it was reset.
"""

from __future__ import annotations

import asyncio
import math
import time

from superbloom.domain.errors import PeerLost
from superbloom.swarm.transport import MAX_FRAME_BYTES

PART_BYTES = 64 * 1024
SEND_SECONDS = 10.0
CLOSE_SECONDS = 1.0
BUFFER_BYTES = 256 * 1024
"""What may lie in our own send buffer before a sender waits."""

BROKEN = "The other computer broke off the stream."

_MORE = 0x8000_0000
_END = b"\xff\xff\xff\xff"


class SocketStream:
    """`swarm.transport.Stream` to the authenticated peer at the other end of a socket."""

    def __init__(
        self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.peer = peer
        self.received_bytes = 0
        self._reader = reader
        self._writer = writer
        self._sending = asyncio.Lock()
        self._header: int | None = None
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._part_times: list[float] = []
        """When the first header of the frame had come, and each of its parts so far."""
        self.arrival_rate = math.inf
        self._ended = False
        self._closed = False
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    async def send(self, frame: bytes) -> None:
        if len(frame) > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {len(frame)} bytes is more than {MAX_FRAME_BYTES}")
        async with self._sending:
            self._expect_open()
            if len(frame) <= PART_BYTES:
                self._writer.write(len(frame).to_bytes(4, "big") + frame)
                await self._wait_for_room()
                return
            try:
                await self._send_parts(frame)
            except asyncio.CancelledError:
                self._abort()  # half a frame is out: nothing can follow it
                raise

    async def receive(self, most: int = MAX_FRAME_BYTES) -> bytes | None:
        """See Stream. Cancelling it loses nothing."""
        while not self._ended:
            try:
                if self._header is None:
                    header = await self._reader.readexactly(4)
                    self.received_bytes += 4
                    if header == _END:
                        break
                    self._header = int.from_bytes(header, "big")
                    self._check_header(self._header & ~_MORE, bool(self._header & _MORE), most)
                    self._part_times = self._part_times or [time.monotonic()]
                part = await self._reader.readexactly(self._header & ~_MORE)
            except (asyncio.IncompleteReadError, OSError):
                words = "The stream is closed." if self._closed else BROKEN
                self._abort()
                raise PeerLost(words, peer=self.peer) from None
            self.received_bytes += len(part)
            self._part_times.append(time.monotonic())
            more, self._header = self._header & _MORE, None
            if not more:
                self._note_arrival(self._parts_bytes + len(part))
            if not more and not self._parts:
                return part
            self._parts.append(part)
            self._parts_bytes += len(part)
            if not more:
                frame = b"".join(self._parts)
                self._parts, self._parts_bytes = [], 0
                return frame
        if self._closed:
            raise PeerLost("The stream is closed.", peer=self.peer)
        self._ended = True
        return None

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = self._ended = True
        if self._sending.locked():
            self._abort()
            return
        if not self._writer.is_closing():
            self._writer.write(_END)
        self._reader.feed_eof()  # ends a wait in receive()
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._abort()

    async def _send_parts(self, frame: bytes) -> None:
        view = memoryview(frame)
        for start in range(0, len(frame), PART_BYTES):
            self._expect_open()
            part = view[start : start + PART_BYTES]
            more = _MORE if start + PART_BYTES < len(frame) else 0
            self._writer.write((len(part) | more).to_bytes(4, "big"))
            self._writer.write(part)
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        if self._writer.transport.get_write_buffer_size() <= BUFFER_BYTES:
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            self._abort()
            raise PeerLost("The other computer takes nothing more.", peer=self.peer) from None
        except OSError:
            self._abort()
            raise PeerLost(BROKEN, peer=self.peer) from None

    def _note_arrival(self, nbytes: int) -> None:
        """A frame of `nbytes` is complete."""
        times, self._part_times = self._part_times, []
        before = (len(times) - 2) // 2  # parts that came earlier than what is measured
        seconds = times[-1] - times[before]
        self.arrival_rate = (nbytes - before * PART_BYTES) / seconds if seconds else math.inf

    def _expect_open(self) -> None:
        if self._closed or self._ended or self._writer.is_closing() or self._reader.at_eof():
            raise PeerLost("The stream is closed.", peer=self.peer)

    def _check_header(self, part_bytes: int, more: bool, most: int) -> None:
        """Refuse what is too long, and endless small parts, before anything is buffered."""
        if part_bytes > PART_BYTES or self._parts_bytes + part_bytes > most:
            self._abort()
            raise PeerLost("The other computer sent a frame that is too long.", peer=self.peer)
        if more and part_bytes < PART_BYTES:
            self._abort()
            raise PeerLost("The other computer sent a frame in small parts.", peer=self.peer)

    def _abort(self) -> None:
        self._closed = True
        self._writer.transport.abort()
        self._reader.feed_eof()
