"""Making a planned chain whole: sessions opened, epochs begun, caches replayed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from superbloom.domain.chain_time import Hop
from superbloom.domain.errors import SuperbloomError
from superbloom.pipeline.hop_link import HopLink, News
from superbloom.pipeline.messages import NewEpoch, Open, Reroute
from superbloom.pipeline.segment import Segment
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.step_way import StepWay, computing_seconds
from superbloom.pipeline.swarm_access import SwarmAccess

REPLAY_SECONDS = 20.0
REPLAY_SECONDS_PER_TOKEN = 0.05
"""Time a server gets to hand over its history: a base, and more for long ones."""

ReplayOwn = Callable[[HopLink, int], Awaitable[None]]
"""`(first link, epoch)`: the client replays what it sent itself. Raises PeerLost."""


class SegmentsLost(Exception):
    """Servers that failed while the chain was mended, with their reasons."""

    def __init__(self, lost: list[tuple[Segment, SuperbloomError]]) -> None:
        super().__init__(str(lost))
        self.lost = lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Mender:
    """Opens and connects the servers of one chain."""

    access: SwarmAccess
    served: ServedModel
    max_tokens: int
    exact: bool
    """No step may be compact."""
    inbox: asyncio.Queue[News]

    async def open_planned(self, chain: tuple[Segment, ...], epoch: int) -> tuple[Segment, ...]:
        """The chain with a link for every planned segment.

        Raises SegmentsLost. When it raises anything, or is cancelled, no new link is left open.
        """
        opening = [
            asyncio.create_task(
                self._open(chain, index, epoch), name=f"open block {segment.blocks}"
            )
            for index, segment in enumerate(chain)
        ]
        try:
            await asyncio.wait(opening)
            return _opened(chain, opening)
        except BaseException:
            for task in opening:
                task.cancel()
            outcomes = await asyncio.gather(*opening, return_exceptions=True)
            whole = [outcome for outcome in outcomes if isinstance(outcome, Segment)]
            fresh = [s.link for s in whole if s.link is not None and not _had_link(s, chain)]
            await asyncio.gather(*(link.abandon() for link in fresh))
            raise

    async def begin_epoch(self, chain: tuple[Segment, ...], epoch: int, position: int) -> None:
        """Have every server forget older steps from `position` on. Raises SegmentsLost."""
        orders = [
            self._order(segment, NewEpoch(epoch=epoch, position=position, previous=previous))
            for segment, previous in zip(chain, ("", *(s.peer for s in chain)), strict=False)
        ]
        outcomes = await asyncio.gather(*orders)
        lost = [pair for pair in outcomes if pair is not None]
        if lost:
            raise SegmentsLost(lost)

    async def replay(
        self,
        chain: tuple[Segment, ...],
        fresh: frozenset[str],
        epoch: int,
        tokens: int,
        replay_own: ReplayOwn,
    ) -> bool:
        """Bring the `fresh` peers' caches to `tokens` positions; False if a history is gone.

        Raises SegmentsLost.
        """
        complete = True
        for before, segment in zip((None, *chain), chain, strict=False):
            if segment.peer not in fresh or (before is not None and before.peer in fresh):
                continue
            feeding = segment if before is None else before
            assert feeding.link is not None
            try:
                if before is None:
                    await replay_own(feeding.link, epoch)
                else:
                    order = Reroute(
                        epoch=epoch,
                        next=segment.peer,
                        next_session=segment.session,
                        replay=tokens,
                    )
                    limit = REPLAY_SECONDS + REPLAY_SECONDS_PER_TOKEN * tokens
                    complete = await feeding.link.reroute(order, limit) and complete
            except SuperbloomError as error:
                raise SegmentsLost([(feeding, error)]) from None
        return complete

    async def _open(self, chain: tuple[Segment, ...], index: int, epoch: int) -> Segment:
        segment = chain[index]
        if segment.link is not None:
            return segment
        previous = chain[index - 1].peer if index else ""
        following = chain[index + 1] if index + 1 < len(chain) else None
        link = await HopLink.open(
            self.access.transport,
            segment.peer,
            Open(
                session=segment.session,
                model=self.served.id,
                fingerprint=self.served.fingerprint,
                start=segment.blocks.start,
                end=segment.blocks.end,
                max_tokens=self.max_tokens,
                epoch=epoch,
                next=following.peer if following else "",
                next_session=following.session if following else "",
                previous=previous,
                passes_replay=following is not None and following.link is None,
                allows_compact=not self.exact,
                tag=self._tag(segment),
            ),
            self._step_way(segment),
            hidden_size=self.served.hidden_size,
            inbox=self.inbox,
        )
        return dataclasses.replace(segment, link=link)

    def _step_way(self, segment: Segment) -> StepWay:
        """The client computes next to nothing for a step, so its first server counts."""
        hop = Hop(segment.peer, segment.blocks)
        seconds = computing_seconds(self.access, self.served.id, hop)
        rates = self.access.link_rates
        return StepWay(segment.peer, rates, seconds, allows_compact=not self.exact)

    def _tag(self, segment: Segment) -> str:
        me, peer = self.access.transport.peer_id.encode(), segment.peer.encode()
        return self.access.membership.tag(b"session", segment.session.encode(), me, peer).hex()

    async def _order(
        self, segment: Segment, order: NewEpoch
    ) -> tuple[Segment, SuperbloomError] | None:
        assert segment.link is not None
        try:
            await segment.link.begin_epoch(order)
        except SuperbloomError as error:
            return segment, error
        return None


def _opened(
    chain: tuple[Segment, ...], opening: list[asyncio.Task[Segment]]
) -> tuple[Segment, ...]:
    """What the ended tasks opened. Raises SegmentsLost if any of them failed."""
    lost: list[tuple[Segment, SuperbloomError]] = []
    for segment, task in zip(chain, opening, strict=True):
        error = task.exception()
        if isinstance(error, SuperbloomError):
            lost.append((segment, error))
        elif error is not None:
            raise error
    if lost:
        raise SegmentsLost(lost)
    return tuple(task.result() for task in opening)


def _had_link(segment: Segment, chain: tuple[Segment, ...]) -> bool:
    return any(segment.link is before.link for before in chain)
