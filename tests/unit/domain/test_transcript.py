"""The turns a model is asked with."""

from __future__ import annotations

from superbloom.domain.conversation import ChatTurn, Message, Role
from superbloom.domain.transcript import turns_of

S, U, A = Role.SYSTEM, Role.USER, Role.ASSISTANT


def path(*said: tuple[Role, str]) -> list[Message]:
    return [
        Message(id=str(n), conversation="c", parent=None, role=role, text=text, created_at=0.0)
        for n, (role, text) in enumerate(said)
    ]


def test_turns_follow_the_path() -> None:
    said = ((S, "Be brief."), (U, "One?"), (A, "1"), (U, "Two?"))
    assert turns_of(path(*said)) == tuple(ChatTurn(role, text) for role, text in said)


def test_a_question_without_an_answer_is_left_out() -> None:
    turns = turns_of(path((S, "Be brief."), (U, "One?"), (A, " "), (U, "Two?")))
    assert turns == (ChatTurn(S, "Be brief."), ChatTurn(U, "Two?"))


def test_only_the_last_of_several_unanswered_questions_is_asked() -> None:
    assert turns_of(path((U, "One?"), (U, "Two?"), (A, ""), (U, "Three?"))) == (
        ChatTurn(U, "Three?"),
    )
