"""Where a session's steps come from: one stream of the server before it, the newest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from superbloom.domain.errors import ProtocolViolation
from superbloom.pipeline.messages import Step, decode_frame
from superbloom.pipeline.step_way import tell_arrived
from superbloom.swarm.live_stream import LiveStream


class PreviousServer:
    """The way from `peer`, or from the client if that is empty. `accept` takes a step.

    A step that has to wait there for its room is not counted among those queued, so there is one
    stream at a time. An honest server opens another only when the one before is lost to it.
    """

    def __init__(
        self,
        peer: str,
        accept: Callable[[Step], Awaitable[None]],
        *,
        tells_arrivals: bool = False,
        hidden_size: int,
        most_bytes: int,
    ) -> None:
        """`most_bytes` is the longest frame that is taken. If it `tells_arrivals`, the server
        before is told how fast its long steps come in.
        """
        self._tells_arrivals = tells_arrivals
        self.peer = peer
        self._accept = accept
        self._hidden_size = hidden_size
        self._most_bytes = most_bytes
        self._following: asyncio.Task[None] | None = None

    async def follow(self, stream: LiveStream) -> bool:
        """Take the steps of `stream`, and no more of an earlier one, until it ends.

        False when a later one has taken its place. Raises PeerLost, ProtocolViolation for what is
        no step, and what `accept` raises.
        """
        if self._following is not None:
            self._following.cancel()
        following = asyncio.create_task(self._take(stream), name=f"follow {stream.peer}")
        self._following = following
        try:
            await asyncio.wait([following])
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        if following is not self._following:
            return False
        await following
        return True

    async def _take(self, stream: LiveStream) -> None:
        while (data := await stream.receive(self._most_bytes)) is not None:
            step = decode_frame(data, hidden_size=self._hidden_size)
            data = b""  # the step may have to wait: not twice in memory
            if not isinstance(step, Step):
                raise ProtocolViolation(f"A server pushed a {type(step).__name__} message.")
            if self.peer != stream.peer:
                return
            if self._tells_arrivals:
                await tell_arrived(stream, step)
            await self._accept(step)
