"""A small model makes texts faster where it is good and the ring slow, and else costs little."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from superbloom.domain.draft_pace import DraftPace
from superbloom.domain.drafting import NoDrafts

from .simulated_ring import Ring, SmallModel

TEXT = list(range(100)), list(range(1000, 1600))
"""A prompt and an answer that repeat nothing."""

Make = Callable[[], Ring]


def home() -> Ring:
    """Four servers 25 ms apart: 245 ms a token."""
    return Ring([0.025] * 5, lambda tokens: 0.03 * (1 + 0.05 * (tokens - 1)))


def far() -> Ring:
    """Two servers 50 ms apart: 190 ms a token."""
    return Ring([0.05] * 3, lambda tokens: 0.02 * (1 + 0.05 * (tokens - 1)))


def near() -> Ring:
    """One server at hand, which computes for 200 ms."""
    return Ring([0.001, 0.001], lambda tokens: 0.2 * (1 + 0.1 * (tokens - 1)))


def near_processor() -> Ring:
    """The same, where every token costs nearly as much as the first."""
    return Ring([0.001, 0.001], lambda tokens: 0.2 * (1 + 0.7 * (tokens - 1)))


def quick() -> Ring:
    """One server at hand that takes 50 ms."""
    return Ring([0.001, 0.001], lambda tokens: 0.05 * (1 + 0.3 * (tokens - 1)))


RINGS = [home, far, near, near_processor, quick]


def speedup(ring: Make, model: SmallModel, pace: DraftPace | None = None) -> float:
    """How many times the speed of a text that nobody guesses."""
    plain = ring().seconds(NoDrafts(), *TEXT)
    return plain / ring().seconds_with(model, pace or DraftPace(), *TEXT)


@pytest.mark.parametrize(
    ("ring", "right", "least"),
    [(home, 0.7, 1.9), (home, 0.85, 2.8), (far, 0.7, 1.8), (far, 0.85, 2.5), (near, 0.8, 1.7)],
)
def test_a_good_model_makes_slow_rings_faster(ring: Make, right: float, least: float) -> None:
    assert speedup(ring, SmallModel(right, 0.035)) >= least


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("right", [0.02, 0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize(("seconds", "slows"), [(0.015, 1.0), (0.04, 1.5), (0.15, 1.0)])
def test_it_hardly_ever_makes_a_text_slower(
    ring: Make, right: float, seconds: float, slows: float
) -> None:
    assert speedup(ring, SmallModel(right, seconds, slows=slows)) >= 0.97


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("right", [0.1, 0.5, 0.8])
def test_one_too_slow_for_the_ring_is_switched_off(ring: Make, right: float) -> None:
    pace, model = DraftPace(), SmallModel(right, 0.6, slows=1.5)
    assert speedup(ring, model, pace) >= 0.95
    assert model.asked < 120
    before = model.asked
    assert speedup(ring, model, pace) >= 0.99  # the next answer knows
    assert model.asked - before < 30


@pytest.mark.parametrize("right", [0.3, 0.7])
def test_beside_an_own_server_on_the_same_cores_it_soon_rests(right: float) -> None:
    """The server takes three times as long while the model guesses."""
    pace, model = DraftPace(), SmallModel(right, 0.1, slows=3.0)
    assert speedup(near_processor, model, pace) >= 0.95
    assert model.asked < 100
    before = model.asked
    assert speedup(near_processor, model, pace) >= 0.98
    assert model.asked - before < 30


def test_a_quick_ring_is_left_alone() -> None:
    model = SmallModel(0.9, 0.01)
    assert speedup(quick, model) == 1.0
    assert not model.asked


def test_the_servers_have_no_more_to_do_than_without() -> None:
    """Where it is right most of the time: steps, the wrong ones among them."""
    plain, guessed = home(), home()
    plain.seconds(NoDrafts(), *TEXT)
    guessed.seconds_with(SmallModel(0.7, 0.035), DraftPace(), *TEXT)
    assert guessed.windows <= 1.15 * plain.windows
