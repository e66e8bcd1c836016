"""The client's session over a chain: tokens in, hidden states out, whatever servers do.

Tokens go in windows, which follow each other without waiting. What turns out to be wrong is
retracted: the next step carries a new epoch, by which servers drop what is left of older ones.

A server that is lost leaves a gap in the chain, and `_mend` fills gaps: servers are chosen for the
missing blocks, sessions opened there, and the server before the gap (or the client itself) replays
what it sent. Connecting is mending a chain that is one gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from torch import Tensor

from superbloom.domain.errors import (
    BlocksMissing,
    NetworkFailed,
    PeerLost,
    ProtocolViolation,
    SessionError,
    SuperbloomError,
)
from superbloom.domain.generation import ChatPhase, PhaseChange
from superbloom.pipeline.chain import Chain
from superbloom.pipeline.chain_planner import ChainPlanner
from superbloom.pipeline.hop_link import HopLink, News
from superbloom.pipeline.mending import Mender, SegmentsLost
from superbloom.pipeline.messages import CHUNK_TOKENS, NextLost, Refused, Result, Resume, Step
from superbloom.pipeline.segment import Segment
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.stall import StallWatch
from superbloom.pipeline.swarm_access import Present, SwarmAccess
from superbloom.pipeline.windows import PlannedStep, Windows

LOOK_SECONDS = 10.0
"""Without a result for this long, the servers are asked how far they are, and so on."""

NETWORK_SECONDS = 0.5
"""How often a session without a network looks whether it is back."""

Embed = Callable[[Sequence[int], int], Awaitable[Tensor]]
"""`(token_ids, position) -> [tokens, hidden_size]`."""


class _ChainBroken(Exception):
    """A server of the chain was lost; the chain has a gap now."""


class ChainSession:
    """One sequence's way through the swarm: `send` windows of tokens, `receive` what they give."""

    def __init__(
        self,
        *,
        access: SwarmAccess,
        present: Present,
        served: ServedModel,
        max_tokens: int,
        embed: Embed,
        notify: Callable[[PhaseChange], None],
        exact: bool = False,
    ) -> None:
        """Begin on `access`, and follow to what `present` gives while that is the same swarm.

        If `exact`, no link is so slow that long steps are rounded to 8 bits.
        """
        self.exact = exact
        self._present = present
        self._served = served
        self._max_tokens = max_tokens
        self._embed = embed
        self._notify = notify
        self._inbox: asyncio.Queue[News] = asyncio.Queue()
        self._mender: Mender
        self._settle(access)
        self._windows = Windows()
        self._refusal: SuperbloomError | None = None

    async def send(self, token_ids: Sequence[int], *, keep: int = 1) -> None:
        """Append a window of tokens; the hidden states of its last `keep` are to be received.

        Waits for no result. While the chain is broken, `receive` does the sending.
        """
        self._windows.add(token_ids, keep)
        self._chain.leave_draining(self._max_tokens)
        if self._chain.is_whole:
            with contextlib.suppress(_ChainBroken):
                await self._send_waiting()

    def send_soon(self, token_ids: Sequence[int], *, keep: int) -> None:
        """As `send`, at any time: it is done in the `receive` that waits, or the next one."""
        self._windows.add(token_ids, keep)
        self._inbox.put_nowait(News())

    async def receive(self) -> Tensor:
        """What the oldest window gives, once it has passed all blocks: [keep, hidden_size].

        Waits while blocks are missing and survives lost servers. Raises SessionRefused when, at
        the start, the only servers there are refuse the session, and NetworkFailed when this
        computer has left the swarm.
        """
        while True:
            try:
                if not self._chain.is_whole:
                    await self._mend()
                return await self._drive()
            except _ChainBroken:
                continue

    def retract(self, position: int) -> None:
        """Take back all tokens from `position` on, and those of which nothing was received yet."""
        self._windows.retract(position)

    def shared_prefix(self, token_ids: Sequence[int]) -> int:
        """How many of `token_ids`, from the first on, the servers of this session hold."""
        return self._windows.shared_prefix(token_ids)

    async def park(self) -> bool:
        """Keep the caches for a next turn; False if the chain is broken."""
        if not self._is_sound():
            return False
        try:
            await asyncio.gather(*(link.park() for link in self._chain.links))
        except PeerLost:
            return False
        return True

    async def resume(
        self, position: int, max_tokens: int, notify: Callable[[PhaseChange], None]
    ) -> bool:
        """Go on after a park, from `position`, with room for `max_tokens`.

        False if that fails, and if another chain has become so much quicker that it pays to move.
        """
        if not self._is_sound() or self._chain.is_outrun(position, max_tokens):
            return False
        self._windows.retract(position)
        self._windows.begin_epoch(position)
        order = Resume(epoch=self._windows.epoch, position=position, max_tokens=max_tokens)
        try:
            granted = await asyncio.gather(*(link.resume(order) for link in self._chain.links))
        except SuperbloomError:
            return False
        self._max_tokens = max(self._max_tokens, max_tokens)
        self._mender = dataclasses.replace(self._mender, max_tokens=self._max_tokens)
        self._notify = notify
        self._say(ChatPhase.READING, f"Through {', '.join(self.server_names)}.")
        return all(granted)

    async def close(self, timeout: float = 2.0) -> None:
        """End the session on every server, waiting up to `timeout` seconds for their word."""
        await self._chain.close(timeout)

    @property
    def server_names(self) -> tuple[str, ...]:
        """The servers in order, as their owners call them."""
        return self._chain.names

    def _is_sound(self) -> bool:
        """True if the chain is whole and nothing bad was heard from it."""
        news = [self._inbox.get_nowait() for _ in range(self._inbox.qsize())]
        healthy = all(isinstance(item.what, Result | None) for item in news)
        healthy = healthy and not any(link.draining for link in self._chain.links)
        return healthy and bool(self._chain.segments) and self._chain.is_whole

    # --- steps ------------------------------------------------------------------------------

    async def _drive(self) -> Tensor:
        """Send what waits until the oldest window has gone through the chain."""
        while True:
            await self._send_waiting()
            result = await self._next_result()
            self._chain.arrived(result)
            if self._windows.take(result):
                return result.hidden

    async def _send_waiting(self) -> None:
        """Send what may be under way now. Raises _ChainBroken."""
        while (planned := self._windows.next_step()) is not None:
            await self._send_step(planned)

    async def _send_step(self, planned: PlannedStep) -> None:
        tokens = self._windows.tokens[planned.start : planned.end]
        hidden = await self._embed(tokens, planned.start)
        link = self._chain.segments[0].link
        assert link is not None
        try:
            self._chain.sent(planned.epoch, planned.end)
            await link.step(planned.carrying(hidden))
        except PeerLost as loss:
            self._chain.lose(link, loss.message)
            raise _ChainBroken from None
        self._windows.note_sent(planned)

    async def _next_result(self) -> Result:
        """The next result. Raises _ChainBroken."""
        watch = StallWatch()
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    news = await self._inbox.get()
            except TimeoutError:
                if await watch.lost_one(self._chain, self._windows):
                    raise _ChainBroken from None
                continue
            result = self._weigh(news)
            if result is not None:
                return result
            await self._send_waiting()

    def _weigh(self, news: News) -> Result | None:
        """The result in `news`, if it is the one waited for; raises _ChainBroken on a loss."""
        link, what = news.link, news.what
        if link is None or link not in self._chain.links:
            return None
        match what:
            case Result() | NextLost() if what.epoch != self._windows.epoch:
                return None
            case Result() if link is self._chain.segments[-1].link and self._windows.expects(what):
                return what
            case Result():
                self._chain.lose(link, "It sent a result that nobody asked for.", faulty=True)
            case NextLost():
                following = self._chain.following(link)
                if following is None or following.peer != what.peer:
                    return None
                self._chain.lose(following, what.words[:500])
            case Refused():
                self._chain.lose_refusing(link, what)
            case PeerLost():
                self._chain.lose(link, what.message)
            case ProtocolViolation():
                self._chain.lose(link, what.message, faulty=True)
        raise _ChainBroken

    # --- mending ----------------------------------------------------------------------------

    async def _mend(self) -> None:
        """Fill every gap; returns with a whole chain whose caches reach what is committed."""
        connecting = not self._chain.links
        if connecting and not self._windows.committed:
            self._say(ChatPhase.CONNECTING, "Looking for servers.")
        while not self._chain.is_whole:
            if not await self._has_network():
                words = "This computer's network is gone for the moment."
                self._say(ChatPhase.WAITING, f"{words} The answer goes on when it is back.")
                await asyncio.sleep(NETWORK_SECONDS)
                continue
            if self._windows.committed:
                self._chain.reopen_unfilled()
            try:
                plan = self._chain.plan(self._max_tokens)
            except BlocksMissing as missing:
                await self._wait_for_servers(missing)
                continue
            if self._windows.committed:
                taking = [self._planner.name_of(s.peer) for s in plan if s.link is None]
                self._say(
                    ChatPhase.RECOVERING,
                    f"A server was lost; its blocks go to {', '.join(taking)}.",
                )
            try:
                await self._rebuild(plan)
            except SegmentsLost as failure:
                for segment, error in failure.lost:
                    self._chain.lose_segment(segment, error)
                    if isinstance(error, SessionError):
                        self._refusal = error
        self._refusal = None
        phase = ChatPhase.WRITING if self._windows.committed else ChatPhase.READING
        self._say(phase, f"Through {', '.join(self.server_names)}.")

    async def _rebuild(self, plan: tuple[Segment, ...]) -> None:
        """Open what is planned and bring all caches in line. Raises SegmentsLost."""
        self._windows.begin_epoch(self._windows.committed)
        fresh = frozenset(segment.peer for segment in plan if segment.link is None)
        chain = await self._mender.open_planned(plan, self._windows.epoch)
        try:
            if len(fresh) < len(chain):  # others are here from before
                await self._mender.begin_epoch(chain, self._windows.epoch, self._windows.committed)
            complete = await self._mender.replay(
                chain, fresh, self._windows.epoch, self._windows.committed, self._replay_own
            )
            if not complete:
                self._windows.begin_epoch(0)
                await self._mender.begin_epoch(chain, self._windows.epoch, 0)
        except BaseException:
            opened = [s.link for s in chain if s.peer in fresh and s.link is not None]
            await asyncio.gather(*(link.abandon() for link in opened))
            raise
        self._chain.segments = chain

    async def _replay_own(self, link: HopLink, epoch: int) -> None:
        for start in range(0, self._windows.committed, CHUNK_TOKENS):
            end = min(start + CHUNK_TOKENS, self._windows.committed)
            hidden = await self._embed(self._windows.tokens[start:end], start)
            await link.step(Step(epoch=epoch, position=start, keep=0, replay=True, hidden=hidden))

    async def _has_network(self) -> bool:
        """Follow to the network of this moment; False while there is none.

        Raises NetworkFailed when it is another swarm's.
        """
        access = self._present()
        if access is None or access.transport.failure is not None:
            return False
        if access is not self._access:
            if access.membership != self._access.membership:
                raise NetworkFailed(
                    "This computer has left the swarm in which the answer was written.",
                    "Ask again to have it written in the present one.",
                )
            await self._chain.close(0.0)  # its streams are gone already
            self._settle(access)
        return True

    def _settle(self, access: SwarmAccess) -> None:
        """Begin a chain in this place of the network."""
        self._access = access
        self._planner = ChainPlanner(access.directory, self._served)
        self._chain = Chain(self._planner, self._served.blocks)
        self._mender = Mender(
            access=access,
            served=self._served,
            max_tokens=self._max_tokens,
            exact=self.exact,
            inbox=self._inbox,
        )

    async def _wait_for_servers(self, missing: BlocksMissing) -> None:
        words = missing.message
        if self._refusal is not None:
            if not self._windows.committed:
                raise self._refusal
            words = f"{words} {self._refusal.message}"
        self._say(ChatPhase.WAITING, f"{words} The answer goes on when a server appears.")
        await self._planner.wait_for_change()
        while not self._inbox.empty():
            try:
                self._weigh(self._inbox.get_nowait())
            except _ChainBroken:
                continue

    def _say(self, phase: ChatPhase, words: str) -> None:
        self._notify(self._chain.news(phase, words))
