"""The quickest chain of servers through a model's blocks: a shortest path, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from superbloom.domain.chain_time import Hop, OneWay, entry_seconds
from superbloom.domain.errors import BlocksMissing
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState

__all__ = ["Hop", "OneWay", "choose_chain"]


@dataclass(frozen=True, slots=True)
class _Path:
    """The best way to the end of one block, whose last hop is on `server`.

    Paths compare by how many blocks are on servers short of cache, by seconds, then by hops.
    """

    starved_blocks: int
    seconds: float
    hops: int
    server: ServerInfo
    start: int
    """The first block of the last hop."""
    before: _Path | None


def choose_chain(
    servers: Iterable[ServerInfo],
    blocks: int,
    *,
    one_way: OneWay,
    avoid: frozenset[str] = frozenset(),
    fingerprint: str | None = None,
    part: Span | None = None,
    cache_tokens: int = 0,
) -> tuple[Hop, ...]:
    """The hops that compute the blocks of `part` (None: all `blocks`) in the least time.

    A decode step takes the links from the client through every hop back to the client, the wait at
    each server (`entry_seconds`), and its `step_seconds` in proportion to the part of its span that
    is used. A link between two servers was measured by nobody here: it counts as the mean of their
    links to the client. So the best way to leave one block is the best for every server of the
    next. Among equals it takes the fewest hops, then the servers with less to do. Only online
    servers
    with the same number of blocks and `fingerprint` (None: any) and not in `avoid` are used; those
    with fewer than `cache_tokens` free only for blocks that nobody else holds. A server may occur
    twice when another is quicker for what lies between. Raises BlocksMissing.
    """
    part = part or Span(0, blocks)
    usable = _usable(servers, blocks, avoid, fingerprint)
    away = {server.peer: one_way(server.peer) for server in usable}
    ends: dict[str, _Path] = {}
    for block in part:
        holders = [server for server in usable if server.span.start <= block < server.span.end]
        if not holders:
            raise BlocksMissing(_missing_words(usable, part))
        if block == part.start:
            ends = {s.peer: _begin(s, block, away[s.peer], cache_tokens) for s in holders}
            continue
        leaving = min(ends.values(), key=lambda path: _with_way(path, away[path.server.peer] / 2))
        ends = {
            s.peer: _extend(
                ends.get(s.peer), leaving, s, block, away=away, cache_tokens=cache_tokens
            )
            for s in holders
        }
    best = min(ends.values(), key=lambda path: _with_way(path, away[path.server.peer]))
    return _hops(best, part.end)


def _usable(
    servers: Iterable[ServerInfo], blocks: int, avoid: frozenset[str], fingerprint: str | None
) -> list[ServerInfo]:
    return [
        server
        for server in sorted(servers, key=lambda server: server.peer)
        if server.state is ServerState.ONLINE
        and server.blocks == blocks
        and server.peer not in avoid
        and fingerprint in (None, server.fingerprint)
    ]


def _begin(server: ServerInfo, block: int, away: float, cache_tokens: int) -> _Path:
    seconds = away + entry_seconds(server) + _block_seconds(server)
    return _Path(_starved(server, cache_tokens), seconds, 1, server, block, None)


def _extend(
    own: _Path | None,
    leaving: _Path,
    server: ServerInfo,
    block: int,
    *,
    away: Mapping[str, float],
    cache_tokens: int,
) -> _Path:
    """The best path that goes on with `block` on `server`: where it was already, or by `leaving`.

    If `leaving` is the server's own path, it is better than any that comes from elsewhere.
    """
    starved, seconds = _starved(server, cache_tokens), _block_seconds(server)
    candidates: list[_Path] = []
    if own is not None:
        candidates.append(
            replace(own, starved_blocks=own.starved_blocks + starved, seconds=own.seconds + seconds)
        )
    if leaving is not own:
        link = (away[leaving.server.peer] + away[server.peer]) / 2
        candidates.append(
            _Path(
                leaving.starved_blocks + starved,
                leaving.seconds + link + entry_seconds(server) + seconds,
                leaving.hops + 1,
                server,
                block,
                leaving,
            )
        )
    return min(candidates, key=lambda path: (path.starved_blocks, path.seconds, path.hops))


def _with_way(path: _Path, way: float) -> tuple[int, float, int, int, str]:
    """What paths that are left behind by links of `way` seconds compare by."""
    seconds = path.seconds + way
    return (path.starved_blocks, seconds, path.hops, path.server.sessions, path.server.peer)


def _block_seconds(server: ServerInfo) -> float:
    return server.step_seconds / len(server.span)


def _starved(server: ServerInfo, cache_tokens: int) -> int:
    return int(server.free_cache_tokens < cache_tokens)


def _hops(path: _Path, end: int) -> tuple[Hop, ...]:
    hops: list[Hop] = []
    last: _Path | None = path
    while last is not None:
        hops.append(Hop(last.server.peer, Span(last.start, end)))
        end, last = last.start, last.before
    return tuple(reversed(hops))


def _missing_words(usable: list[ServerInfo], part: Span) -> str:
    """Which blocks nobody holds, as a sentence."""
    gaps: list[list[int]] = []
    for block in part:
        if any(server.span.start <= block < server.span.end for server in usable):
            continue
        if gaps and gaps[-1][1] == block:
            gaps[-1][1] = block + 1
        else:
            gaps.append([block, block + 1])
    words = ", ".join(str(Span(start, end)) for start, end in gaps)
    return f"No server that can be reached holds blocks {words}."
