"""Where a session's output goes on to: the next server, what it was sent, and its loss."""

from __future__ import annotations

import asyncio

from superbloom.domain.chain_time import Hop
from superbloom.domain.errors import PeerLost
from superbloom.domain.span import Span
from superbloom.pipeline.history import History
from superbloom.pipeline.messages import CHUNK_TOKENS, NextLost, Open, Push, Reroute, Step
from superbloom.pipeline.outbound import Outbound
from superbloom.pipeline.step_way import StepWay, computing_seconds
from superbloom.pipeline.swarm_access import SwarmAccess


class NextServer:
    """The way from one session to the one that follows it, if any does.

    `epoch` is the session's, `losses` what its client should hear.
    """

    def __init__(self, opened: Open, history: History, access: SwarmAccess) -> None:
        self.epoch = opened.epoch
        self.losses: asyncio.Queue[NextLost] = asyncio.Queue()
        self._peer = opened.next
        self._session = opened.next_session
        self._passes_replay = opened.passes_replay
        self._history = history
        self._model = opened.model
        self._blocks = Span(opened.start, opened.end)
        self._allows_compact = opened.allows_compact
        self._access = access
        self._outbound: Outbound | None = None
        self._unreachable = False
        """True if the client was told so in this epoch: every step would look for it again."""
        self._pushing = asyncio.Lock()

    @property
    def exists(self) -> bool:
        """False on the last server, whose output goes to the client."""
        return bool(self._peer)

    async def pass_on(self, step: Step) -> None:
        """Send a step and keep it for a replay; a loss is reported, not raised."""
        self._history.write(step.position, step.hidden)
        if not step.replay or self._passes_replay:
            async with self._pushing:
                if step.epoch == self.epoch:
                    await self._push(step)

    async def reroute(self, order: Reroute) -> bool:
        """Turn to another server and bring it up to date; False if the history is gone."""
        if self._outbound is not None:
            await self._outbound.close()
        async with self._pushing:
            self._outbound, self._unreachable = None, False
            self._peer, self._session = order.next, order.next_session
            for start in range(0, order.replay, CHUNK_TOKENS):
                if not self._history.holds(order.replay):  # newer sessions may need its room
                    return False
                rows = self._history.read(start, min(start + CHUNK_TOKENS, order.replay))
                await self._push(
                    Step(epoch=self.epoch, position=start, keep=0, replay=True, hidden=rows)
                )
        return True

    async def begin_anew(self) -> None:
        """In a new epoch a way that was lost is tried again, or its loss told again."""
        self._unreachable = False
        outbound = self._outbound
        if outbound is not None and outbound.lost:
            self._outbound = None
            await outbound.close()

    async def close(self) -> None:
        """Send nothing more and keep nothing more."""
        self._history.forget()
        if self._outbound is not None:
            await self._outbound.close()

    async def _push(self, step: Step) -> None:
        """Send to the next server; the caller holds `_pushing`."""
        if self._unreachable:
            return
        if self._outbound is None:
            try:
                self._outbound = await self._open_way()
            except PeerLost as loss:
                self._unreachable = True
                self._tell_loss(self._peer, loss)
                return
        await self._outbound.send(step)

    async def _open_way(self) -> Outbound:
        """Raises PeerLost, also after a look at where the peer says that it is now."""
        transport, head = self._access.transport, self._push_head()
        where = (transport, self._peer, head, self._step_way(), self._note_loss)
        try:
            return await Outbound.open(*where)
        except PeerLost:
            await self._access.directory.refresh(self._model)
        return await Outbound.open(*where)

    def _step_way(self) -> StepWay:
        """What the next server computes is guessed: all that it has behind our own blocks."""
        hops = [Hop(self._access.transport.peer_id, self._blocks)]
        for server in self._access.directory.servers(self._model):
            if server.peer == self._peer and server.span.end > self._blocks.end:
                hops.append(Hop(server.peer, Span(self._blocks.end, server.span.end)))
        return StepWay(
            self._peer,
            self._access.link_rates,
            computing_seconds(self._access, self._model, *hops),
            allows_compact=self._allows_compact,
        )

    def _push_head(self) -> Push:
        me, peer = self._access.transport.peer_id.encode(), self._peer.encode()
        tag = self._access.membership.tag(b"push", self._session.encode(), me, peer)
        return Push(session=self._session, tag=tag.hex())

    def _note_loss(self, outbound: Outbound, loss: PeerLost) -> None:
        if outbound is self._outbound:
            self._tell_loss(outbound.peer, loss)

    def _tell_loss(self, peer: str, loss: PeerLost) -> None:
        self.losses.put_nowait(NextLost(epoch=self.epoch, peer=peer, words=loss.message))
