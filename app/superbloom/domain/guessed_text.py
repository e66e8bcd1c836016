"""Drafts of two kinds: what the text said before, and where that says little, a model's guesses.

A small model guesses one token at a time, elsewhere and later: `question` says what it should guess
next and `answer` takes it. Guesses follow the text and each other as long as they are right; what
they rest on may also be tokens that were found in the text and are under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from superbloom.domain.draft_pace import DraftPace
from superbloom.domain.drafting import Draft, Drafter

LONG_MATCH = 6
"""What follows so many equal tokens is believed before a model's guess."""

LEAST_CHANCE = 0.1
"""Guesses that all come true with less probability are followed by no more."""

MOST_GUESSES = 24
"""Guesses that wait to be known to be right."""


@dataclass(frozen=True, slots=True)
class Question:
    """What follows the certain text and the tokens `assumed` to follow it?

    Questions of one `number` are about the same text, which has grown from one to the next.
    """

    number: int
    assumed: tuple[int, ...]


class GuessedText:
    """A Drafter that looks tokens up first; `chance` is the probability that a draft is right."""

    def __init__(self, lookup: Drafter, pace: DraftPace, chance: Callable[[Draft], float]) -> None:
        self._lookup = lookup
        self._pace = pace
        self._chance = chance
        self.certain: list[int] = []
        """The text that is known."""
        self._ahead: list[Draft] = []
        """How the text goes on beyond what is certain: assumed, or guessed."""
        self._number = 0
        self._sure = False
        """The lookup knows how it goes on."""
        self._begun = False
        """The model has answered since it was told to work."""

    def extend(self, token_ids: Sequence[int]) -> None:
        """As Drafter."""
        self._lookup.extend(token_ids)
        self.certain += token_ids
        for token in token_ids:
            if self._ahead and self._ahead[0].token == token:
                del self._ahead[0]
            else:
                self._forget()
        self._sure = False
        self._begun = self._begun and self._pace.on

    def propose(self, assumed: Sequence[int], most: int) -> list[Draft]:
        """As Drafter."""
        found = self._lookup.propose(assumed, most)
        self._sure = bool(found) and found[0].matched >= LONG_MATCH
        if self._sure or not self._pace.on:
            return found
        known = [draft.token for draft in self._ahead[: len(assumed)]]
        if known != [*assumed]:
            self._forget()
            self._ahead = [Draft(token) for token in assumed]
        return self._ahead[len(assumed) : len(assumed) + most] or found

    @property
    def growing(self) -> bool:
        """As Drafter."""
        return self._begun and self.question() is not None

    @property
    def at_work(self) -> bool:
        """As Drafter."""
        return self._begun and self._pace.on

    def question(self) -> Question | None:
        """What the model should guess now; None if nothing."""
        if not self._pace.on or self._sure or len(self._ahead) >= MOST_GUESSES:
            return None
        if prod(self._chance(draft) for draft in self._ahead if draft.belief) < LEAST_CHANCE:
            return None
        return Question(self._number, tuple(draft.token for draft in self._ahead))

    def answer(self, question: Question, token: int, belief: float) -> None:
        """The model guesses `token`, which it gives the probability `belief`."""
        self._begun = True
        if question.number == self._number:
            self._ahead.append(Draft(token, belief=belief))

    def _forget(self) -> None:
        self._ahead.clear()
        self._number += 1
