"""Frames over a socket, against a peer that may write anything."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from superbloom.domain.errors import PeerLost
from superbloom.swarm.socket_stream import PART_BYTES, SocketStream
from superbloom.swarm.transport import MAX_FRAME_BYTES

MORE = 0x8000_0000


class Ends:
    """A stream, and the bare socket at its other end."""

    def __init__(self, stream: SocketStream, other: socket.socket) -> None:
        self.stream = stream
        self.other = other

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.other, data)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    mine, other = socket.socketpair()
    other.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=mine)
    stream = SocketStream("peer", reader, writer)
    yield Ends(stream, other)
    await stream.close()
    other.close()


def header(length: int, more: bool = False) -> bytes:
    return (length | (MORE if more else 0)).to_bytes(4, "big")


async def test_parts_make_a_frame_and_show_life(ends: Ends) -> None:
    part = os.urandom(PART_BYTES)
    waiting = asyncio.create_task(ends.stream.receive())
    await ends.write(header(PART_BYTES, more=True) + part)
    async with asyncio.timeout(5):
        while ends.stream.received_bytes < PART_BYTES:
            await asyncio.sleep(0)
    assert not waiting.done()
    await ends.write(header(3) + b"end")
    assert await waiting == part + b"end"


async def test_a_cancelled_receive_loses_nothing(ends: Ends) -> None:
    await ends.write(header(5))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await ends.stream.receive()
    await ends.write(b"frame" + header(2) + b"ab")
    assert await ends.stream.receive() == b"frame"
    assert await ends.stream.receive() == b"ab"


async def test_a_connection_that_just_ends_was_reset(ends: Ends) -> None:
    await ends.write(header(5) + b"fra")
    ends.other.close()
    with pytest.raises(PeerLost, match="broke off"):
        await ends.stream.receive()
    with pytest.raises(PeerLost):
        await ends.stream.send(b"x")


async def test_an_end_in_good_order(ends: Ends) -> None:
    await ends.write(header(1) + b"a" + b"\xff" * 4)
    assert await ends.stream.receive() == b"a"
    assert await ends.stream.receive() is None
    with pytest.raises(PeerLost):
        await ends.stream.send(b"x")


@pytest.mark.parametrize("length", [PART_BYTES + 1, MORE - 1])
async def test_a_part_that_is_too_long_is_never_buffered(ends: Ends, length: int) -> None:
    await ends.write(header(length) + b"x" * 100)
    with pytest.raises(PeerLost, match="too long"):
        await ends.stream.receive()


async def test_a_frame_of_too_many_parts_is_refused(ends: Ends) -> None:
    async def write() -> None:
        for _ in range(MAX_FRAME_BYTES // PART_BYTES + 1):
            await ends.write(header(PART_BYTES, more=True) + bytes(PART_BYTES))

    writing = asyncio.create_task(write())
    with pytest.raises(PeerLost, match="too long"):
        await ends.stream.receive()
    await asyncio.gather(writing, return_exceptions=True)


@pytest.mark.parametrize("length", [0, 1, PART_BYTES - 1])
async def test_endless_small_parts_are_refused(ends: Ends, length: int) -> None:
    await ends.write((header(length, more=True) + bytes(length)) * 3)
    with pytest.raises(PeerLost, match="small parts"):
        async with asyncio.timeout(5):
            await ends.stream.receive()


@pytest.mark.parametrize("more", [False, True])
async def test_a_receiver_may_bear_less(ends: Ends, more: bool) -> None:
    await ends.write(header(100) + bytes(100) + header(PART_BYTES, more) + bytes(PART_BYTES))
    assert await ends.stream.receive(100) == bytes(100)
    with pytest.raises(PeerLost, match="too long"):
        async with asyncio.timeout(5):
            await ends.stream.receive(100)


async def test_random_bytes_end_in_a_loss(ends: Ends) -> None:
    await ends.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(PeerLost):
        await ends.stream.receive()


async def test_a_close_ends_a_wait(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.stream.receive())
    await asyncio.sleep(0)
    await ends.stream.close()
    with pytest.raises(PeerLost):
        await waiting


async def test_a_close_does_not_wait_for_a_peer_that_reads_nothing(ends: Ends) -> None:
    sending = asyncio.create_task(ends.stream.send(bytes(8_000_000)))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await ends.stream.close()
        with pytest.raises(PeerLost):
            await sending


async def drip(ends: Ends, frame: bytes, *pauses: float) -> None:
    """Write a frame in parts, each after its pause and all in one piece."""
    starts = range(0, len(frame), PART_BYTES)
    for start, pause in zip(starts, pauses, strict=True):
        part = frame[start : start + PART_BYTES]
        await asyncio.sleep(pause)
        await ends.write(header(len(part), more=start + PART_BYTES < len(frame)))
        await asyncio.sleep(0.01)
        await ends.write(part)


@pytest.mark.parametrize(
    ("pauses", "seconds"),
    [
        ((0.2,), 0.01),
        ((0.2, 0.1), 0.12),
        ((0.3, 0.05, 0.05, 0.05), 0.18),
        ((0.3, 0.3, 0.05, 0.05, 0.05, 0.05), 0.24),
    ],
)
async def test_the_arrival_rate_is_that_of_the_later_half(
    ends: Ends, pauses: tuple[float, ...], seconds: float
) -> None:
    frame = os.urandom(PART_BYTES * len(pauses) - 100)
    receiving = asyncio.create_task(ends.stream.receive())
    await drip(ends, frame, *pauses)
    assert await receiving == frame
    measured = len(frame) - (len(pauses) - 1) // 2 * PART_BYTES
    assert seconds * 0.9 < measured / ends.stream.arrival_rate < seconds + 0.15


async def test_each_frame_has_its_own_arrival_rate(ends: Ends) -> None:
    await ends.write(header(3) + b"abc" + header(3) + b"def")
    for _ in range(2):
        await ends.stream.receive()
        assert ends.stream.arrival_rate > 1000
