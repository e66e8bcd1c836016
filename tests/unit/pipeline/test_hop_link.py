"""Who waits for one kind of reply takes nobody else's, and every one hears of the end."""

from __future__ import annotations

import asyncio

import pytest

from frames import open_frame
from superbloom.domain.errors import PeerLost, SessionRefused, SuperbloomError
from superbloom.domain.link_rates import LinkRates
from superbloom.pipeline.hop_link import HopLink, News
from superbloom.pipeline.messages import (
    SESSION_SERVICE,
    EpochBegun,
    Frame,
    NewEpoch,
    Open,
    Opened,
    Probe,
    Progress,
    Refused,
    Resume,
    decode_frame,
    encode_frame,
)
from superbloom.pipeline.step_way import StepWay
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Stream


class Server:
    """Answers Open at once, and whatever else when a test says so."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Frame] = asyncio.Queue()
        self._stream: LiveStream | None = None

    async def serve(self, raw: Stream) -> None:
        self._stream = LiveStream(raw)
        while (data := await self._stream.receive()) is not None:
            frame = decode_frame(data, hidden_size=2)
            if isinstance(frame, Open):
                await self.say(Opened())
            else:
                self.heard.put_nowait(frame)

    async def say(self, frame: Frame) -> None:
        assert self._stream is not None
        await self._stream.send(encode_frame(frame))


async def begin() -> tuple[Server, HopLink, asyncio.Queue[News]]:
    network, server = MemoryNetwork(seed=1), Server()
    network.join("server").handle_stream(SESSION_SERVICE, server.serve)
    inbox: asyncio.Queue[News] = asyncio.Queue()
    client = network.join("client")
    way = StepWay("server", LinkRates(), lambda _: 0.0, allows_compact=True)
    link = await HopLink.open(client, "server", open_frame(), way, hidden_size=2, inbox=inbox)
    return server, link, inbox


async def test_those_who_wait_take_their_own_replies_only() -> None:
    server, link, _ = await begin()
    probing = [asyncio.create_task(link.progress()) for _ in range(2)]
    assert isinstance(await server.heard.get(), Probe)
    order = NewEpoch(epoch=3, position=0, previous="")
    beginning = asyncio.create_task(link.begin_epoch(order))
    assert isinstance(await server.heard.get(), NewEpoch)
    await server.say(EpochBegun(epoch=3))
    async with asyncio.timeout(1):
        await beginning
    said = [Progress(epoch=3, received=n, sent=n) for n in (1, 2)]
    await server.say(said[0])
    assert isinstance(await server.heard.get(), Probe)
    await server.say(said[1])
    async with asyncio.timeout(1):
        assert [await task for task in probing] == said
    await link.abandon()


async def test_all_who_wait_hear_of_a_refusal() -> None:
    server, link, inbox = await begin()
    waiting: list[asyncio.Task[object]] = [
        asyncio.create_task(link.progress()),
        asyncio.create_task(link.resume(Resume(epoch=1, position=0, max_tokens=5))),
    ]
    await server.heard.get()
    await server.heard.get()
    await server.say(Refused(code="session_refused", message="No room.", next_step="", blame=""))
    async with asyncio.timeout(1):
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(error, SessionRefused) for error in found)
    assert isinstance((await inbox.get()).what, Refused)
    assert isinstance(await link.report(), SuperbloomError)  # and who asks later does
    await link.abandon()


async def test_all_who_wait_hear_of_the_end() -> None:
    server, link, inbox = await begin()
    probing = asyncio.create_task(link.progress())
    await server.heard.get()
    assert server._stream is not None
    await server._stream.close()
    async with asyncio.timeout(1):
        with pytest.raises(PeerLost):
            await probing
    assert isinstance((await inbox.get()).what, PeerLost)
    await link.abandon()
