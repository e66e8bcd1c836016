"""Which servers to use: the directory's view, less those that this session had trouble with."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence, Set

from superbloom.domain.chain_time import (
    Hop,
    entry_seconds,
    hop_seconds,
    pays_to_move,
    prompt_seconds,
    step_seconds,
    ways_on,
)
from superbloom.domain.errors import BlocksMissing
from superbloom.domain.generation import ChainHop
from superbloom.domain.observed import is_slow
from superbloom.domain.route import choose_chain
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo
from superbloom.pipeline.served_model import ServedModel
from superbloom.swarm.directory import Directory

AVOID_SECONDS = 10.0
"""How long a server that was lost is not asked again while others can be."""

CHANGE_SECONDS = 1.0

UNKNOWN_LINK_SECONDS = 0.05
"""One-way time assumed for a peer to which it was never measured."""


class ChainPlanner:
    """Chooses hops for one session."""

    def __init__(self, directory: Directory, served: ServedModel) -> None:
        self._directory = directory
        self._served = served
        self._avoided: dict[str, float] = {}
        self._lost: set[str] = set()
        """Those that the map shows only when they are back."""
        self._last: set[str] = set()
        """Those that come last, for good."""

    def choose(
        self, part: Span, max_tokens: int, *, besides: Set[str] = frozenset()
    ) -> tuple[Hop, ...]:
        """The quickest hops for the blocks of `part`, none on `besides`. Raises BlocksMissing.

        If nobody else is there, a server that was lost and is back on the map is chosen again at
        once, and one that comes last after AVOID_SECONDS: it may have been blamed for another's
        fault.
        """
        now = time.monotonic()
        avoid = frozenset(peer for peer, until in self._avoided.items() if until > now)
        for others in (avoid | self._last, (avoid | self._last) - self._lost):
            try:
                return self._choose(part, max_tokens, others | besides)
            except BlocksMissing:
                pass
        return self._choose(part, max_tokens, (avoid - self._lost) | besides)

    def _choose(self, part: Span, max_tokens: int, avoid: Set[str]) -> tuple[Hop, ...]:
        hops = choose_chain(
            self._expected(),
            self._served.blocks,
            one_way=self._one_way,
            avoid=frozenset(avoid),
            fingerprint=self._served.fingerprint,
            part=part,
            cache_tokens=max_tokens,
        )
        return _each_once(hops)

    def can_replace(self, part: Span, peer: str, max_tokens: int) -> bool:
        """True if other servers than `peer` hold the blocks of `part`."""
        try:
            self.choose(part, max_tokens, besides={peer})
        except BlocksMissing:
            return False
        return True

    def avoid(self, peer: str, *, last: bool = False, gone: bool = False) -> None:
        """Do not choose `peer` for a while, and `last` even after that only if it must be.

        `gone` also takes it off the map until it is back.
        """
        self._avoided[peer] = time.monotonic() + AVOID_SECONDS
        self._lost.discard(peer)
        if last:
            self._last.add(peer)
        if gone:
            self._lost.add(peer)
            self._directory.mark_lost(peer)

    def name_of(self, peer: str) -> str:
        """What the owner calls the server, or the end of its id."""
        return next((s.name for s in self._known() if s.peer == peer and s.name), peer[-6:])

    def announced_seconds(self, hops: Sequence[Hop], tokens: int = 1) -> float | None:
        """How long a step takes through the hops by what their servers say; None if one is gone."""
        servers = {server.peer: server for server in self._known()}
        return step_seconds(hops, servers, self._one_way, tokens)

    def observe(
        self, hops: Sequence[Hop], seconds: Sequence[float], tokens: int = 1
    ) -> tuple[str, ...]:
        """Steps were so long at each hop and on the way from it; the peers slower than they say.

        All sessions of this computer expect that of them from now on, for a while.
        """
        servers = {server.peer: server for server in self._known()}
        slow: list[str] = []
        for hop, taken, way in zip(hops, seconds, ways_on(hops, self._one_way), strict=True):
            server = servers.get(hop.peer)
            if server is None:
                continue
            if is_slow(taken, way + hop_seconds(server, hop.blocks, tokens)):
                pace = (taken - way - entry_seconds(server)) / len(hop.blocks)
                self._directory.observed.note(hop.peer, pace, time.monotonic())
                slow.append(hop.peer)
        return tuple(slow)

    def forgive(self, peers: Iterable[str]) -> None:
        """These servers were seen to be as quick as they say."""
        for peer in peers:
            self._directory.observed.forgive(peer)

    def is_outrun(self, hops: Sequence[Hop], held: int, max_tokens: int) -> bool:
        """True if an answer comes sooner by another chain than by `hops`.

        That one has to compute the `held` tokens first, of which the hops have the caches.
        """
        try:
            others = self.choose(Span(0, self._served.blocks), max_tokens)
        except BlocksMissing:
            return False
        servers = {server.peer: server for server in self._expected()}
        present = step_seconds(hops, servers, self._one_way)
        other = step_seconds(others, servers, self._one_way)
        if present is None or other is None:
            return False
        if any(servers[hop.peer].free_cache_tokens < max_tokens for hop in others):
            return False
        return pays_to_move(present, other, reading=prompt_seconds(others, servers, held))

    def shown(self, hops: Sequence[Hop]) -> tuple[ChainHop, ...]:
        """The hops as a user sees them; a time of 0 for a server that is not known any more."""
        servers = {server.peer: server for server in self._expected()}
        return tuple(
            ChainHop(
                name=self.name_of(hop.peer),
                blocks=hop.blocks,
                seconds=hop_seconds(servers[hop.peer], hop.blocks) if hop.peer in servers else 0.0,
            )
            for hop in hops
        )

    async def wait_for_change(self) -> None:
        """Wait until the map changes, at most CHANGE_SECONDS."""
        await self._directory.changed(CHANGE_SECONDS)

    def _known(self) -> tuple[ServerInfo, ...]:
        return self._directory.servers(self._served.id)

    def _expected(self) -> tuple[ServerInfo, ...]:
        """The known servers with the pace that is to be expected, whatever they say."""
        now = time.monotonic()
        return tuple(self._directory.observed.corrected(s, now) for s in self._known())

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
