"""How the next token is chosen, and when an answer ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from superbloom.domain.errors import InputRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """Parameters of one answer; `temperature` 0 is greedy decoding.

    `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 switch the respective filter off.
    `seed` None draws a fresh one. `max_tokens` bounds the answer's length in tokens. If `exact`, a
    prompt is not rounded to 8 bits where it has to go over a slow link.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 1024
    exact: bool = False

    def __post_init__(self) -> None:
        checks = {
            "temperature must be between 0 and 5": 0 <= self.temperature <= 5,
            "top_k must be 0 or more": self.top_k >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "min_p must be at least 0 and below 1": 0 <= self.min_p < 1,
            "repetition_penalty must be between 0.1 and 10": 0.1 <= self.repetition_penalty <= 10,
            "max_tokens must be 1 or more": self.max_tokens >= 1,
            "a stop string must not be empty": all(self.stop),
        }
        for sentence, holds in checks.items():
            if not holds:
                raise InputRejected(f"The sampling setting is out of range: {sentence}.")


class EndReason(StrEnum):
    """Why an answer ended."""

    END_OF_TEXT = "end_of_text"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    CONTEXT_FULL = "context_full"
    STOPPED = "stopped"
    FAILED = "failed"
