"""The history gives back what was sent, and knows when it cannot."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.pipeline.history import History, HistoryRoom

SMALLEST = 256 * 2 * 4
"""What a short history of this width takes, in bytes."""


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 400)), max_size=12))
def test_it_holds_what_a_list_would_hold(writes: list[tuple[int, int]]) -> None:
    history, model = History(), torch.zeros(0, 2)
    for number, (back, length) in enumerate(writes):
        position = max(0, model.shape[0] - back)
        rows = torch.full((length, 2), float(number))
        history.write(position, rows)
        model = torch.cat([model[:position], rows])
    assert history.tokens == model.shape[0]
    if history.tokens:
        assert torch.equal(history.read(0, history.tokens), model)


def test_a_gap_means_that_the_history_is_gone() -> None:
    history = History()
    history.write(0, torch.ones(3, 2))
    history.write(5, torch.ones(1, 2))
    assert history.gone
    assert not history.holds(1)


def test_it_forgets_rather_than_outgrow_its_limit() -> None:
    history = History(limit_bytes=100 * 2 * 4)
    history.write(0, torch.ones(100, 2))
    assert history.holds(100)
    history.write(100, torch.ones(1, 2))
    assert history.gone


def test_what_is_read_does_not_change_later() -> None:
    history = History()
    history.write(0, torch.ones(3, 2))
    rows = history.read(0, 3)
    history.write(1, torch.zeros(1, 2))
    assert torch.equal(rows, torch.ones(3, 2))


def written(room: HistoryRoom, owner: str, tokens: int = 10) -> History:
    """One that keeps SMALLEST bytes, or more for more than 256 tokens."""
    history = History(room, owner)
    history.write(0, torch.ones(tokens, 2))
    return history


def test_all_histories_share_a_room_and_the_one_that_rested_longest_goes_first() -> None:
    room = HistoryRoom(limit_bytes=3 * SMALLEST)
    histories = [written(room, f"client {n}") for n in range(3)]
    histories[0].write(10, torch.ones(1, 2))  # it is the oldest, but at work
    histories.append(written(room, "client 3"))
    assert [history.holds(10) for history in histories] == [True, False, True, True]
    assert room.nbytes == 3 * SMALLEST
    histories[2].forget()
    assert room.nbytes == 2 * SMALLEST
    assert not written(room, "client 4", 4000).holds(1)
    assert histories[0].holds(11)  # what never fits costs nobody else anything


def test_many_sessions_of_a_client_cost_the_others_nothing() -> None:
    room = HistoryRoom(limit_bytes=20 * SMALLEST)
    modest = [written(room, f"modest {n}") for n in range(15)]
    greedy = [written(room, "greedy") for _ in range(100)]
    assert all(history.holds(10) for history in modest)
    assert [history.holds(10) for history in greedy] == [False] * 95 + [True] * 5


def test_who_came_late_gets_room_from_the_client_that_has_most() -> None:
    room = HistoryRoom(limit_bytes=20 * SMALLEST)
    resting = written(room, "modest")
    greedy = [written(room, "greedy") for _ in range(19)]
    late = written(room, "late")
    assert resting.holds(10)
    assert late.holds(10)
    assert [history.holds(10) for history in greedy] == [False] + [True] * 18


def test_a_client_that_is_alone_may_keep_everything() -> None:
    room = HistoryRoom(limit_bytes=20 * SMALLEST)
    histories = [written(room, "one") for _ in range(20)]
    assert all(history.holds(10) for history in histories)
    assert room.nbytes == 20 * SMALLEST


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 700)), max_size=25),
    st.integers(300, 2000),
)
def test_the_room_is_never_overdrawn(writes: list[tuple[int, int]], tokens: int) -> None:
    room = HistoryRoom(limit_bytes=tokens * 2 * 4)
    histories = [History(room, "ab"[n % 2]) for n in range(5)]
    for who, length in writes:
        history = histories[who]
        history.write(history.tokens, torch.ones(length, 2))
        held = sum(h._rows.nbytes for h in histories if h._rows is not None)
        assert held == room.nbytes <= tokens * 2 * 4
