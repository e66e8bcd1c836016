"""Which steps to a peer travel in 8 bits: long ones over a link that the prompt waits for.

A sender can't see how fast its link is: what it sends goes into buffers of megabytes, its own, its
network daemon's and the system's. The receiver sees it, and says so in a reply to each long step.
Where steps follow each other without a gap, the times of these replies tell it better still.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable

from superbloom.domain.chain_time import Hop, prompt_seconds
from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.link_rates import LinkRates, is_bottleneck
from superbloom.pipeline.messages import Arrived, Step, encode_frame
from superbloom.pipeline.swarm_access import SwarmAccess
from superbloom.swarm.live_stream import LiveStream

HOLD_SECONDS = 10.0
"""A step that has not arrived by then is on a slow link, whatever its receiver may say."""

MOST_RATE = 2**32 - 1

ComputingSeconds = Callable[[int], float]
"""How long those at both ends of a link need for a step of so many tokens."""


class StepWay:
    """The way of one session's steps to `peer`.

    The first long step over a link of which nothing is known goes as it is, and the next one waits
    until that has arrived: about a round trip, in which its receiver computes.
    """

    def __init__(
        self,
        peer: str,
        rates: LinkRates,
        computing_seconds: ComputingSeconds,
        *,
        allows_compact: bool,
    ) -> None:
        self._peer = peer
        self._rates = rates
        self._computing_seconds = computing_seconds
        self._allows_compact = allows_compact
        self._under_way: deque[int] = deque()
        """The bytes of each long step of which nothing was heard yet."""
        self._busy_since = 0.0
        self._busy_bytes = 0
        """What has arrived since then, when there was always something under way."""
        self._changed = asyncio.Event()
        self._ended = False

    async def frame(self, step: Step) -> bytes:
        """The bytes of `step`, which are to be sent now."""
        if not self._allows_compact or not step.is_long:
            return encode_frame(dataclasses.replace(step, compact=False))
        if self._under_way and self._rate() is None:
            await self._wait_for_word()
        rate = self._rate()
        computing = self._computing_seconds(int(step.hidden.shape[0]))
        compact = rate is not None and is_bottleneck(rate, step.hidden.nbytes, computing)
        frame = encode_frame(dataclasses.replace(step, compact=compact))
        self._under_way.append(len(frame))
        return frame

    def heard(self, word: Arrived) -> None:
        """The peer has got a step. Raises ProtocolViolation if there is none that it can mean."""
        if not self._under_way:
            raise ProtocolViolation("A server got a step that nobody sent.")
        now, nbytes = time.monotonic(), self._under_way.popleft()
        if self._busy_since:
            self._busy_bytes += nbytes
            self._note(self._busy_bytes / max(now - self._busy_since, 1e-6))
        else:
            self._note(word.bytes_per_second)
        if not self._under_way:
            self._busy_since, self._busy_bytes = 0.0, 0
        elif not self._busy_since:
            self._busy_since = now

    def end(self) -> None:
        """Nothing is heard any more, and nobody is to wait for it."""
        self._ended = True
        self._changed.set()

    def _rate(self) -> float | None:
        return self._rates.bytes_per_second(self._peer, time.monotonic())

    def _note(self, bytes_per_second: float) -> None:
        self._rates.note(self._peer, bytes_per_second, time.monotonic())
        self._changed.set()

    async def _wait_for_word(self) -> None:
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                while not self._ended and self._under_way and self._rate() is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self._note(sum(self._under_way) / HOLD_SECONDS)


async def tell_arrived(stream: LiveStream, step: Step) -> None:
    """Tell the sender of `step`, which has just come, how fast it came. Raises PeerLost."""
    if step.is_long:
        rate = math.ceil(min(stream.arrival_rate, MOST_RATE))
        await stream.send(encode_frame(Arrived(bytes_per_second=rate)))


def computing_seconds(access: SwarmAccess, model: str, *hops: Hop) -> ComputingSeconds:
    """What the slowest of `hops` needs by its own word; those that are not known count nothing."""

    def seconds(tokens: int) -> float:
        servers = {server.peer: server for server in access.directory.servers(model)}
        return prompt_seconds([hop for hop in hops if hop.peer in servers], servers, tokens)

    return seconds
