"""What a step and a prompt take through a chain, and whether another chain is better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from announced import server_info
from superbloom.domain.chain_time import (
    Hop,
    entry_seconds,
    pays_to_move,
    prompt_seconds,
    step_seconds,
    ways_on,
)
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import load_differs

SERVER = server_info("a", step_seconds=0.04)
OTHER = replace(SERVER, peer="b", span=Span(4, 8))
SERVERS = {"a": SERVER, "b": OTHER}
HOPS = (Hop("a", Span(0, 4)), Hop("b", Span(4, 6)))


def test_a_server_with_more_to_do_is_slower_but_never_without_end() -> None:
    waits = [entry_seconds(replace(SERVER, sessions=n)) for n in (0, 1, 2, 10, 10**6)]
    assert waits[0] == 0
    assert waits == sorted(set(waits))
    assert waits[-1] <= SERVER.step_seconds / 2


def test_a_measured_wait_counts_where_it_is_longer() -> None:
    assert entry_seconds(replace(SERVER, sessions=1, waiting_seconds=0.5)) == 0.5
    assert entry_seconds(replace(SERVER, sessions=1, waiting_seconds=1e-4)) == 0.01


def test_links_lead_to_the_next_and_from_the_last_to_the_first() -> None:
    away = {"a": 1.0, "b": 3.0, "c": 10.0}.__getitem__
    span = Span(0, 1)
    assert ways_on([], away) == ()
    assert ways_on([Hop("b", span)], away) == (6,)
    assert ways_on([Hop(peer, span) for peer in "abc"], away) == (2, 6.5, 11)


def test_a_step_takes_its_links_and_the_parts_of_the_spans() -> None:
    assert step_seconds(HOPS, SERVERS, lambda _: 0.01) == pytest.approx(0.03 + 0.04 + 0.02)
    window = step_seconds(HOPS, SERVERS, lambda _: 0.01, tokens=5)
    assert window == pytest.approx(0.03 + 0.08 + 0.04)
    assert step_seconds(HOPS, {"a": SERVER}, lambda _: 0.01) is None


def test_the_slowest_hop_decides_how_long_a_prompt_takes() -> None:
    assert prompt_seconds(HOPS, SERVERS, 100) == pytest.approx(1)
    unknown = replace(OTHER, prefill_tokens_per_second=0.0)
    assert prompt_seconds(HOPS, {"a": SERVER, "b": unknown}, 100) == pytest.approx(2)


@pytest.mark.parametrize(
    ("present", "other", "reading", "pays"),
    [
        (0.1, 0.05, 1.0, True),
        (0.1, 0.08, 0.0, False),  # not markedly quicker
        (0.1, 0.05, 10.1, False),  # the whole prompt again takes longer than is won
        (float("inf"), 0.05, 0.0, False),
        (0.0, 0.0, 0.0, False),
    ],
)
def test_moving_must_pay(present: float, other: float, reading: float, pays: bool) -> None:
    assert pays_to_move(present, other, reading=reading) is pays


def test_a_load_differs_when_routes_should_know() -> None:
    assert load_differs(SERVER, replace(SERVER, sessions=1))
    assert load_differs(replace(SERVER, sessions=1), SERVER)
    assert not load_differs(replace(SERVER, sessions=3), replace(SERVER, sessions=4))
    assert load_differs(SERVER, replace(SERVER, waiting_seconds=0.05))
    assert not load_differs(SERVER, replace(SERVER, waiting_seconds=0.01))
    assert not load_differs(SERVER, SERVER)
