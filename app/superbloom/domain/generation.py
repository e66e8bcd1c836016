"""What a running answer reports, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from superbloom.domain.sampling import EndReason
from superbloom.domain.span import Span


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
class ChainHop:
    """One server of a chain; `seconds` is how long a step is expected to stay there."""

    name: str
    blocks: Span
    seconds: float

    def __str__(self) -> str:
        time = f", {1000 * self.seconds:.0f} ms" if self.seconds else ""
        return f"{self.name} (blocks {self.blocks}{time})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChange:
    """A new phase in words; `chain` names the servers the answer flows through, in order.

    `hops` says more of the same servers; it may be left out where they are those of before.
    """

    phase: ChatPhase
    words: str
    chain: tuple[str, ...] = ()
    hops: tuple[ChainHop, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationEnd:
    """The last event of every answer that did not raise.

    Of `drafted` tokens that were guessed and sent along to be checked, `accepted` were right.
    """

    reason: EndReason
    token_ids: tuple[int, ...]
    prompt_tokens: int
    tokens_per_second: float
    first_token_seconds: float
    drafted: int = 0
    accepted: int = 0


GenerationEvent = TextDelta | PhaseChange | GenerationEnd
