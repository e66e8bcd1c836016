"""A link that stalls for a moment is waited for; one that stalls for longer is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from superbloom.domain.errors import PeerLost
from superbloom.domain.generation import ChatPhase
from superbloom.domain.sampling import SamplingSettings
from superbloom.pipeline import chain_planner
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Stream
from toy_model import toy_continuation
from toy_swarm import BLOCKS, Asked, ToySwarm

PROMPT = [5, 17, 3, 44, 9]
SAMPLING = SamplingSettings(temperature=0, max_tokens=40)
LINKS = {"client to first": ("client", "a"), "first to second": ("a", "b")}
SHORT_STALL, LONG_STALL = 3.0, 6.0


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    """Servers `a` and `b`, and a good client that uses them for another answer meanwhile."""
    toys = ToySwarm()
    toys.add("a", 0, 3, step_seconds=0.005)
    toys.add("b", 3, BLOCKS, step_seconds=0.005)
    yield toys
    await toys.close()


async def answer(asked: Asked) -> list[int]:
    tokens = list((await asked.end()).token_ids)
    assert tokens == toy_continuation(PROMPT, SAMPLING.max_tokens, BLOCKS)
    return tokens


async def stall(swarm: ToySwarm, link: str, seconds: float) -> None:
    swarm.network.partition(*LINKS[link])
    await asyncio.sleep(seconds)
    swarm.network.heal()


@pytest.mark.parametrize("link", LINKS)
async def test_a_short_stall_is_no_loss(swarm: ToySwarm, link: str) -> None:
    other = swarm.client(swarm.network.join("other"), swarm.membership)
    asked = Asked(swarm.model, PROMPT, SAMPLING)
    await asked.until(tokens=10)
    stalling = asyncio.create_task(stall(swarm, link, SHORT_STALL))
    begun = time.monotonic()
    if link == "client to first":  # the way between the servers is everybody's
        await answer(Asked(other, PROMPT, SAMPLING))
        assert time.monotonic() - begun < SHORT_STALL
    await answer(asked)
    assert time.monotonic() - begun < SHORT_STALL + 2
    assert ChatPhase.RECOVERING not in asked.phases
    await stalling
    await other.close()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("twin", [True, False])
async def test_a_long_stall_is_recovered_from(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch, link: str, twin: bool
) -> None:
    monkeypatch.setattr(chain_planner, "AVOID_SECONDS", 3.0)
    lost, start = ("a", 0) if link == "client to first" else ("b", 3)
    if twin:
        swarm.add("twin", start, start + 3, announced_step_seconds=0.5)
    asked = Asked(swarm.model, PROMPT, SAMPLING)
    await asked.until(tokens=10)
    begun = time.monotonic()
    await stall(swarm, link, LONG_STALL)
    swarm.relist(lost)  # as when it announces itself again
    await answer(asked)
    assert ChatPhase.RECOVERING in asked.phases
    assert time.monotonic() - begun < LONG_STALL + 3
    if not twin:
        assert ChatPhase.WAITING in asked.phases


async def test_a_short_stall_is_no_loss_whenever_it_begins() -> None:
    network = MemoryNetwork()
    alice, bob = network.join("alice"), network.join("bob")
    far: list[LiveStream] = []

    async def listen(stream: Stream) -> None:
        far.append(LiveStream(stream))
        with pytest.raises(PeerLost, match="closed"):
            await far[-1].receive()

    bob.handle_stream("talk", listen)
    near: list[LiveStream] = []
    waits: list[asyncio.Task[bytes | None]] = []
    for _ in range(50):  # each at another moment between two pings
        near.append(LiveStream(await alice.open_stream("bob", "talk", timeout=1)))
        waits.append(asyncio.create_task(near[-1].receive()))
        await asyncio.sleep(0.02)
    await asyncio.sleep(1)
    network.partition("alice", "bob")
    await asyncio.sleep(SHORT_STALL)
    network.heal()
    await asyncio.sleep(1.5)
    lost = [task for task in waits if task.done()]
    for task in waits:
        task.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    for stream in (*near, *far):
        await stream.close()
    await alice.close()
    await bob.close()
    assert not lost
