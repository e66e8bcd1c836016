"""The client's chain: segments in order, losses that leave gaps, and plans that fill them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from superbloom.domain.chain_time import Hop
from superbloom.domain.errors import BlocksMissing, PeerLost, SuperbloomError
from superbloom.domain.generation import ChatPhase, PhaseChange
from superbloom.domain.span import Span
from superbloom.pipeline.chain_planner import ChainPlanner
from superbloom.pipeline.hop_link import HopLink, refusal
from superbloom.pipeline.messages import Refused, Result
from superbloom.pipeline.ring_watch import RingWatch
from superbloom.pipeline.segment import Segment, planned

log = logging.getLogger(__name__)


class Chain:
    """All blocks of a model as segments; one that is a gap at first."""

    def __init__(self, planner: ChainPlanner, blocks: int) -> None:
        self._planner = planner
        self._watch = RingWatch(planner)
        self._all = Span(0, blocks)
        self._blamers: set[str] = set()
        self._farewells: set[asyncio.Future[None]] = set()
        self.segments: tuple[Segment, ...] = (Segment(self._all),)

    @property
    def links(self) -> tuple[HopLink, ...]:
        """The links there are, in order."""
        return tuple(segment.link for segment in self.segments if segment.link is not None)

    @property
    def is_whole(self) -> bool:
        """True if every segment has its link."""
        return all(segment.link is not None for segment in self.segments)

    @property
    def names(self) -> tuple[str, ...]:
        """The servers in order, as their owners call them."""
        return tuple(self._planner.name_of(link.peer) for link in self.links)

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The links there are as hops, in order."""
        return tuple(Hop(link.peer, link.blocks) for link in self.links)

    def news(self, phase: ChatPhase, words: str) -> PhaseChange:
        """A new phase of the answer, with the servers it flows through."""
        hops = self._planner.shown(self.hops)
        names = tuple(hop.name for hop in hops)
        return PhaseChange(phase=phase, words=words, chain=names, hops=hops)

    def sent(self, epoch: int, end: int) -> None:
        """A step up to position `end` is about to be sent; `arrived` follows."""
        self._watch.sent(epoch, end)

    def arrived(self, result: Result) -> None:
        """A step has gone through the whole chain, so that no cache has a gap.

        Servers that are slower than they say are found out by this, and left at the next turn.
        """
        for link in self.links:
            link.filled = True
        self._watch.arrived(self.links, result)

    def is_outrun(self, held: int, max_tokens: int) -> bool:
        """True if a next turn is quicker on another chain, though this one has `held` tokens."""
        return self.is_whole and self._planner.is_outrun(self.hops, held, max_tokens)

    def following(self, link: HopLink) -> HopLink | None:
        """The link after `link`, which must be in the chain."""
        links = self.links
        index = links.index(link) + 1
        return links[index] if index < len(links) else None

    def lose(self, link: HopLink, words: str, *, faulty: bool = False) -> None:
        """Make the link a gap. A faulty server is asked again only if nobody else is there."""
        log.warning("Lost server %s: %s", self._planner.name_of(link.peer), words)
        self._planner.avoid(link.peer, last=faulty, gone=not faulty)
        self._drop(link, link.abandon())

    def lose_segment(self, segment: Segment, error: SuperbloomError) -> None:
        """A server of the chain, or one that was only planned, has failed."""
        if segment.link is not None and segment.link in self.links:
            self.lose(segment.link, error.message)
            return
        log.warning("Server %s: %s", self._planner.name_of(segment.peer), error.message)
        self._planner.avoid(segment.peer, gone=isinstance(error, PeerLost))

    def lose_refusing(self, link: HopLink, refused: Refused) -> None:
        """A server ended the session. If it blames another's data, that one is left too.

        One that blames twice is not believed again.
        """
        error = refusal(refused)
        blamed = [b for b in self.links if b.peer == refused.blame and b is not link]
        for other in blamed:
            self.lose(other, error.message, faulty=True)
        believed = bool(blamed) and link.peer not in self._blamers
        self._blamers.add(link.peer)
        log.warning("Server %s ended the session: %s", link.peer[-6:], error.message)
        if not believed:
            self._planner.avoid(link.peer, last=bool(blamed))
        self._drop(link, link.abandon())

    def reopen_unfilled(self) -> None:
        """Make gaps of servers that were lost to while their caches were being filled."""
        for link in self.links:
            if not link.filled:
                self._drop(link, link.close(2.0))

    def leave_draining(self, max_tokens: int) -> None:
        """Make gaps of servers that are about to leave, if others hold their blocks."""
        for segment in self.segments:
            link = segment.link
            if link is None or not link.draining:
                continue
            if self._planner.can_replace(segment.blocks, link.peer, max_tokens):
                self._planner.avoid(link.peer, last=True)
                self._drop(link, link.close(2.0))

    def plan(self, max_tokens: int) -> tuple[Segment, ...]:
        """The segments with servers chosen for every gap. Raises BlocksMissing.

        A server serves one segment of a chain. When only servers that are in the chain already
        hold the missing blocks, the chain is planned afresh as a whole.
        """
        try:
            return self._fill_gaps(max_tokens)
        except BlocksMissing:
            if not self.links:
                raise
            self._planner.choose(self._all, max_tokens)
        for link in self.links:
            self._drop(link, link.close(2.0))
        return self._fill_gaps(max_tokens)

    async def close(self, timeout: float) -> None:
        """End the session on every server, waiting up to `timeout` seconds for their word."""
        await self._watch.close()
        endings = [link.close(timeout) for link in self.links]
        self.segments = ()
        await asyncio.gather(*endings, *self._farewells)

    def _fill_gaps(self, max_tokens: int) -> tuple[Segment, ...]:
        present = frozenset(link.peer for link in self.links)
        plan: list[Segment] = []
        for segment in self.segments:
            if segment.link is not None:
                plan.append(segment)
                continue
            taken = present | {chosen.peer for chosen in plan}
            hops = self._planner.choose(segment.blocks, max_tokens, besides=taken)
            plan.extend(map(planned, hops))
        return tuple(plan)

    def _drop(self, link: HopLink, ending: Awaitable[None]) -> None:
        """Make the link a gap; gaps that touch become one."""
        gapped: list[Segment] = []
        for segment in self.segments:
            here = Segment(segment.blocks) if segment.link is link else segment
            if gapped and not gapped[-1].peer and not here.peer:
                here = Segment(Span(gapped.pop().blocks.start, here.blocks.end))
            gapped.append(here)
        self.segments = tuple(gapped)
        task = asyncio.ensure_future(ending)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)
