"""Which blocks a new server should take: those that the swarm needs most."""

from __future__ import annotations

from collections.abc import Iterable

from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState

STALE_SECONDS = 60.0
"""An announcement older than this says nothing about who will be there."""


def choose_span(
    servers: Iterable[ServerInfo], blocks: int, capacity: int, *, own_peer: str, now: float
) -> Span:
    """The `capacity` contiguous blocks (at most all) that the fewest others hold.

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
    width = min(capacity, blocks)
    start = min(range(blocks - width + 1), key=lambda i: (sorted(counts[i : i + width]), i))
    return Span(start, start + width)


def _will_be_there(server: ServerInfo, now: float) -> bool:
    staying = server.state in (ServerState.ONLINE, ServerState.JOINING)
    return staying and now - server.announced_at < STALE_SECONDS
