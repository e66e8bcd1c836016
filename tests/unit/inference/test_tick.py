"""A tick waits for those about to be back, and nobody can make it wait for longer than that."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.span import Span
from superbloom.inference.step_queue import Job, Session, Tick, add_job, cancel_jobs
from superbloom.inference.tick import GATHERING, LATENESS, gathering_seconds

STEP = 1.0
PATIENCE = GATHERING * STEP
LATE = LATENESS * PATIENCE
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
    pause = gathering_seconds([here, coming], STEP, 10.05)
    assert pause == pytest.approx(0.05 + LATE)
    come(coming, 10.1)
    assert gathering_seconds([here, coming], STEP, 10.1) == 0


def test_one_whose_steps_were_dropped_is_not_waited_for() -> None:
    here, resting = session(), regular(0.1, now=10.0)
    come(here, 10.05)
    cancel_jobs(resting)
    assert gathering_seconds([here, resting], STEP, 10.05) == 0
    come(resting, 500.0)
    assert resting.away == 0.1  # a rest says nothing of its rhythm


def test_those_computed_together_are_waited_for_whatever_their_rhythm_was() -> None:
    tick = Tick()
    pair = [regular(away, now=10.0) for away in (3.0, 0.5)]
    for who in pair:
        who.tick = tick
    first, second = pair
    assert gathering_seconds(pair, STEP, 11.0) == 0
    come(first, 11.0)
    assert gathering_seconds(pair, STEP, 11.0) == pytest.approx(LATE)
    come(second, 11.0 + 2 * PATIENCE)  # too late: that is learnt
    for who in pair:
        finish(who, 13.0)
        who.tick = tick = Tick()
    for _ in range(6):
        for who in pair:
            who.tick = tick
        come(first, 14.0)
        come(second, 14.0 + 4 * PATIENCE)
        for who in pair:
            finish(who, 15.0)
        tick = Tick()
    for who in pair:
        who.tick = tick
    come(first, 16.0)
    assert gathering_seconds(pair, STEP, 16.0) == 0


def test_many_do_not_wait_for_one_who_gains_less() -> None:
    here, coming = [session() for _ in range(5)], regular(0.3, now=10.0)
    for who in here:
        come(who, 10.0)
    assert gathering_seconds([*here, coming], STEP, 10.0) == 0
    assert gathering_seconds([here[0], coming], STEP, 10.0) > 0


@pytest.mark.parametrize("away", [0.7, 5.0])
def test_one_who_comes_later_than_that_is_not_waited_for(away: float) -> None:
    here = session()
    come(here, 10.05)
    assert gathering_seconds([here, regular(away, now=10.0)], STEP, 10.05) == 0


def test_nobody_is_waited_for_by_nobody() -> None:
    assert gathering_seconds([regular(0.1, now=10.0)], STEP, 10.0) == 0
    assert gathering_seconds([], STEP, 10.0) == 0


def test_one_on_other_blocks_is_not_waited_for() -> None:
    here, elsewhere = session(), regular(0.1, now=10.0, blocks=PART)
    come(here, 10.05)
    assert gathering_seconds([here, elsewhere], STEP, 10.05) == 0


def test_one_with_steps_in_a_row_waits_for_the_others_too() -> None:
    """Otherwise who has none in reserve misses every tick by a little, and gets every other one."""
    in_a_row, coming = session(), regular(0.1, now=10.0)
    come(in_a_row, 9.0)
    come(in_a_row, 9.0)
    finish(in_a_row, 10.0)
    assert 0 < gathering_seconds([in_a_row, coming], STEP, 10.0) <= PATIENCE
    assert gathering_seconds([in_a_row, coming], STEP, 10.0 + PATIENCE) == 0


moments = st.lists(st.floats(0, 2 * STEP), min_size=1, max_size=60)


@given(st.lists(moments, min_size=1, max_size=4), st.floats(0, 0.5 * STEP))
def test_no_rhythm_of_others_costs_a_step_more_than_half_of_one(
    rhythms: list[list[float]], away: float
) -> None:
    """A good session and others that come and go as they please, in a time made up.

    Whenever the device does nothing though a step is there, that lasts half of a step at most.
    """
    good, others = session(), [session() for _ in rhythms]
    everybody = [good, *others]
    due = {0: 0.0} | {n: rhythm[0] for n, rhythm in enumerate(rhythms, 1)}
    turns = [0] * len(everybody)
    now = 0.0
    for _ in range(40):
        now = _arrivals(everybody, due, max(now, min(due.values(), default=now)))
        idle_since = now
        while pause := gathering_seconds(everybody, STEP, now):
            coming = min(due.values(), default=now + pause)
            now = _arrivals(everybody, due, min(now + pause, max(now, coming)))
        assert now - idle_since <= PATIENCE + 1e-9
        tick = Tick()
        taken = [n for n, who in enumerate(everybody) if who.jobs]
        now += STEP
        for n in taken:
            finish(everybody[n], now)
            everybody[n].tick = tick
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
