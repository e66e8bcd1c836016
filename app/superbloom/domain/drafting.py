"""Guessing how a text goes on from what it said before, so that guesses can be checked at once.

Drafts change no text: the model's own next tokens are computed for all of them together, and the
first one that differs ends what counts. Saxena 2023, "Prompt Lookup Decoding"; the lookup is the
hash chain of LZ77 coders.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SHORTEST_MATCH = 3
LONGEST_MATCH = 32
"""A longer match is no better a reason to believe what follows it."""

MOST_PLACES = 16
"""Earlier places that are compared, the latest first."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A guessed token, and what speaks for it.

    `matched`: how many tokens before it are as they were where it was found in the text. `belief`:
    the probability that a model gave it, above 0 for a model's guess alone.
    """

    token: int
    matched: int = 0
    belief: float = 0.0


class Drafter(Protocol):
    """Guesses what follows a text that grows."""

    def extend(self, token_ids: Sequence[int]) -> None:
        """The text goes on for certain with these."""
        ...

    def propose(self, assumed: Sequence[int], most: int) -> list[Draft]:
        """Up to `most` tokens that may follow the text and the tokens `assumed` to follow it."""
        ...

    @property
    def growing(self) -> bool:
        """True if more will be known soon of what follows those that were proposed last."""
        ...

    @property
    def at_work(self) -> bool:
        """True while a model guesses, which takes time of its own."""
        ...


class NoDrafts:
    """Guesses nothing."""

    growing = False
    at_work = False

    def extend(self, token_ids: Sequence[int]) -> None:
        """As Drafter."""

    def propose(self, assumed: Sequence[int], most: int) -> list[Draft]:
        """As Drafter."""
        return []


class EarlierText:
    """Finds where the end of the text occurred before, and proposes what followed there."""

    growing = False
    at_work = False

    def __init__(self) -> None:
        self._text = array("q")
        self._latest: dict[int, int] = {}
        """For each three tokens, as a number: the position after their latest occurrence."""
        self._before = array("q", [0] * SHORTEST_MATCH)
        """For each position: that after the occurrence before of the three tokens that end there;
        0 if there is none."""

    def extend(self, token_ids: Sequence[int]) -> None:
        """As Drafter; a constant time a token."""
        text, latest, before = self._text, self._latest, self._before
        begin = max(SHORTEST_MATCH, len(text) + 1)
        text.extend(token_ids)
        for end in range(begin, len(text) + 1):
            key = _key(text[end - 3], text[end - 2], text[end - 1])
            before.append(latest.get(key, 0))
            latest[key] = end

    def propose(self, assumed: Sequence[int], most: int) -> list[Draft]:
        """As Drafter; a bounded time, however long the text is."""
        tail = [*self._text[-LONGEST_MATCH:], *assumed][-LONGEST_MATCH:]
        end = len(self._text) + len(assumed)
        place, matched = self._best_place(tail, end) if len(tail) >= SHORTEST_MATCH else (0, 0)
        if not place:
            return []
        following = [*self._text[place : place + most]]
        following += assumed[: most - len(following)]
        while len(following) < most:  # at the end, the text goes on with what is found for it
            following.append(following[len(following) - (end - place)])
        return [Draft(token, matched + index) for index, token in enumerate(following)]

    def _best_place(self, tail: list[int], end: int) -> tuple[int, int]:
        """The position after the longest earlier occurrence of the `tail`'s end, and its length.

        `end` is the position after the tail itself. 0, 0 if there is none.
        """
        best, longest = 0, 0
        place = self._latest.get(_key(tail[-3], tail[-2], tail[-1]), 0)
        for _ in range(MOST_PLACES):
            if not place:
                break
            matched = self._matched(tail, place) if place < end else 0
            if matched > longest and matched >= SHORTEST_MATCH:
                best, longest = place, matched
            if longest == len(tail):
                break
            place = self._before[place]
        return best, longest

    def _matched(self, tail: list[int], place: int) -> int:
        """How many tokens before `place` are those at the end of the tail."""
        text, length = self._text, min(len(tail), place)
        for back in range(1, length + 1):
            if text[place - back] != tail[-back]:
                return back - 1
        return length


def _key(first: int, second: int, third: int) -> int:
    """Different for different tokens below 2^20; what it finds is compared in any case."""
    return (first << 40) ^ (second << 20) ^ third
