"""What was seen of servers makes them slower than they say, never quicker, and fades."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.observed import (
    FORGOTTEN_SECONDS,
    HALF_LIFE_SECONDS,
    MOST_PEERS,
    ObservedPace,
    is_fine,
    is_slow,
)
from superbloom.domain.span import Span

from .test_chain_time import SERVER

NUMBERS = st.floats(0, 1e4, allow_nan=False)


@given(seen=NUMBERS, said=NUMBERS, age=NUMBERS)
def test_the_truth_lies_between_what_is_said_and_what_was_seen(
    seen: float, said: float, age: float
) -> None:
    observed, server = ObservedPace(), replace(SERVER, step_seconds=said)
    observed.note("a", seen, now=5.0)
    found = observed.corrected(server, now=5.0 + age).step_seconds
    assert said <= found <= max(said, seen * len(server.span)) * (1 + 1e-9)


def test_it_fades_by_half_and_is_forgotten() -> None:
    observed = ObservedPace()
    server = replace(SERVER, step_seconds=1.0, span=Span(0, 2))
    observed.note("a", 5.0, now=0.0)
    assert observed.corrected(server, 0.0).step_seconds == 10
    assert observed.corrected(server, HALF_LIFE_SECONDS).step_seconds == 5.5
    assert observed.corrected(server, FORGOTTEN_SECONDS + 1) is server
    assert observed.corrected(server, 0.0) is server


def test_a_server_that_says_it_takes_no_time_gains_nothing() -> None:
    observed, server = ObservedPace(), replace(SERVER, step_seconds=0.0)
    observed.note("a", 0.1, now=0.0)
    assert observed.corrected(server, 0.0).step_seconds == 0.4


def test_others_are_as_they_say_and_a_server_can_be_forgiven() -> None:
    observed, other = ObservedPace(), replace(SERVER, peer="b")
    observed.note("a", 9.0, now=0.0)
    assert observed.corrected(other, 0.0) is other
    observed.forgive("a")
    observed.forgive("nobody")
    assert observed.corrected(SERVER, 0.0) is SERVER


def test_not_all_the_peers_of_the_world_are_remembered() -> None:
    observed = ObservedPace()
    for n in range(MOST_PEERS + 1):
        observed.note(str(n), 9.0, now=0.0)
    first, last = (replace(SERVER, peer=str(n)) for n in (0, MOST_PEERS))
    assert observed.corrected(first, 0.0) is first
    assert observed.corrected(last, 0.0).step_seconds == 36


def test_slow_and_fine_leave_room_between_them() -> None:
    assert is_slow(0.1, 0.01)
    assert not is_slow(0.019, 0.01)
    assert not is_slow(0.03, 0.01)  # too little to be sure
    assert not is_slow(0.19, 0.1)
    assert is_fine(0.14, 0.1)
    assert not is_fine(0.19, 0.1)
