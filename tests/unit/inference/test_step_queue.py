"""A tick waits for those about to be back, and nobody can make it wait for longer than that."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.span import Span
from superbloom.inference.executor import GATHERING
from superbloom.inference.step_queue import Job, Session, add_job, gathering_seconds

STEP = 1.0
PATIENCE = GATHERING * STEP
WHOLE, PART = Span(0, 4), Span(1, 2)


def session(blocks: Span = WHOLE) -> Session:
    return Session(SimpleNamespace(blocks=blocks), 100, 0)  # type: ignore[arg-type]


def come(who: Session, now: float) -> None:
    """A step of its own arrives."""
    add_job(who, Job(0, torch.zeros(1, 1), Future()), now)


def finish(who: Session, now: float) -> None:
    """Its first step is computed, as the executor notes it."""
    who.jobs.popleft()
    who.finished_at = now


def regular(away: float, *, now: float, blocks: Span = WHOLE) -> Session:
    """One that ended a step at `now` and comes back `away` later, as always."""
    who = session(blocks)
    who.finished_at, who.away = now, away
    return who


def test_one_who_is_about_to_be_back_is_waited_for() -> None:
    here, coming = session(), regular(0.1, now=10.0)
    come(here, 10.05)
    pause = gathering_seconds([here, coming], PATIENCE, 10.05)
    assert pause == pytest.approx(PATIENCE)
    come(coming, 10.1)
    assert gathering_seconds([here, coming], PATIENCE, 10.1) == 0


@pytest.mark.parametrize("away", [0.4, 5.0])
def test_one_who_comes_later_than_that_is_not_waited_for(away: float) -> None:
    here = session()
    come(here, 10.05)
    assert gathering_seconds([here, regular(away, now=10.0)], PATIENCE, 10.05) == 0


def test_nobody_is_waited_for_by_nobody() -> None:
    assert gathering_seconds([regular(0.1, now=10.0)], PATIENCE, 10.0) == 0
    assert gathering_seconds([], PATIENCE, 10.0) == 0


def test_one_on_other_blocks_is_not_waited_for() -> None:
    here, elsewhere = session(), regular(0.1, now=10.0, blocks=PART)
    come(here, 10.05)
    assert gathering_seconds([here, elsewhere], PATIENCE, 10.05) == 0


def test_one_with_steps_in_a_row_waits_for_the_others_too() -> None:
    """Otherwise who has none in reserve misses every tick by a little, and gets every other one."""
    in_a_row, coming = session(), regular(0.1, now=10.0)
    come(in_a_row, 9.0)
    come(in_a_row, 9.0)
    finish(in_a_row, 10.0)
    assert 0 < gathering_seconds([in_a_row, coming], PATIENCE, 10.0) <= PATIENCE
    assert gathering_seconds([in_a_row, coming], PATIENCE, 10.0 + PATIENCE) == 0


moments = st.lists(st.floats(0, 2 * STEP), min_size=1, max_size=60)


@given(st.lists(moments, min_size=1, max_size=4), st.floats(0, 0.5 * STEP))
def test_no_rhythm_of_others_costs_a_step_more_than_a_quarter_of_one(
    rhythms: list[list[float]], away: float
) -> None:
    """A good session and others that come and go as they please, in a time made up.

    Whenever the device does nothing though a step is there, that lasts a quarter of a step at most.
    """
    good, others = session(), [session() for _ in rhythms]
    everybody = [good, *others]
    due = {0: 0.0} | {n: rhythm[0] for n, rhythm in enumerate(rhythms, 1)}
    turns = [0] * len(everybody)
    now = 0.0
    for _ in range(40):
        now = _arrivals(everybody, due, max(now, min(due.values(), default=now)))
        idle_since = now
        while pause := gathering_seconds(everybody, PATIENCE, now):
            coming = min(due.values(), default=now + pause)
            now = _arrivals(everybody, due, min(now + pause, max(now, coming)))
        assert now - idle_since <= PATIENCE + 1e-9
        taken = [n for n, who in enumerate(everybody) if who.jobs]
        now += STEP
        for n in taken:
            finish(everybody[n], now)
            turns[n] += 1
            pauses = rhythms[n - 1] if n else [away]
            due[n] = now + pauses[turns[n] % len(pauses)]
    bound = 40 * (1 + GATHERING) * STEP + 40 * 2 * STEP
    assert now <= bound


def _arrivals(everybody: list[Session], due: dict[int, float], now: float) -> float:
    """Let come who is due by `now`."""
    for n in [n for n, at in due.items() if at <= now]:
        come(everybody[n], due.pop(n))
    return now
