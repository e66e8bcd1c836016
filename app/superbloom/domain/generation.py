"""What a running answer reports, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from superbloom.domain.sampling import EndReason


class ChatPhase(StrEnum):
    """What an answer is doing."""

    CONNECTING = "connecting"
    READING = "reading"
    """The prompt is being computed."""
    WRITING = "writing"
    RECOVERING = "recovering"
    """A server was lost; its replacement is being brought up to date."""
    WAITING = "waiting"
    """No server holds some blocks; the answer goes on when one appears."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """More text (whole characters only), and the figures so far."""

    text: str
    tokens: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChange:
    """A new phase in words; `chain` names the servers the answer flows through, in order."""

    phase: ChatPhase
    words: str
    chain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationEnd:
    """The last event of every answer that did not raise."""

    reason: EndReason
    token_ids: tuple[int, ...]
    prompt_tokens: int
    tokens_per_second: float
    first_token_seconds: float


GenerationEvent = TextDelta | PhaseChange | GenerationEnd
