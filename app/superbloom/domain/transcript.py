"""From the messages of a conversation to the turns a model is asked with."""

from __future__ import annotations

from collections.abc import Sequence

from superbloom.domain.conversation import ChatTurn, Message, Role


def turns_of(path: Sequence[Message]) -> tuple[ChatTurn, ...]:
    """The turns of a path whose last question waits for its answer, oldest first.

    A question that got no text for an answer is left out together with that answer: chat
    templates want questions and answers in turn.
    """
    turns: list[ChatTurn] = []
    for message in path:
        unanswered = bool(turns) and turns[-1].role is Role.USER
        if message.role is Role.ASSISTANT and not message.text.strip():
            continue
        if message.role is Role.USER and unanswered:
            turns.pop()
        turns.append(ChatTurn(message.role, message.text))
    return tuple(turns)
