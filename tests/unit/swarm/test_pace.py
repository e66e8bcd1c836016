"""A peer's frames are taken at once, up to a pace that only a flood reaches."""

from __future__ import annotations

import asyncio

import pytest

from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.pace import Pace
from superbloom.swarm.transport import Stream


def test_a_burst_passes_and_a_flood_waits() -> None:
    pace = Pace(frames_per_second=100, burst_frames=5)
    assert [pace.seconds_ahead(50.0) for _ in range(5)] == [0.0] * 5
    assert pace.seconds_ahead(50.0) == pytest.approx(0.01)
    assert pace.seconds_ahead(50.0) == pytest.approx(0.02)
    assert pace.seconds_ahead(50.03) == 0


def test_who_keeps_the_pace_never_waits() -> None:
    pace = Pace(frames_per_second=100, burst_frames=5)
    assert not any(pace.seconds_ahead(n * 0.0101) for n in range(10_000))


@pytest.mark.parametrize("frame", [b"x", b""], ids=["frames", "pings"])
async def test_a_flood_holds_nobody_up(frame: bytes) -> None:
    network = MemoryNetwork()
    alice, bob = network.join("alice"), network.join("bob")
    taken = 0

    async def listen(stream: Stream) -> None:
        nonlocal taken
        live = LiveStream(stream)
        try:
            while await live.receive():
                taken += 1
        finally:
            await live.close()

    bob.handle_stream("talk", listen)
    stream = await alice.open_stream("bob", "talk", timeout=1)
    for _ in range(50_000):
        await stream.send(frame)
    slowest = 0.0
    for _ in range(50):
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(0.001)
        slowest = max(slowest, asyncio.get_running_loop().time() - before)
    assert slowest < 0.1
    assert taken < 5_000
    await alice.close()
    await bob.close()
