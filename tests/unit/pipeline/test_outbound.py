"""What the next server says on the stream of steps is heard, and what it must not say ends it."""

from __future__ import annotations

import asyncio

import pytest
import torch

from frames import SESSION, step_frame
from superbloom.domain.errors import PeerLost
from superbloom.domain.link_rates import LinkRates
from superbloom.pipeline.messages import (
    PUSH_SERVICE,
    Arrived,
    Close,
    Frame,
    Push,
    Refused,
    Step,
    decode_frame,
    encode_frame,
)
from superbloom.pipeline.outbound import MOST_WORD_BYTES, Outbound
from superbloom.pipeline.step_way import StepWay
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Stream

HIDDEN = 4
LONG = step_frame(torch.randn(50, HIDDEN))


class Next:
    """The next server, its words written by the test; and the one before it."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(seed=1)
        self.losses: list[PeerLost] = []
        self.steps: list[Step] = []
        self._stream: LiveStream | None = None
        self._arrived = asyncio.Event()
        self.network.join("next").handle_stream(PUSH_SERVICE, self._serve)

    async def _serve(self, raw: Stream) -> None:
        self._stream = LiveStream(raw)
        while (data := await self._stream.receive()) is not None:
            frame = decode_frame(data, hidden_size=HIDDEN)
            if isinstance(frame, Step):
                self.steps.append(frame)
            self._arrived.set()

    async def outbound(self) -> Outbound:
        way = StepWay("next", LinkRates(), lambda _: 0.0, allows_compact=True)
        head = Push(session=SESSION, tag="")
        out = await Outbound.open(
            self.network.join("before"), "next", head, way, lambda _, loss: self.losses.append(loss)
        )
        await self._arrived.wait()
        return out

    async def say(self, words: bytes) -> None:
        assert self._stream is not None
        await self._stream.send(words)
        await asyncio.sleep(0.02)


def word(frame: Frame) -> bytes:
    return encode_frame(frame)


async def test_the_second_long_step_follows_the_word_about_the_first() -> None:
    there = Next()
    out = await there.outbound()
    await out.send(LONG)
    second = asyncio.create_task(out.send(LONG))
    await asyncio.sleep(0.02)
    assert len(there.steps) == 1
    await there.say(word(Arrived(bytes_per_second=1)))
    async with asyncio.timeout(1):
        await second
        while len(there.steps) < 2:
            await asyncio.sleep(0)
    assert [step.compact for step in there.steps] == [False, True]
    await out.close()


async def test_who_waits_for_a_word_is_let_go_when_the_way_is_given_up() -> None:
    there = Next()
    out = await there.outbound()
    await out.send(LONG)
    second = asyncio.create_task(out.send(LONG))
    await asyncio.sleep(0.02)
    await out.close()
    async with asyncio.timeout(1):
        await second
    assert there.losses == []


@pytest.mark.parametrize(
    "words",
    [
        b"\xff nonsense",
        word(Close()),
        word(LONG),
        word(Arrived(bytes_per_second=5)),
        bytes(MOST_WORD_BYTES + 1),
    ],
)
async def test_a_word_that_nobody_asked_for_is_a_loss(words: bytes) -> None:
    there = Next()
    out = await there.outbound()
    await there.say(words)
    assert out.lost
    assert [loss.peer for loss in there.losses] == ["next"]
    await out.send(LONG)
    await out.close()


async def test_a_refusal_is_followed_by_the_end() -> None:
    there = Next()
    out = await there.outbound()
    await there.say(word(Refused(code="c", message="m", next_step="n")))
    assert not out.lost
    there.network.reset("before", "next")
    await asyncio.sleep(0.02)
    assert len(there.losses) == 1
    await out.close()
