"""A live stream tells silence from a slow answer, and a slow self from a silent peer."""

from __future__ import annotations

import asyncio
import time

import pytest

from superbloom.domain.errors import PeerLost
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Stream

EVERY, SILENT = 0.05, 0.4


class Two:
    """Peers with a live stream between them."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.a, self.b = self.network.join("a"), self.network.join("b")

    async def streams(self) -> tuple[LiveStream, LiveStream]:
        near, far = await self.raw()
        return LiveStream(near, ping_every=EVERY, silent_after=SILENT), LiveStream(
            far, ping_every=EVERY, silent_after=SILENT
        )

    async def raw(self) -> tuple[Stream, Stream]:
        accepted: asyncio.Queue[Stream] = asyncio.Queue()

        async def keep(stream: Stream) -> None:
            accepted.put_nowait(stream)
            await asyncio.Event().wait()

        self.b.handle_stream("x", keep)
        near = await self.a.open_stream("b", "x", timeout=1)
        return near, await accepted.get()


@pytest.fixture
def two() -> Two:
    return Two()


async def test_frames_pass_and_pings_do_not(two: Two) -> None:
    near, far = await two.streams()
    waiting = asyncio.create_task(far.receive())
    received = far.received_bytes
    async with asyncio.timeout(5):
        while far.received_bytes < received + 4:  # some pings have come
            await asyncio.sleep(0.01)
    assert not waiting.done()
    await near.send(b"frame")
    assert await waiting == b"frame"
    with pytest.raises(ValueError, match="empty"):
        await near.send(b"")
    await near.close()
    assert await far.receive() is None
    await far.close()


async def test_a_long_wait_is_no_silence(two: Two) -> None:
    near, far = await two.streams()
    waiting = asyncio.create_task(far.receive())
    await asyncio.sleep(SILENT * 3)
    await near.send(b"at last")
    assert await waiting == b"at last"
    await near.close()
    await far.close()


async def test_silence_is_noticed_by_both(two: Two) -> None:
    near, far = await two.streams()
    two.network.partition("a", "b")
    for stream, peer in ((near, "b"), (far, "a")):
        with pytest.raises(PeerLost, match="silent") as lost:
            async with asyncio.timeout(SILENT * 10):
                await stream.receive()
        assert lost.value.peer == peer
        with pytest.raises(PeerLost, match="silent"):
            await stream.send(b"x")
        await stream.close()


async def test_a_reset_is_raised_as_it_is(two: Two) -> None:
    near, far = await two.streams()
    two.network.reset("a", "b")
    with pytest.raises(PeerLost, match="reset"):
        await near.receive()
    await near.close()
    await far.close()


async def test_a_peer_is_not_blamed_for_our_own_standstill(two: Two) -> None:
    near, far = await two.streams()
    waiting = asyncio.create_task(far.receive())
    await asyncio.sleep(EVERY)
    time.sleep(SILENT * 2)  # noqa: ASYNC251 (the loop stands still: that is the test)
    await near.send(b"still there")
    assert await waiting == b"still there"
    await near.close()
    await far.close()


async def test_nobody_is_blamed_while_nobody_listens(two: Two) -> None:
    near, far = await two.streams()
    await near.send(b"early")
    await asyncio.sleep(SILENT * 2)
    assert await far.receive() == b"early"
    await near.close()
    await far.close()


async def test_its_task_ends_with_it(two: Two) -> None:
    before = asyncio.all_tasks()
    near, far = await two.streams()
    await near.close()
    await near.close()
    assert await far.receive() is None
    await asyncio.sleep(0)
    left = {t.get_name() for t in asyncio.all_tasks() - before if not t.done()}
    assert not {name for name in left if name.startswith("watch")}
    await two.b.close()
