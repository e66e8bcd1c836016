"""Which blocks a new server should take: those that the swarm needs most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState

STALE_SECONDS = 60.0
"""An announcement older than this says nothing about who will be there."""


def choose_span(
    servers: Iterable[ServerInfo],
    blocks: int,
    capacity: int,
    *,
    own_peer: str,
    now: float,
    here: Sequence[Span] = (),
) -> Span:
    """The `capacity` contiguous blocks (at most all) that the fewest others hold.

    With `here` only blocks of one of these spans, and fewer than `capacity` where those are short.
    Windows compare by their coverage, least covered block first, so one with more uncovered blocks
    always wins; among equals the first. Servers that are still joining count, so that two that
    start together do not take the same blocks. `now` is Unix time. Needs `capacity` of 1 or more.
    """
    if capacity < 1 or blocks < 1:
        raise ValueError(f"cannot place {capacity} of {blocks} blocks")
    counts = [0] * blocks
    for server in servers:
        if server.peer != own_peer and _will_be_there(server, now) and server.blocks == blocks:
            for block in server.span:
                if block < blocks:
                    counts[block] += 1
    windows = [
        Span(start, start + min(capacity, len(run)))
        for run in here or (Span(0, blocks),)
        for start in range(run.start, run.end - min(capacity, len(run)) + 1)
    ]

    def coverage(window: Span) -> list[float]:
        missing = [math.inf] * (capacity - len(window))  # a block not taken is of no use
        return sorted(counts[window.start : window.end]) + missing

    return min(windows, key=lambda window: (coverage(window), window.start))


def _will_be_there(server: ServerInfo, now: float) -> bool:
    staying = server.state in (ServerState.ONLINE, ServerState.JOINING)
    return staying and now - server.announced_at < STALE_SECONDS
