"""What a server says and does when a client begins a new epoch, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import torch

from by_hand import opening
from superbloom.pipeline.messages import (
    SESSION_SERVICE,
    EpochBegun,
    Frame,
    NewEpoch,
    NextLost,
    Opened,
    Park,
    Probe,
    Progress,
    Result,
    Resume,
    Resumed,
    Step,
    decode_frame,
    encode_frame,
)
from superbloom.swarm.live_stream import LiveStream
from toy_model import HIDDEN
from toy_swarm import BLOCKS, ToySwarm

IDS = {"a": "aa" * 16, "b": "bb" * 16}


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    yield toys
    await toys.close()


class Hand:
    """A session on one server, held by hand."""

    def __init__(self, stream: LiveStream) -> None:
        self.stream = stream

    @classmethod
    async def open(
        cls, swarm: ToySwarm, name: str, start: int, end: int, *, after: str = "", before: str = ""
    ) -> Hand:
        client, peer = swarm.client_transport, swarm.servers[name].peer
        opened = opening(
            swarm,
            client.peer_id,
            peer,
            session=IDS[name],
            start=start,
            end=end,
            next=swarm.servers[before].peer if before else "",
            next_session=IDS[before] if before else "",
            previous=swarm.servers[after].peer if after else "",
        )
        hand = cls(LiveStream(await client.open_stream(peer, SESSION_SERVICE, timeout=2)))
        await hand.say(opened)
        await hand.hear(Opened)
        return hand

    async def say(self, frame: Frame) -> None:
        await self.stream.send(encode_frame(frame))

    async def step(self, epoch: int, position: int = 0, tokens: int = 2) -> None:
        hidden = torch.ones(tokens, HIDDEN)
        await self.say(Step(epoch=epoch, position=position, keep=1, replay=False, hidden=hidden))

    async def hear(self, kind: type) -> Frame:
        """The next thing it says, which must be of that kind."""
        async with asyncio.timeout(5):
            data = await self.stream.receive()
        assert data is not None
        frame = decode_frame(data, hidden_size=HIDDEN)
        assert isinstance(frame, kind)
        return frame


async def test_what_a_server_has_sent_is_that_of_the_new_epoch(swarm: ToySwarm) -> None:
    swarm.add("a", 0, BLOCKS)
    hand = await Hand.open(swarm, "a", 0, BLOCKS)
    await hand.step(0, tokens=5)
    await hand.hear(Result)
    await hand.say(Probe())
    assert await hand.hear(Progress) == Progress(epoch=0, received=5, sent=5)
    await hand.say(NewEpoch(epoch=1, position=3, previous=""))
    await hand.hear(EpochBegun)
    await hand.say(Probe())
    assert await hand.hear(Progress) == Progress(epoch=1, received=3, sent=3)
    await hand.say(Park())
    await hand.say(Resume(epoch=2, position=1, max_tokens=50))
    await hand.hear(Resumed)
    await hand.say(Probe())
    assert await hand.hear(Progress) == Progress(epoch=2, received=1, sent=1)
    await hand.stream.close()


async def test_a_session_that_rests_takes_no_step(swarm: ToySwarm) -> None:
    """One may still be under way from the server before, and even name the epoch that comes."""
    swarm.add("a", 0, BLOCKS)
    hand = await Hand.open(swarm, "a", 0, BLOCKS)
    await hand.step(0, tokens=5)
    await hand.hear(Result)
    await hand.say(Park())
    await hand.step(1, position=5)
    await hand.step(2, position=5)
    await hand.say(Probe())
    assert await hand.hear(Progress) == Progress(epoch=1, received=5, sent=5)
    await hand.say(Resume(epoch=2, position=4, max_tokens=50))
    await hand.hear(Resumed)
    await hand.step(2, position=4)
    await hand.hear(Result)
    await hand.stream.close()


async def begin(hand: Hand, previous: str) -> None:
    await hand.say(NewEpoch(epoch=1, position=0, previous=previous))
    await hand.hear(EpochBegun)


async def resume(hand: Hand, previous: str) -> None:
    await hand.say(Resume(epoch=1, position=0, max_tokens=50))
    await hand.hear(Resumed)


@pytest.mark.parametrize("go_on", [begin, resume])
@pytest.mark.parametrize("heals", [True, False])
async def test_a_lost_way_to_the_next_server_is_tried_again_in_a_new_epoch(
    swarm: ToySwarm, go_on: Callable[..., object], heals: bool
) -> None:
    first, second = swarm.add("a", 0, 3), swarm.add("b", 3, BLOCKS)
    b = await Hand.open(swarm, "b", 3, BLOCKS, after="a")
    a = await Hand.open(swarm, "a", 0, 3, before="b")
    await a.step(0)
    before = await b.hear(Result)
    swarm.network.cut(first.peer, second.peer)
    lost = await a.hear(NextLost)
    assert isinstance(lost, NextLost)
    assert lost.epoch == 0
    if heals:
        swarm.network.heal()
    await go_on(a, "")  # type: ignore[misc]
    await go_on(b, first.peer)  # type: ignore[misc]
    await a.step(1)
    if heals:
        after = await b.hear(Result)
        assert isinstance(before, Result)
        assert isinstance(after, Result)
        assert torch.equal(after.hidden, before.hidden)
    else:
        again = await a.hear(NextLost)
        assert isinstance(again, NextLost)
        assert again.epoch == 1
    await a.stream.close()
    await b.stream.close()
