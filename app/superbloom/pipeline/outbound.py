"""A server's stream to the next one: steps go out, nothing is waited for, loss is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from superbloom.domain.errors import PeerLost, ProtocolViolation
from superbloom.pipeline.messages import (
    PUSH_SERVICE,
    Arrived,
    Push,
    Refused,
    Step,
    decode_frame,
    encode_frame,
)
from superbloom.pipeline.step_way import StepWay
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.transport import Transport

OPEN_SECONDS = 5.0

MOST_WORD_BYTES = 32 * 1024
"""More than any frame takes by which a server answers steps."""


class Outbound:
    """Pushes steps to `peer`; `on_loss` is called once with the reason when it goes away."""

    def __init__(
        self, stream: LiveStream, way: StepWay, on_loss: Callable[[Outbound, PeerLost], None]
    ) -> None:
        self.peer = stream.peer
        self._stream = stream
        self._way = way
        self._on_loss = on_loss
        self._lost = False
        self._listening = asyncio.create_task(self._listen(), name=f"listen to {self.peer}")

    @classmethod
    async def open(
        cls,
        transport: Transport,
        peer: str,
        push: Push,
        way: StepWay,
        on_loss: Callable[[Outbound, PeerLost], None],
    ) -> Outbound:
        """Open the stream and name the session. Raises PeerLost."""
        raw = await transport.open_stream(peer, PUSH_SERVICE, timeout=OPEN_SECONDS)
        stream = LiveStream(raw)
        try:
            await stream.send(encode_frame(push))
        except BaseException:
            await stream.close()
            raise
        return cls(stream, way, on_loss)

    @property
    def lost(self) -> bool:
        """True once the stream is gone: nothing is sent any more."""
        return self._lost

    async def send(self, step: Step) -> None:
        """Send a step; a loss is reported, not raised, and what follows it is dropped."""
        if self._lost:
            return
        frame = await self._way.frame(step)
        try:
            await self._stream.send(frame)
        except PeerLost as loss:
            self._report(loss)

    async def close(self) -> None:
        """End the stream; no loss is reported any more."""
        self._lost = True
        self._way.end()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        await self._stream.close()

    async def _listen(self) -> None:
        """The next server says how steps arrive, or why it takes no more of them."""
        try:
            while (data := await self._stream.receive(MOST_WORD_BYTES)) is not None:
                self._hear(data)
            self._report(PeerLost("It closed the stream.", peer=self.peer))
        except PeerLost as loss:
            self._report(loss)
        except ProtocolViolation as violation:
            self._report(PeerLost(violation.message, peer=self.peer))

    def _hear(self, data: bytes) -> None:
        match frame := decode_frame(data, hidden_size=0):
            case Arrived():
                self._way.heard(frame)
            case Refused():
                pass  # the stream ends with it
            case _:
                raise ProtocolViolation(f"A server sent a {type(frame).__name__} message.")

    def _report(self, loss: PeerLost) -> None:
        if not self._lost:
            self._lost = True
            self._way.end()
            self._on_loss(self, loss)
