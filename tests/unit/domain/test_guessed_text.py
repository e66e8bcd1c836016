"""Guesses follow the text as it grows, and no guess outlives the text that it was made for."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.draft_pace import PLAIN_TOKENS, DraftPace
from superbloom.domain.drafting import Draft, EarlierText, NoDrafts
from superbloom.domain.guessed_text import MOST_GUESSES, GuessedText, Question


def on() -> DraftPace:
    pace = DraftPace()
    for _ in range(PLAIN_TOKENS):
        pace.note_plain(1.0)
    return pace


def text(*certain: int, lookup: bool = False, chance: float = 1.0) -> GuessedText:
    made = GuessedText(EarlierText() if lookup else NoDrafts(), on(), lambda draft: chance)
    made.extend(certain)
    return made


def tell(guessed: GuessedText, *tokens: int) -> None:
    for token in tokens:
        question = guessed.question()
        assert question is not None
        guessed.answer(question, token, 0.9)


def tokens(drafts: Sequence[Draft]) -> list[int]:
    return [draft.token for draft in drafts]


def test_each_guess_rests_on_those_before() -> None:
    guessed = text(1, 2)
    assert guessed.question() == Question(2, ())
    tell(guessed, 3, 4)
    assert guessed.question() == Question(2, (3, 4))
    assert guessed.propose((), 7) == [Draft(3, belief=0.9), Draft(4, belief=0.9)]
    assert tokens(guessed.propose((3,), 7)) == [4]


def test_right_guesses_leave_those_behind_them() -> None:
    guessed = text(1)
    tell(guessed, 3, 4, 5)
    guessed.extend([3, 4])
    assert tokens(guessed.propose((), 7)) == [5]


def test_a_wrong_guess_takes_those_behind_it_along() -> None:
    guessed = text(1)
    tell(guessed, 3, 4, 5)
    guessed.extend([3, 9])
    assert guessed.propose((), 7) == []
    assert guessed.question() == Question(2, ())


def test_an_answer_to_what_is_no_longer_asked_is_dropped() -> None:
    guessed = text(1)
    question = guessed.question()
    assert question
    guessed.extend([2])
    guessed.answer(question, 3, 0.9)
    assert guessed.propose((), 7) == []


def test_an_answer_counts_still_where_its_guesses_came_true_meanwhile() -> None:
    guessed = text(1)
    tell(guessed, 3)
    question = guessed.question()
    assert question
    guessed.extend([3])
    guessed.answer(question, 4, 0.9)
    assert tokens(guessed.propose((), 7)) == [4]


def test_what_is_under_way_from_elsewhere_is_guessed_on() -> None:
    guessed = text(1)
    tell(guessed, 3)
    assert guessed.propose((7, 8), 7) == []
    question = guessed.question()
    assert question
    assert question.assumed == (7, 8)
    tell(guessed, 9)
    assert tokens(guessed.propose((7, 8), 7)) == [9]


def test_a_long_match_is_believed_first_and_nothing_is_guessed_beside_it() -> None:
    guessed = text(*range(20), 50, *range(8), lookup=True)
    tell(guessed, 77)
    assert tokens(guessed.propose((), 2)) == [8, 9]
    assert guessed.question() is None
    guessed.extend([60])
    assert guessed.question() is not None


def test_a_short_match_is_believed_after_the_model() -> None:
    guessed = text(1, 2, 3, 4, 50, 1, 2, 3, lookup=True)
    assert tokens(guessed.propose((), 1)) == [4]
    tell(guessed, 77)
    assert tokens(guessed.propose((), 1)) == [77]


def test_guesses_end_where_they_are_hardly_ever_right_or_many() -> None:
    doubtful = text(1, chance=0.4)
    tell(doubtful, 2, 3, 4)
    assert doubtful.question() is None
    sure = text(1)
    tell(sure, *range(MOST_GUESSES))
    assert sure.question() is None
    assert not sure.growing


def test_a_model_at_rest_is_asked_nothing_and_stands_in_for_nothing() -> None:
    guessed = GuessedText(EarlierText(), DraftPace(), lambda draft: 1.0)
    guessed.extend([1, 2, 3, 4, 50, 1, 2, 3])
    assert guessed.question() is None
    assert not guessed.at_work
    assert tokens(guessed.propose((), 1)) == [4]


def test_it_is_at_work_from_its_first_answer_on() -> None:
    guessed = text(1)
    assert not guessed.at_work
    assert not guessed.growing
    tell(guessed, 2)
    assert guessed.at_work
    assert guessed.growing


@given(st.lists(st.tuples(st.sampled_from(["right", "wrong", "ask", "late"]), st.integers(0, 3))))
def test_guesses_are_always_of_the_text_as_it_is(steps: list[tuple[str, int]]) -> None:
    """A model whose guess is a function of all it reads."""
    guessed = text(0)
    certain, under_way = [0], None

    def model(read: Sequence[int]) -> int:
        return sum(read) * 7 % 5

    for step, token in steps:
        following = tokens(guessed.propose((), 1))
        if step == "right":
            certain += following
            guessed.extend(following)
        elif step == "wrong":
            certain.append(token)
            guessed.extend([token])
        elif step == "ask" and under_way is None:
            question = guessed.question()
            if question is not None:
                under_way = (question, model([*certain, *question.assumed]))
        elif step == "late" and under_way is not None:
            guessed.answer(*under_way, belief=0.5)
            under_way = None
        text_so_far = [*certain]
        for draft in guessed.propose((), 20):
            assert draft.token == model(text_so_far)
            text_so_far.append(draft.token)
