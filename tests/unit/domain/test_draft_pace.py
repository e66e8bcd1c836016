"""A small model works where the text comes faster so, and is tried ever more rarely elsewhere."""

from __future__ import annotations

from superbloom.domain.draft_pace import (
    FIRST_RETRY,
    FRESH_RESULTS,
    LONG_TRIAL,
    OUTDATED,
    PLAIN_TOKENS,
    SHORT_TRIAL,
    SLOW_SECONDS,
    TRIAL,
    DraftPace,
)

RING = 0.2


def tried(seconds: float = RING) -> DraftPace:
    """A pace that knows the time of single tokens."""
    pace = DraftPace()
    for _ in range(PLAIN_TOKENS):
        assert not pace.on
        pace.note_plain(seconds)
    return pace


def results(pace: DraftPace, gain: float, count: int) -> int:
    """How many results of so many times the speed it heard until it gave up; all at most."""
    for number in range(count):
        if not pace.on:
            return number
        pace.note_guessed(2, 2 * RING / gain)
    return count


def retried_after(pace: DraftPace) -> int:
    """Tokens without the model until it is tried again."""
    for number in range(1, 10**6):
        pace.note_plain(RING)
        if pace.on:
            return number
    raise AssertionError("never")


def test_it_is_tried_once_single_tokens_are_known_to_be_slow() -> None:
    assert tried().on
    assert not tried(0.9 * SLOW_SECONDS).on


def test_it_goes_on_while_the_text_comes_faster() -> None:
    pace = tried()
    assert results(pace, 1.5, 300) == 300
    assert 1.45 < pace.gain < 1.55


def test_the_slower_the_text_the_sooner_it_ends() -> None:
    for gain, heard in ((0.5, SHORT_TRIAL), (0.8, TRIAL), (1.02, LONG_TRIAL)):
        assert results(tried(), gain, 100) == heard


def test_after_each_failure_it_waits_twice_as_long() -> None:
    pace = tried()
    waits = []
    for _ in range(3):
        results(pace, 0.5, 100)
        waits.append(retried_after(pace))
    assert waits == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]


def test_a_success_makes_it_patient_no_more() -> None:
    pace = tried()
    for _ in range(3):
        results(pace, 0.5, 100)
        retried_after(pace)
    results(pace, 2.0, 2 * LONG_TRIAL)
    results(pace, 0.3, 1000)
    assert retried_after(pace) == FIRST_RETRY


def test_a_change_for_the_worse_is_noticed() -> None:
    pace = tried()
    results(pace, 2.0, 100)
    assert results(pace, 0.5, 100) < 40


def test_its_absence_is_measured_again_after_long() -> None:
    pace = tried()
    assert results(pace, 2.0, FRESH_RESULTS + 10) == FRESH_RESULTS
    for _ in range(PLAIN_TOKENS):
        pace.note_plain(RING / 2)  # nobody else is there any more
    assert pace.on
    assert results(pace, 2.0, 100) == 1


def test_a_ring_that_became_quick_is_measured_at_once() -> None:
    pace = tried()
    results(pace, 2.0, 20)
    singles = 0
    while pace.on:
        pace.note_single(0.9 * OUTDATED * RING)
        singles += 1
    assert singles < 8


def test_what_came_of_earlier_windows_is_not_counted_while_it_rests() -> None:
    pace = DraftPace()
    pace.note_guessed(8, 0.001)
    assert pace.gain == 1.0
