"""Chances and times are learned from what happens, and decide how much is drafted."""

from __future__ import annotations

import pytest

from superbloom.domain.draft_policy import (
    FIRST_PROBE,
    FRESH_WINDOWS,
    Acceptance,
    DraftPolicy,
    WindowTimes,
)
from superbloom.domain.drafting import Draft

GOOD = [Draft(1, 20)] * 7
FAIR = [Draft(1, 4)] * 7
POOR = [Draft(1, 3)] * 7


def timed(*pairs: tuple[int, float]) -> DraftPolicy:
    """A policy that measured windows of so many tokens."""
    policy = DraftPolicy()
    for tokens, seconds in pairs:
        policy.note_alone(tokens, seconds)
    return policy


def test_longer_matches_are_believed_more_before_anything_is_seen() -> None:
    acceptance = Acceptance()
    chances = [acceptance.chance(Draft(1, matched)) for matched in (3, 4, 5, 6, 11, 12, 500)]
    assert chances == sorted(chances)
    assert len(set(chances)) == 4


@pytest.mark.parametrize(("right", "low", "high"), [(True, 0.85, 1.0), (False, 0.0, 0.06)])
def test_what_is_seen_counts_for_matches_of_that_length_only(
    right: bool, low: float, high: float
) -> None:
    acceptance = Acceptance()
    for _ in range(60):
        acceptance.note(Draft(1, 3), right)
    assert low <= acceptance.chance(Draft(1, 3)) <= high
    assert acceptance.chance(Draft(1, 4)) == Acceptance().chance(Draft(1, 4))


def test_a_change_of_fortune_is_noticed() -> None:
    acceptance = Acceptance()
    for right in [True] * 300 + [False] * 40:
        acceptance.note(Draft(1, 30), right)
    assert acceptance.chance(Draft(1, 30)) < 0.4


def test_times_between_those_measured_are_between_them() -> None:
    times = WindowTimes()
    times.note(1, 0.1)
    times.note(5, 0.3)
    assert times.seconds(3) == pytest.approx(0.2)
    assert times.seconds(7) == pytest.approx(0.4)


def test_times_not_measured_are_a_little_dearer_than_those_that_were() -> None:
    times = WindowTimes()
    assert times.seconds(1) == 1.0
    times.note(1, 0.1)
    assert 0.1 < times.seconds(2) < times.seconds(8) < 0.13


def test_one_odd_time_does_not_count_long() -> None:
    times = WindowTimes()
    times.note(8, 30.0)
    times.note(8, 0.1)
    assert times.seconds(8) == 0.1


def test_nothing_is_drafted_before_single_tokens_were_measured() -> None:
    assert DraftPolicy().width(GOOD) == 0
    assert timed((1, 0.1)).width(GOOD) == 7


def test_single_tokens_are_measured_again_from_time_to_time() -> None:
    policy = timed((1, 0.1), *[(8, 0.11)] * (FRESH_WINDOWS + 1))
    assert policy.width(GOOD) == 0
    policy.note_alone(1, 0.1)
    assert policy.width(GOOD) == 7


def test_the_width_follows_what_windows_cost() -> None:
    assert timed((1, 0.1), (2, 0.19), (8, 0.8)).width(POOR) == 0
    assert timed((1, 0.1), (2, 0.12), (8, 0.8)).width(POOR) == 1
    assert timed((1, 0.1), (2, 0.1), (8, 0.1)).width(FAIR) == 3  # a fourth would hardly count
    assert timed((1, 0.1), (2, 0.1), (8, 0.1)).width(GOOD) == 7


def test_where_drafts_do_not_pay_they_are_tried_ever_more_rarely() -> None:
    policy = timed((1, 0.1), (2, 0.19), (8, 0.8))
    tried = [n for n in range(1, 8 * FIRST_PROBE) if policy.probe_width(POOR)]
    assert tried == [FIRST_PROBE, 3 * FIRST_PROBE, 7 * FIRST_PROBE]
    assert policy.probe_width([]) == 0


def test_a_window_is_sent_ahead_only_on_good_odds() -> None:
    policy = timed((1, 0.1))
    assert policy.sends_ahead(GOOD[:4])
    assert not policy.sends_ahead(GOOD)
    assert not policy.sends_ahead(POOR[:1])


def test_nothing_is_sent_ahead_where_it_comes_no_sooner() -> None:
    policy = timed((1, 0.1), (8, 0.1))
    for _ in range(3):
        policy.note_ahead(8, 0.1)
    assert not policy.sends_ahead(GOOD[:1])
    for _ in range(600):  # things may have changed
        policy.note_alone(8, 0.1)
    assert policy.sends_ahead(GOOD[:1])


def test_guesses_are_believed_the_more_the_surer_the_model_and_apart_from_matches() -> None:
    acceptance = Acceptance()
    beliefs = (0.1, 0.4, 0.6, 0.8, 0.9, 0.99)
    chances = [acceptance.chance(Draft(1, belief=belief)) for belief in beliefs]
    assert chances == sorted(set(chances))
    for _ in range(60):
        acceptance.note(Draft(1, belief=0.99), right=False)
    assert acceptance.chance(Draft(1, belief=0.99)) < 0.3
    assert acceptance.chance(Draft(1, belief=0.9)) == chances[-2]
    assert acceptance.chance(Draft(1, 20)) == Acceptance().chance(Draft(1, 20))


def test_a_window_of_guesses_is_sent_ahead_on_lesser_odds() -> None:
    policy = timed((1, 0.1))
    assert policy.sends_ahead([Draft(1, belief=0.8)] * 2)
    assert not policy.sends_ahead([Draft(1, belief=0.6)] * 2)
