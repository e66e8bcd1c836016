"""The history gives back what was sent, and knows when it cannot."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.pipeline.history import History, HistoryRoom


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


def test_all_histories_share_a_room_and_the_oldest_goes_first() -> None:
    room = HistoryRoom(limit_bytes=3 * 256 * 2 * 4)
    histories = [History(room) for _ in range(4)]
    for history in histories[:3]:
        history.write(0, torch.ones(10, 2))
    histories[0].write(10, torch.ones(10, 2))  # it is the oldest, however often it grows
    histories[3].write(0, torch.ones(10, 2))
    assert [history.holds(10) for history in histories] == [False, True, True, True]
    assert room.nbytes == 3 * 256 * 2 * 4
    histories[1].forget()
    assert room.nbytes == 2 * 256 * 2 * 4
    History(room).write(0, torch.ones(4000, 2))
    assert histories[2].holds(10)  # what never fits costs nobody else anything


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 700)), max_size=25),
    st.integers(300, 2000),
)
def test_the_room_is_never_overdrawn(writes: list[tuple[int, int]], tokens: int) -> None:
    room = HistoryRoom(limit_bytes=tokens * 2 * 4)
    histories = [History(room) for _ in range(5)]
    for who, length in writes:
        history = histories[who]
        history.write(history.tokens, torch.ones(length, 2))
        held = sum(h._rows.nbytes for h in histories if h._rows is not None)
        assert held == room.nbytes <= tokens * 2 * 4
