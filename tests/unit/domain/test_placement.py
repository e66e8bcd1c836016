"""Where a newcomer is needed most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from announced import server_info
from superbloom.domain.placement import STALE_SECONDS, choose_span
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState, coverage

NOW = 1000.0


def server(
    peer: str,
    start: int,
    end: int,
    *,
    blocks: int = 8,
    state: ServerState = ServerState.ONLINE,
    at: float = NOW,
) -> ServerInfo:
    return server_info(peer, Span(start, end), blocks=blocks, state=state, announced_at=at)


@st.composite
def swarms(draw: st.DrawFn) -> tuple[list[ServerInfo], int]:
    blocks = draw(st.integers(1, 12))
    servers = []
    for i in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, blocks - 1))
        end = draw(st.integers(start + 1, blocks))
        servers.append(server(f"s{i}", start, end, blocks=blocks))
    return servers, blocks


@given(swarms(), st.integers(1, 20))
def test_it_fits_and_covers_as_much_as_any_other(
    swarm: tuple[list[ServerInfo], int], capacity: int
) -> None:
    servers, blocks = swarm
    span = choose_span(servers, blocks, capacity, own_peer="me", now=NOW)
    assert len(span) == min(capacity, blocks)
    assert span.end <= blocks
    counts = coverage(servers, blocks)

    def uncovered(start: int) -> int:
        return counts[start : start + len(span)].count(0)

    assert uncovered(span.start) == max(map(uncovered, range(blocks - len(span) + 1)))
    assert span == choose_span(reversed(servers), blocks, capacity, own_peer="me", now=NOW)


def test_an_empty_swarm_is_begun_at_the_first_block() -> None:
    assert choose_span([], 8, 3, own_peer="me", now=NOW) == Span(0, 3)


def test_the_least_covered_blocks() -> None:
    servers = [server("a", 0, 8), server("b", 0, 3), server("c", 5, 8)]
    assert choose_span(servers, 8, 2, own_peer="me", now=NOW) == Span(3, 5)


def test_who_is_joining_counts_and_who_leaves_does_not() -> None:
    joining = server("a", 0, 4, state=ServerState.JOINING)
    draining = server("b", 4, 8, state=ServerState.DRAINING)
    gone = server("c", 4, 8, at=NOW - STALE_SECONDS - 1)
    own = server("me", 4, 8)
    other_model = server("d", 4, 8, blocks=9)
    servers = [joining, draining, gone, own, other_model]
    assert choose_span(servers, 8, 4, own_peer="me", now=NOW) == Span(4, 8)


@pytest.mark.parametrize(("blocks", "capacity"), [(8, 0), (0, 8)])
def test_nothing_cannot_be_placed(blocks: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="place"):
        choose_span([], blocks, capacity, own_peer="me", now=NOW)


def test_only_what_is_here_is_chosen() -> None:
    servers = [server("a", 0, 6)]
    here = (Span(0, 2), Span(3, 5), Span(7, 8))
    assert choose_span(servers, 8, 2, own_peer="me", now=NOW, here=here) == Span(7, 8)
    assert choose_span([], 8, 2, own_peer="me", now=NOW, here=here) == Span(0, 2)
    assert choose_span([], 8, 1, own_peer="me", now=NOW, here=here[1:]) == Span(3, 4)


@given(swarms(), st.integers(1, 20))
def test_the_whole_model_here_is_no_limit(
    swarm: tuple[list[ServerInfo], int], capacity: int
) -> None:
    servers, blocks = swarm
    whole = (Span(0, blocks),)
    free = choose_span(servers, blocks, capacity, own_peer="me", now=NOW)
    assert choose_span(servers, blocks, capacity, own_peer="me", now=NOW, here=whole) == free
