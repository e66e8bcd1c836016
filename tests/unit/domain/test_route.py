"""The quickest chain, checked against trying every chain there is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from announced import server_info
from superbloom.domain.chain_time import entry_seconds, step_seconds
from superbloom.domain.errors import BlocksMissing
from superbloom.domain.route import Hop, choose_chain
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState


def server(
    peer: str,
    start: int,
    end: int,
    *,
    blocks: int = 8,
    seconds: float = 1.0,
    state: ServerState = ServerState.ONLINE,
    free: int = 1000,
    fingerprint: str = "f",
    sessions: int = 0,
    waiting: float = 0.0,
) -> ServerInfo:
    return server_info(
        peer,
        Span(start, end),
        fingerprint=fingerprint,
        blocks=blocks,
        state=state,
        step_seconds=seconds,
        prefill_tokens_per_second=1.0,
        free_cache_tokens=free,
        sessions=sessions,
        waiting_seconds=waiting,
    )


def free(peer: str) -> float:
    return 0.0


def slow(peer: str) -> float:
    return 10.0


def every_assignment(servers: list[ServerInfo], part: Span) -> Iterator[tuple[ServerInfo, ...]]:
    holders = [[s for s in servers if s.span.start <= b < s.span.end] for b in part]
    return itertools.product(*holders)


def cost(
    assignment: tuple[ServerInfo, ...], away: dict[str, float], cache_tokens: int = 0
) -> tuple[int, float]:
    starved = sum(s.free_cache_tokens < cache_tokens for s in assignment)
    total = away[assignment[0].peer] + away[assignment[-1].peer]
    total += sum(s.step_seconds / len(s.span) for s in assignment)
    changes = [(a, b) for a, b in itertools.pairwise(assignment) if a is not b]
    total += sum(entry_seconds(s) for s in [assignment[0], *(b for _, b in changes)])
    return starved, total + sum((away[a.peer] + away[b.peer]) / 2 for a, b in changes)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_it_is_the_quickest_of_all(data: st.DataObject) -> None:
    blocks = data.draw(st.integers(1, 6))
    numbers = st.floats(0, 10, allow_nan=False)
    servers = []
    for i in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, blocks - 1))
        end = data.draw(st.integers(start + 1, blocks))
        room = data.draw(st.sampled_from([10, 1000]))
        sessions = data.draw(st.integers(0, 3))
        seconds, waiting = data.draw(numbers), data.draw(numbers)
        servers.append(
            server(
                f"s{i}",
                start,
                end,
                blocks=blocks,
                seconds=seconds,
                free=room,
                sessions=sessions,
                waiting=waiting,
            )
        )
    away = {s.peer: data.draw(numbers) for s in servers}
    start = data.draw(st.integers(0, blocks - 1))
    part = Span(start, data.draw(st.integers(start + 1, blocks)))
    costs = [cost(assignment, away, 100) for assignment in every_assignment(servers, part)]

    def choose() -> tuple[Hop, ...]:
        return choose_chain(
            servers, blocks, one_way=lambda peer: away[peer], part=part, cache_tokens=100
        )

    if not costs:
        with pytest.raises(BlocksMissing):
            choose()
        return
    hops = choose()
    assert hops == choose()
    assert [hops[0].blocks.start, hops[-1].blocks.end] == [part.start, part.end]
    by_peer = {s.peer: s for s in servers}
    assert all(by_peer[hop.peer].span.covers(hop.blocks) for hop in hops)
    chosen = tuple(by_peer[hop.peer] for hop in hops for _ in hop.blocks)
    assert [b for hop in hops for b in hop.blocks] == list(part)
    assert cost(chosen, away, 100) == pytest.approx(min(costs))
    expected = step_seconds(hops, by_peer, lambda peer: away[peer])
    assert expected == pytest.approx(cost(chosen, away)[1])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_among_equals_it_takes_the_fewest_servers(data: st.DataObject) -> None:
    blocks = data.draw(st.integers(1, 5))
    servers = []
    for i in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, blocks - 1))
        end = data.draw(st.integers(start + 1, blocks))
        seconds = float(end - start)  # every block takes a second on each server
        servers.append(server(f"s{i}", start, end, blocks=blocks, seconds=seconds))
    whole = [server("last", 0, blocks, blocks=blocks, seconds=float(blocks)), *servers]
    assert len(choose_chain(whole, blocks, one_way=free)) == 1


def test_of_equal_servers_it_takes_the_one_with_less_to_do() -> None:
    busy, idle = server("a", 0, 8, sessions=1), server("b", 0, 8)
    assert choose_chain([busy, idle], 8, one_way=free) == (Hop("b", Span(0, 8)),)
    free_ones = [server("a", 0, 8, seconds=0.0, sessions=1), server("b", 0, 8, seconds=0.0)]
    assert choose_chain(free_ones, 8, one_way=free) == (Hop("b", Span(0, 8)),)


def test_many_clients_fill_equal_servers_evenly() -> None:
    counts = {"a": 0, "b": 0, "c": 0}
    for _ in range(30):
        servers = [server(peer, 0, 8, sessions=count) for peer, count in counts.items()]
        (hop,) = choose_chain(servers, 8, one_way=free)
        counts[hop.peer] += 1
    assert set(counts.values()) == {10}


def test_a_server_whose_steps_wait_long_is_left_for_a_slower_one() -> None:
    queued = server("a", 0, 8, seconds=0.1, sessions=9, waiting=3.0)
    hops = choose_chain([queued, server("b", 0, 8, seconds=2.0)], 8, one_way=free)
    assert hops == (Hop("b", Span(0, 8)),)


def test_a_large_swarm_takes_no_time() -> None:
    servers = [
        server(f"s{i}", i % 40, 80 - i % 7, blocks=80, seconds=1 + i % 13 / 10) for i in range(200)
    ]
    asked: list[str] = []

    def one_way(peer: str) -> float:
        asked.append(peer)
        return int(peer[1:]) % 17 / 100

    begun = time.process_time()
    hops = choose_chain(servers, 80, one_way=one_way)
    assert time.process_time() - begun < 1.0  # 3 s when each pair of servers was looked at
    assert hops[-1].blocks.end == 80
    assert len(asked) == len(servers)


def test_one_server_is_used_as_a_whole() -> None:
    assert choose_chain([server("a", 0, 8)], 8, one_way=free) == (Hop("a", Span(0, 8)),)


def test_links_that_cost_keep_the_chain_short() -> None:
    fast = [server(f"f{i}", i, i + 1, seconds=0.01) for i in range(8)]
    hops = choose_chain([*fast, server("whole", 0, 8, seconds=5)], 8, one_way=slow)
    assert hops == (Hop("whole", Span(0, 8)),)


def test_a_server_may_be_used_for_a_part_of_its_span() -> None:
    hops = choose_chain([server("a", 0, 6), server("b", 4, 8)], 8, one_way=slow)
    assert [hop.peer for hop in hops] == ["a", "b"]
    assert hops[0].blocks.end == hops[1].blocks.start


@pytest.mark.parametrize(
    "useless",
    [
        server("b", 4, 8, state=ServerState.JOINING),
        server("b", 4, 8, state=ServerState.OFFLINE),
        server("b", 4, 8, state=ServerState.DRAINING),
        server("b", 4, 8, fingerprint="other"),
        server("b", 4, 8, blocks=9),
        server("avoided", 4, 8),
    ],
)
def test_servers_that_cannot_be_used(useless: ServerInfo) -> None:
    with pytest.raises(BlocksMissing, match="4-7"):
        choose_chain(
            [server("a", 0, 4), useless],
            8,
            one_way=free,
            fingerprint="f",
            avoid=frozenset({"avoided"}),
        )


def test_the_missing_blocks_are_named() -> None:
    with pytest.raises(BlocksMissing, match="blocks 0-1, 4-4, 7-7"):
        choose_chain([server("a", 2, 4), server("b", 5, 7)], 8, one_way=free)


def test_servers_without_room_only_where_nobody_else_is() -> None:
    full = server("full", 0, 8, seconds=0.01, free=10)
    roomy = server("roomy", 0, 4, seconds=9)
    hops = choose_chain([full, roomy], 8, one_way=slow, cache_tokens=100)
    assert hops == (Hop("roomy", Span(0, 4)), Hop("full", Span(4, 8)))


def test_a_replacement_for_a_part() -> None:
    servers = [server("a", 0, 8), server("b", 2, 5, seconds=0.1)]
    hops = choose_chain(servers, 8, one_way=free, part=Span(2, 5), avoid=frozenset({"a"}))
    assert hops == (Hop("b", Span(2, 5)),)
