"""A span: contiguous blocks `[start, end)` of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Blocks `[start, end)`, counted from 0; never empty."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"not a span: [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.end))

    def __str__(self) -> str:
        return f"{self.start}-{self.end - 1}"

    def covers(self, other: Span) -> bool:
        """True if every block of `other` is in this span."""
        return self.start <= other.start and other.end <= self.end

    @classmethod
    def parse(cls, text: str) -> Span:
        """Read `start:end` (end exclusive), as a user types it; ValueError otherwise."""
        start, colon, end = text.partition(":")
        if not colon:
            raise ValueError(f"a span is start:end, not {text!r}")
        return cls(int(start), int(end))
