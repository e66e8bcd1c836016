"""A conversation: messages in a tree, of which one path is shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from superbloom.domain.sampling import EndReason


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """What one side said, as a model's chat template takes it."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. `created_at` is Unix time in seconds; the figures belong to answers.

    `end` is None while an answer is being written (or when the program died in the middle of it).
    """

    id: str
    conversation: str
    parent: str | None
    role: Role
    text: str
    created_at: float
    end: EndReason | None = None
    tokens: int = 0
    tokens_per_second: float = 0.0
    first_token_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation's head line; times are Unix seconds."""

    id: str
    title: str
    model: str
    created_at: float
    updated_at: float


TITLE_LENGTH = 60


def title_from(text: str) -> str:
    """A conversation's first title: the first line of the first question, cut at a word."""
    line = next((part.strip() for part in text.splitlines() if part.strip()), "New conversation")
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0].rstrip() + "…"
