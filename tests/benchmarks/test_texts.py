"""Made-up prompts have the length that was asked for, and differ early."""

from __future__ import annotations

from tests.benchmarks.texts import story

from superbloom.pipeline.parking import WORTH_TOKENS


class Words:
    """A tokenizer with a token a word."""

    def encode(self, text: str) -> list[int]:
        return [hash(word) for word in text.split()]


def test_length_and_sameness():
    assert len(story(Words(), 3000)) == 3000
    assert story(Words(), 500) == story(Words(), 3000)[:500]


def test_no_story_lets_a_parked_session_of_another_be_taken_up_again():
    beginnings = {tuple(story(Words(), WORTH_TOKENS, number)) for number in range(50)}
    assert len(beginnings) == 50
