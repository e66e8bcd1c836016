"""One stream brings a session its steps: the newest, and nothing of another is left."""

from __future__ import annotations

import asyncio

import pytest
import torch

from frames import open_frame, step_frame
from superbloom.domain.errors import PeerLost, ProtocolViolation
from superbloom.pipeline.messages import Step, encode_frame
from superbloom.pipeline.previous_server import PreviousServer
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Stream

HIDDEN = 2
STEP = encode_frame(step_frame(torch.ones(1, HIDDEN)))


class Room:
    """Takes steps while it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = self.taken = 0

    async def take(self, step: Step) -> None:
        self.waiting += 1
        try:
            await self.open.wait()
            self.taken += 1
        finally:
            self.waiting -= 1


class Server:
    """A server whose session takes steps of `previous`, and how each stream's following ended."""

    def __init__(self, previous: str = "previous") -> None:
        network = MemoryNetwork(seed=1)
        self.room = Room()
        self.ends: list[bool | BaseException] = []
        self.previous = PreviousServer(
            previous, self.room.take, hidden_size=HIDDEN, most_bytes=1000
        )
        network.join("server").handle_stream("push", self._serve)
        self._sender = network.join("previous")

    async def _serve(self, raw: Stream) -> None:
        stream = LiveStream(raw)
        try:
            self.ends.append(await self.previous.follow(stream))
        except (PeerLost, ProtocolViolation) as error:
            self.ends.append(error)
        finally:
            await stream.close()

    async def push(self, *frames: bytes) -> LiveStream:
        stream = LiveStream(await self._sender.open_stream("server", "push", timeout=1))
        for frame in frames:
            await stream.send(frame)
        await asyncio.sleep(0.02)
        return stream

    async def ended(self, count: int) -> None:
        async with asyncio.timeout(2):
            while len(self.ends) < count:
                await asyncio.sleep(0.01)


async def test_steps_are_taken_until_the_stream_ends() -> None:
    server = Server()
    server.room.open.set()
    stream = await server.push(STEP, STEP, STEP)
    await stream.close()
    await server.ended(1)
    assert server.ends == [True]
    assert server.room.taken == 3


async def test_a_later_stream_takes_the_place_of_one_whose_step_waits() -> None:
    server = Server()
    streams = [await server.push(STEP, STEP) for _ in range(5)]
    await server.ended(4)
    assert server.ends == [False] * 4
    assert server.room.waiting == 1
    server.room.open.set()
    await streams[-1].close()
    await server.ended(5)
    assert server.ends[-1] is True
    assert server.room.taken == 2


async def test_nothing_is_taken_of_a_server_that_is_no_longer_the_previous_one() -> None:
    server = Server()
    server.room.open.set()
    stream = await server.push(STEP)
    server.previous.peer = "another"
    await stream.send(STEP)
    await server.ended(1)
    assert server.ends == [True]
    assert server.room.taken == 1
    await stream.close()


@pytest.mark.parametrize(
    ("frame", "kind"), [(encode_frame(open_frame()), ProtocolViolation), (bytes(1001), PeerLost)]
)
async def test_what_is_no_step_or_too_long_ends_it(frame: bytes, kind: type) -> None:
    server = Server()
    stream = await server.push(frame)
    await server.ended(1)
    assert isinstance(server.ends[0], kind)
    await stream.close()
