"""What is proposed followed the longest earlier match, however the text has grown."""

from __future__ import annotations

import random
import time

from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.drafting import (
    LONGEST_MATCH,
    MOST_PLACES,
    SHORTEST_MATCH,
    Draft,
    EarlierText,
    NoDrafts,
)

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def grown(*parts: list[int]) -> EarlierText:
    drafter = EarlierText()
    for part in parts:
        drafter.extend(part)
    return drafter


def match_before(text: list[int], place: int) -> int:
    """How many tokens before `place` are as those at the end of the text."""
    most = min(place, LONGEST_MATCH)
    return next((n for n in range(most) if text[place - 1 - n] != text[-1 - n]), most)


def test_what_followed_before_is_proposed_with_growing_matches() -> None:
    drafter = grown([1, 2, 3, 4, 5, 6, 9, 1, 2, 3])
    assert drafter.propose((), 3) == [Draft(4, 3), Draft(5, 4), Draft(6, 5)]


def test_two_equal_tokens_are_no_match() -> None:
    assert grown([1, 2, 3, 9, 1, 2]).propose((), 3) == []


def test_the_longest_match_counts_and_among_equals_the_latest() -> None:
    text = [7, 1, 2, 3, 50, 8, 1, 2, 3, 60, 9, 1, 2, 3, 70, 7, 1, 2, 3]
    assert grown(text).propose((), 1) == [Draft(50, 4)]
    assert grown([*text[:-4], 6, 1, 2, 3]).propose((), 1) == [Draft(70, 3)]


def test_assumed_tokens_count_as_text_for_the_one_call() -> None:
    drafter = grown([1, 2, 3, 4, 5, 6, 7, 9, 1, 2])
    assert drafter.propose([3, 4], 2) == [Draft(5, 4), Draft(6, 5)]
    assert drafter.propose((), 2) == []


def test_a_loop_goes_on_for_ever() -> None:
    drafts = grown([1, 2] * 3).propose((), 7)
    assert [draft.token for draft in drafts] == [1, 2, 1, 2, 1, 2, 1]


def test_nothing_may_be_guessed_at_all() -> None:
    drafter = NoDrafts()
    drafter.extend([1] * 9)
    assert drafter.propose((), 7) == []


@given(st.lists(TOKENS, max_size=4), st.lists(st.integers(0, 3), max_size=9), st.integers(1, 9))
def test_proposals_are_those_of_a_plain_search(
    parts: list[list[int]], assumed: list[int], most: int
) -> None:
    certain = [token for part in parts for token in part]
    text = certain + assumed
    found = grown(*parts).propose(assumed, most)
    places = [
        place
        for place in range(min(len(certain), len(text) - 1), SHORTEST_MATCH - 1, -1)
        if match_before(text, place) >= SHORTEST_MATCH
    ][: MOST_PLACES - 1]
    if not places:
        assert len(found) in (0, most)
        return
    longest = max(match_before(text, place) for place in places)
    place = next(place for place in places if match_before(text, place) == longest)
    for _ in range(most):
        text.append(text[place + len(text) - len(certain) - len(assumed)])
    if found[0].matched == longest:
        assert [draft.token for draft in found] == text[len(certain) + len(assumed) :]
    assert found[0].matched >= longest


def test_a_long_text_costs_no_more_a_token_than_a_short_one() -> None:
    chance = random.Random(1)
    drafter = grown([chance.randrange(200) for _ in range(100_000)])
    began = time.perf_counter()
    for _ in range(1000):
        drafter.extend([chance.randrange(200)])
        drafter.propose((), 7)
    assert time.perf_counter() - began < 1.0
