"""What a server says of itself is what one session more would find, whoever is at work there."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.span import Span
from superbloom.inference.executor_figures import (
    ENOUGH_STEPS,
    MEASURED_CHUNK,
    MEASURED_SECONDS,
    MEASURED_STEPS,
    Figures,
)
from superbloom.inference.step_queue import Job, Session, Turn

WHOLE = Span(0, 10)
STEP, TOKEN = 0.1, 0.001
"""What a forward takes, and each token in it more, in seconds."""
ALONE = STEP + TOKEN


def turn(tokens: int, blocks: Span = WHOLE) -> Turn:
    cache = SimpleNamespace(blocks=blocks)
    job = Job(0, torch.zeros(1, 1).expand(tokens, 1), Future())
    return Turn(Session(cache, 100, 0), job, tokens)  # type: ignore[arg-type]


def seconds(*tokens: int, slower: float = 1.0) -> float:
    return slower * (STEP + TOKEN * sum(tokens))


def started() -> Figures:
    """As after the executor's own measurement, at 0 s."""
    figures = Figures(len(WHOLE))
    for tokens in (MEASURED_CHUNK, MEASURED_CHUNK, 1, 1, 1):
        figures.note([turn(tokens)], seconds(tokens), 0.0)
    return figures


def test_steps_of_a_session_alone_say_it_exactly() -> None:
    figures = started()
    for n in range(MEASURED_STEPS):
        figures.note([turn(1)], seconds(1, slower=2), float(n))
    assert figures.step_seconds(40.0) == pytest.approx(2 * ALONE)


def test_a_burst_of_others_changes_nothing_that_was_measured_alone() -> None:
    figures = started()
    for _ in range(1000):
        figures.note([turn(2) for _ in range(20)], seconds(40), 1.0)
    assert figures.step_seconds(2.0) == pytest.approx(ALONE)
    assert figures.tick_seconds(2.0) == pytest.approx(seconds(40))


@given(st.lists(st.integers(1, 8), min_size=1, max_size=7), st.floats(0, 1), st.floats(0.001, 0.1))
def test_where_nobody_is_alone_it_is_concluded_from_what_there_is(
    tokens: list[int], step: float, token: float
) -> None:
    """Never more than one alone would see, and not much less where steps cost little more."""
    figures = Figures(len(WHOLE))
    figures.note([turn(512)], step + 512 * token, 0.0)
    before = figures.tokens
    taken = step + token * sum(tokens)
    figures.note([turn(count) for count in tokens], taken, 1.0)
    found, true = figures.step_seconds(2.0), step + token
    assert found <= true + 1e-9
    assert found >= max(taken / sum(tokens), taken - sum(tokens) * (token + step / 512)) - 1e-9
    assert figures.tokens == before + sum(tokens)


def test_a_part_of_the_blocks_counts_for_the_whole_only_until_the_whole_is_measured() -> None:
    figures = Figures(len(WHOLE))
    figures.note([turn(MEASURED_CHUNK)], 0.2, 0.0)
    figures.note([turn(1, Span(2, 4))], 0.04, 1.0)
    assert figures.step_seconds(1.0) == pytest.approx(0.2)
    for _ in range(ENOUGH_STEPS):
        figures.note([turn(1)], 0.15, 2.0)
    assert figures.step_seconds(2.0) == pytest.approx(0.15)


def test_what_is_old_is_forgotten_and_the_first_figures_count_again() -> None:
    figures = started()
    for n in range(MEASURED_STEPS):
        figures.note([turn(1)], seconds(1, slower=9), 10.0)
        figures.note([turn(100 + n)], seconds(100 + n, slower=9), 10.0)
    assert figures.step_seconds(20.0) == pytest.approx(9 * ALONE)
    slow = figures.prefill_tokens_per_second(20.0)
    later = 11.0 + MEASURED_SECONDS
    assert figures.step_seconds(later) == pytest.approx(ALONE)
    assert figures.prefill_tokens_per_second(later) > 5 * slow
    assert figures.tick_seconds(later) == pytest.approx(ALONE)


def test_windows_count_where_no_single_tokens_come() -> None:
    figures = started()
    now = 2 * MEASURED_SECONDS
    for _ in range(5):
        figures.note([turn(8)], seconds(8, slower=3), now)
    assert figures.step_seconds(now) == pytest.approx(3 * ALONE, rel=0.1)
