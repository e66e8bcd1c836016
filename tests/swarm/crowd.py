"""A server under the true executor, a good client that decodes there, and bad ones beside it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator

from by_hand import opening
from superbloom.domain.sampling import SamplingSettings
from superbloom.domain.span import Span
from superbloom.inference.executor import Executor
from superbloom.pipeline.messages import (
    SESSION_SERVICE,
    Frame,
    Open,
    decode_frame,
    encode_frame,
)
from superbloom.swarm.transport import Stream
from toy_model import HIDDEN, toy_continuation
from toy_stage import ToyStage
from toy_swarm import BLOCKS, Asked, ToySwarm

PROMPT = [5, 17, 3, 44, 9]
TOKENS = 40
STEP_SECONDS = 0.01
SAMPLING = SamplingSettings(temperature=0, max_tokens=TOKENS)


class Crowd:
    """Server `a` on all blocks, whose steps take STEP_SECONDS."""

    def __init__(self, *, token_seconds: float = 0.0, room: int = 10**6) -> None:
        self.swarm = ToySwarm()
        self.swarm.model._drafts = False
        self.server = self.swarm.add("a", 0, BLOCKS)
        self.stage = ToyStage(Span(0, BLOCKS), seconds=STEP_SECONDS, token_seconds=token_seconds)
        self.executor = Executor(self.stage, cache_bytes=room)  # type: ignore[arg-type]
        self.server.server._executor = self.executor
        self._bad = self.swarm.network.join("mallory")
        self._ids = itertools.count(1)
        self._at_work: list[asyncio.Task[None]] = []

    async def good_answer(self) -> float:
        """Have the good client answer; seconds a token. Its text must be right."""
        return (await self._good_answer(time.monotonic)) / (TOKENS - 1)

    async def forwards_a_token(self) -> float:
        """Have the good client answer; how many forwards the server computes for each token."""
        return (await self._good_answer(lambda: len(self.stage.batches))) / (TOKENS - 1)

    async def _good_answer(self, count: Callable[[], float]) -> float:
        """How much is counted between an answer's first and last token."""
        asked = Asked(self.swarm.model, PROMPT, SAMPLING)
        await asked.until(tokens=1)
        begun = count()
        answer = list((await asked.end()).token_ids)
        assert answer == toy_continuation(PROMPT, TOKENS, BLOCKS)
        return count() - begun

    def opening(self, **changes: object) -> Open:
        """What the bad client says first, for a session of its own."""
        usual: dict[str, object] = {"session": f"{next(self._ids):032x}", "max_tokens": 100}
        ends = (self._bad.peer_id, self.server.peer)
        return opening(self.swarm, *ends, **usual | changes)  # type: ignore[arg-type]

    async def bad_stream(self, **changes: object) -> Stream:
        """A bad session's stream, without pings or anything that reads it."""
        stream = await self._bad.open_stream(self.server.peer, SESSION_SERVICE, timeout=2)
        await stream.send(encode_frame(self.opening(**changes)))
        return stream

    async def flood(
        self, frames: Iterator[bytes], *, reads: bool = True, **changes: object
    ) -> None:
        """Let a bad session send `frames`, thousands a second."""
        stream = await self.bad_stream(**changes)
        self._at_work.append(asyncio.create_task(_send_all(stream, frames)))
        if reads:
            self._at_work.append(asyncio.create_task(_read_all(stream)))
        await asyncio.sleep(0)

    def bad_sessions(self) -> int:
        """How many of them the server has open."""
        sessions = self.server.server._sessions.values()
        return sum(s._client.peer == self._bad.peer_id for s in sessions)

    def queued_bytes(self) -> int:
        """What lies in the queues of all sessions."""
        return sum(s._room.held_bytes for s in self.server.server._sessions.values())

    async def end_the_bad(self) -> None:
        """They are gone; the server forgets them within seconds, and nothing is left."""
        for task in self._at_work:
            task.cancel()
        await asyncio.gather(*self._at_work, return_exceptions=True)
        self.swarm.network.kill(self._bad.peer_id)
        async with asyncio.timeout(5):
            while self.bad_sessions():
                await asyncio.sleep(0.01)
        server = self.server.server
        assert not server._per_peer.get(self._bad.peer_id)
        assert self._bad.peer_id not in server._rooms

    async def close(self) -> None:
        await self.swarm.close()
        await asyncio.to_thread(self.executor.shutdown, 5)


@contextlib.asynccontextmanager
async def crowd(**changes: float) -> AsyncIterator[Crowd]:
    """A crowd; no task may outlive it."""
    before = asyncio.all_tasks()
    made = Crowd(**changes)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.end_the_bad()
        await made.close()
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() <= before


def always(frame: bytes) -> Iterator[bytes]:
    """The same for ever."""
    return itertools.repeat(frame)


def counted(make: Callable[[int], bytes]) -> Iterator[bytes]:
    """`make(1)`, `make(2)` and so on."""
    return map(make, itertools.count(1))


async def hear(stream: Stream) -> Frame:
    """The next thing the server says that is no ping."""
    async with asyncio.timeout(5):
        while not (data := await stream.receive()):
            assert data is not None
    return decode_frame(data, hidden_size=HIDDEN)


async def _send_all(stream: Stream, frames: Iterator[bytes]) -> None:
    for number, frame in enumerate(frames):
        await stream.send(frame)
        if number % 20 == 0:
            await asyncio.sleep(0.005)


async def _read_all(stream: Stream) -> None:
    while await stream.receive() is not None:
        await asyncio.sleep(0)
