"""What is said of answers that should be the same."""

from __future__ import annotations

from tests.benchmarks.baseline import Answered, same_ids


def answered(*ids: int) -> Answered:
    return Answered(ids=ids, first_seconds=1.0, prompt_seconds=1.0, rate=1.0)


def test_same_answers():
    assert same_ids([answered(1, 2)], [answered(1, 2)]) == "the same token ids"


def test_the_first_difference_is_named():
    found = same_ids([answered(1, 2), answered(1, 2, 9, 4)], [answered(1, 2), answered(1, 2, 3, 4)])
    assert found == "OTHER token ids after the first 2 of 4"
