"""Which servers to use: the directory's view, less those that this session had trouble with."""

from __future__ import annotations

import math
import time
from collections.abc import Set

from superbloom.domain.errors import BlocksMissing
from superbloom.domain.route import Hop, choose_chain
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo
from superbloom.pipeline.served_model import ServedModel
from superbloom.swarm.directory import Directory

AVOID_SECONDS = 10.0
"""How long a server that was lost is not asked again, unless it announces itself anew."""

CHANGE_SECONDS = 1.0

UNKNOWN_LINK_SECONDS = 0.05
"""One-way time assumed for a peer to which it was never measured."""


class ChainPlanner:
    """Chooses hops for one session."""

    def __init__(self, directory: Directory, served: ServedModel) -> None:
        self._directory = directory
        self._served = served
        self._avoided: dict[str, float] = {}

    def choose(
        self, part: Span, max_tokens: int, *, besides: Set[str] = frozenset()
    ) -> tuple[Hop, ...]:
        """The quickest hops for the blocks of `part`, none on `besides`. Raises BlocksMissing."""
        now = time.monotonic()
        avoid = frozenset(peer for peer, until in self._avoided.items() if until > now)
        hops = choose_chain(
            self._directory.servers(self._served.id),
            self._served.blocks,
            one_way=self._one_way,
            avoid=avoid | besides,
            fingerprint=self._served.fingerprint,
            part=part,
            cache_tokens=max_tokens,
        )
        return _each_once(hops)

    def can_replace(self, part: Span, peer: str, max_tokens: int) -> bool:
        """True if other servers than `peer` hold the blocks of `part`."""
        before = self._avoided.get(peer, -math.inf)
        self._avoided[peer] = math.inf
        try:
            self.choose(part, max_tokens)
        except BlocksMissing:
            self._avoided[peer] = before
            return False
        self._avoided[peer] = before
        return True

    def avoid(self, peer: str, *, forever: bool = False, gone: bool = False) -> None:
        """Do not choose `peer` for a while; `gone` also takes it off the map until it is back."""
        self._avoided[peer] = math.inf if forever else time.monotonic() + AVOID_SECONDS
        if gone:
            self._directory.mark_lost(peer)

    def name_of(self, peer: str) -> str:
        """What the owner calls the server, or the end of its id."""
        return next((s.name for s in self._known() if s.peer == peer and s.name), peer[-6:])

    async def wait_for_change(self) -> None:
        """Wait until the map changes, at most CHANGE_SECONDS."""
        await self._directory.changed(CHANGE_SECONDS)

    def _known(self) -> tuple[ServerInfo, ...]:
        return self._directory.servers(self._served.id)

    def _one_way(self, peer: str) -> float:
        """Seconds one way to a peer, estimated from the round trips measured here."""
        seconds = self._directory.round_trip(peer)
        return UNKNOWN_LINK_SECONDS if seconds is None else seconds / 2


def _each_once(hops: tuple[Hop, ...]) -> tuple[Hop, ...]:
    """The hops with no server twice: its span is contiguous, so it also holds what lies between."""
    joined: list[Hop] = []
    for hop in hops:
        first = next((i for i, before in enumerate(joined) if before.peer == hop.peer), len(joined))
        start = joined[first].blocks.start if first < len(joined) else hop.blocks.start
        joined[first:] = [Hop(hop.peer, Span(start, hop.blocks.end))]
    return tuple(joined)
