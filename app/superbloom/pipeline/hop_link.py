"""The client's stream to one server of its chain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from superbloom.domain.errors import (
    PeerLost,
    ProtocolViolation,
    SuperbloomError,
    error_from_code,
)
from superbloom.domain.span import Span
from superbloom.pipeline.messages import (
    SESSION_SERVICE,
    Arrived,
    Close,
    Closed,
    Draining,
    EpochBegun,
    Frame,
    NewEpoch,
    NextLost,
    Open,
    Opened,
    Park,
    Probe,
    Progress,
    Refused,
    Reroute,
    Rerouted,
    Result,
    Resume,
    Resumed,
    Step,
    decode_frame,
    encode_frame,
)
from superbloom.pipeline.step_way import StepWay
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.transport import Transport

OPEN_SECONDS = 5.0
REPLY_SECONDS = 4.0

UNREAD_FRAMES = 256
"""What a server may say while nobody listens; more than that was not asked for."""

ReplyT = TypeVar("ReplyT", Opened, EpochBegun, Rerouted, Progress, Resumed, Closed)
_REPLIES: tuple[type[Frame], ...] = (Opened, EpochBegun, Rerouted, Progress, Resumed, Closed)


@dataclass(frozen=True, slots=True)
class News:
    """What a server says unasked: a result, a loss, or why its stream ended.

    Without a link and a word, it is the client's own: there is more to send.
    """

    link: HopLink | None = None
    what: Result | NextLost | Refused | PeerLost | ProtocolViolation | None = None


class HopLink:
    """An open session on `peer` for `blocks`. News goes to `inbox`, replies to who asked."""

    def __init__(
        self,
        stream: LiveStream,
        blocks: Span,
        way: StepWay,
        hidden_size: int,
        inbox: asyncio.Queue[News],
    ) -> None:
        self.peer = stream.peer
        self.blocks = blocks
        self.draining = False
        self.filled = False
        """True once a step has passed the whole chain: the server's cache has no gaps."""
        self._stream = stream
        self._way = way
        self._hidden_size = hidden_size
        self._inbox = inbox
        self._replies = {kind: asyncio.Queue[Frame | SuperbloomError]() for kind in _REPLIES}
        """A queue a kind: who waits for one kind takes nobody else's reply."""
        self._probing = asyncio.Lock()
        self._listening = asyncio.create_task(self._listen(), name=f"hop {self.peer}")

    @classmethod
    async def open(
        cls,
        transport: Transport,
        peer: str,
        opened: Open,
        way: StepWay,
        *,
        hidden_size: int,
        inbox: asyncio.Queue[News],
    ) -> HopLink:
        """Open the session. Raises PeerLost, or the error with which the server refuses."""
        stream = LiveStream(
            await transport.open_stream(peer, SESSION_SERVICE, timeout=OPEN_SECONDS)
        )
        link = cls(stream, Span(opened.start, opened.end), way, hidden_size, inbox)
        try:
            await link._send(opened)
            await link._reply(Opened, OPEN_SECONDS)
        except BaseException:
            await link.abandon()
            raise
        return link

    async def step(self, step: Step) -> None:
        """Send a step. Raises PeerLost."""
        await self._stream.send(await self._way.frame(step))

    async def begin_epoch(self, order: NewEpoch) -> None:
        """Have the server forget older steps. Raises PeerLost."""
        await self._send(order)
        await self._reply(EpochBegun, REPLY_SECONDS, epoch=order.epoch)

    async def reroute(self, order: Reroute, timeout: float) -> bool:
        """Have the server feed another one; False if its history is gone. Raises PeerLost."""
        await self._send(order)
        return (await self._reply(Rerouted, timeout, epoch=order.epoch)).replayed

    async def progress(self) -> Progress:
        """How far the server is. Raises PeerLost."""
        async with self._probing:
            await self._send(Probe())
            return await self._reply(Progress, REPLY_SECONDS)

    async def report(self) -> Progress | SuperbloomError:
        """As `progress`; a loss is returned, not raised."""
        try:
            return await self.progress()
        except SuperbloomError as error:
            return error

    async def park(self) -> None:
        """Keep the session for a next turn. Raises PeerLost."""
        await self._send(Park())

    async def resume(self, order: Resume) -> bool:
        """Take a parked session up again; False if the server has no room. Raises PeerLost."""
        await self._send(order)
        return (await self._reply(Resumed, REPLY_SECONDS)).granted

    async def close(self, timeout: float) -> None:
        """End the session and wait until the server computes nothing more for it."""
        try:
            await self._send(Close())
            await self._reply(Closed, timeout)
        except SuperbloomError:
            pass  # a server that is gone computes nothing either
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Drop the stream without a word."""
        self._way.end()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        await self._stream.close()

    # --- the stream -------------------------------------------------------------------------

    async def _send(self, frame: Frame) -> None:
        await self._stream.send(encode_frame(frame))

    async def _reply(self, kind: type[ReplyT], timeout: float, *, epoch: int = 0) -> ReplyT:
        """The next reply of `kind` and `epoch`; stale ones are passed over."""
        replies = self._replies[kind]
        try:
            async with asyncio.timeout(timeout):
                while True:
                    reply = await replies.get()
                    if isinstance(reply, SuperbloomError):
                        replies.put_nowait(reply)
                        raise reply
                    if isinstance(reply, EpochBegun | Rerouted) and reply.epoch < epoch:
                        continue
                    if isinstance(reply, kind):
                        return reply
        except TimeoutError:
            raise PeerLost("It did not answer in time.", peer=self.peer) from None

    async def _listen(self) -> None:
        end: PeerLost | ProtocolViolation
        try:
            while (data := await self._stream.receive()) is not None:
                self._sort(decode_frame(data, hidden_size=self._hidden_size))
                unread = [replies.qsize() for replies in self._replies.values()]
                if max(self._inbox.qsize(), *unread) > UNREAD_FRAMES:
                    raise ProtocolViolation("A server sent more than it was asked for.")
            end = PeerLost("It closed the session.", peer=self.peer)
        except (PeerLost, ProtocolViolation) as error:
            end = error
        self._way.end()
        self._inbox.put_nowait(News(self, end))
        self._end_replies(end)

    def _end_replies(self, error: SuperbloomError) -> None:
        """Whoever waits for a reply, or will, hears of the error."""
        for replies in self._replies.values():
            replies.put_nowait(error)

    def _sort(self, frame: Frame) -> None:
        match frame:
            case Result() | NextLost():
                self._inbox.put_nowait(News(self, frame))
            case Arrived():
                self._way.heard(frame)
            case Draining():
                self.draining = True
            case Refused():
                self._inbox.put_nowait(News(self, frame))
                self._end_replies(refusal(frame))
            case Opened() | EpochBegun() | Rerouted() | Progress() | Resumed() | Closed():
                self._replies[type(frame)].put_nowait(frame)
            case _:
                raise ProtocolViolation(f"A server sent a {type(frame).__name__} message.")


def refusal(frame: Refused) -> SuperbloomError:
    """A refusal as the error it stands for; lengths bounded, since a peer wrote them."""
    return error_from_code(frame.code, frame.message[:500], frame.next_step[:500])
