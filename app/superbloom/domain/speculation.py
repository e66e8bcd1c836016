"""The windows of one answer: which tokens to send next, and what the checked ones tell of the rest.

A window is a token that is certain, or assumed, and drafts behind it. The answer's own tokens
decide: as long as they agree with the drafts, what is under way stays valid.

What a model guesses comes a token at a time. A token that is certain never waits for it; guesses
follow in windows of their own, a few at once, and `next_window` is asked again as they come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from superbloom.domain.draft_pace import DraftPace
from superbloom.domain.draft_policy import DraftPolicy
from superbloom.domain.drafting import Draft, Drafter

WINDOW_TOKENS = 8
"""Longer windows would wait among the prompts at every server."""

MOST_WINDOWS = 4
"""Windows under way at once."""


class _Kind(Enum):
    """What the time of a window tells of."""

    PLAIN = auto()
    """A text that nobody guesses."""
    GUESSED = auto()
    """One that a model guesses, even if it had no guess yet."""
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class _Window:
    tokens: int
    sent_at: float
    alone: bool
    """Nothing else was under way when it was sent."""
    kind: _Kind


class Speculation:
    """Decides what is sent; `now` is in seconds of any clock that does not go back.

    `drafted` and `accepted` count the drafts that were sent and those that were right. `pace` hears
    how fast the text comes.
    """

    def __init__(
        self,
        drafter: Drafter,
        policy: DraftPolicy | None = None,
        pace: DraftPace | None = None,
    ) -> None:
        self.drafted = 0
        self.accepted = 0
        self._drafter = drafter
        self._policy = policy or DraftPolicy()
        self._pace = pace or DraftPace()
        self._last = 0
        self._under_way: deque[_Window] = deque()
        self._drafts: list[Draft] = []
        """All tokens under way that are not certain, in order."""
        self._unsent: Draft | None = None
        """What would have been the next one."""
        self._settled_at = 0.0

    def begin(self, text: Sequence[int]) -> None:
        """The answer follows this text."""
        self._drafter.extend(text)

    def expected(self) -> tuple[int, ...]:
        """What the oldest window's tokens after its first are guessed to be."""
        behind = self._under_way[0].tokens - 1 if self._under_way else 0
        return tuple(draft.token for draft in self._drafts[:behind])

    def settle(self, written: Sequence[int], now: float) -> bool:
        """The oldest window, or the text to begin with, gave these tokens.

        False if they are not what was assumed: then nothing that is under way counts any more.
        """
        window = self._under_way.popleft() if self._under_way else None
        if window is not None:
            self._note_time(window, now)
            self._note_pace(window, len(written), now)
        self._settled_at = now
        self._drafter.extend(written)
        self._last = written[-1]
        behind = 0 if window is None else window.tokens - 1 + bool(self._under_way)
        if not self._all_right(self._drafts[:behind], written):
            self._under_way.clear()
            self._drafts.clear()
            return False
        del self._drafts[:behind]
        if self._unsent is not None and not self._under_way:
            self._policy.acceptance.note(self._unsent, self._unsent.token == self._last)
        return True

    def next_window(self, left: int, now: float) -> tuple[int, ...]:
        """The tokens to send now; none if it is better to wait. `left` tokens may still follow."""
        alone = not self._under_way
        drafts = self._behind_last(left) if alone else self._ahead(left, now)
        if not (drafts or alone):
            return ()
        self._drafts += drafts
        self.drafted += len(drafts)
        tokens = tuple(draft.token for draft in drafts)
        window = (self._last, *tokens) if alone else tokens
        self._under_way.append(_Window(len(window), now, alone, self._kind(drafts)))
        return window

    def _behind_last(self, left: int) -> list[Draft]:
        """The drafts to send with the last token written."""
        drafts = self._drafter.propose((), min(left, WINDOW_TOKENS) - 1)
        count = self._policy.width(drafts) or self._policy.probe_width(drafts)
        self._unsent = drafts[count] if count < len(drafts) else None
        return drafts[:count]

    def _ahead(self, left: int, now: float) -> list[Draft]:
        """A window that assumes all under way to be right, and the token after it."""
        left = min(left - len(self._drafts) - 1, WINDOW_TOKENS)
        if len(self._under_way) >= MOST_WINDOWS or left < 2:
            return []
        assumed = [draft.token for draft in self._drafts]
        drafts = self._drafter.propose(assumed, left)
        if not drafts or not self._policy.sends_ahead([*self._drafts, drafts[0]]):
            return []
        guessed = bool(drafts[0].belief)
        if guessed and len(drafts) < left and self._drafter.growing and not self._is_time(now):
            return []
        count = self._policy.width(drafts[1:])
        if not (count or guessed):
            return []
        self._unsent = drafts[count + 1] if count + 1 < len(drafts) else None
        return drafts[: count + 1]

    def _is_time(self, now: float) -> bool:
        """True if a further window need not wait for more guesses to go in it.

        So that the windows under way are spread over the time of one.
        """
        spread = self._policy.times.seconds(1) / MOST_WINDOWS
        return now - self._under_way[-1].sent_at >= spread

    def _kind(self, drafts: Sequence[Draft]) -> _Kind:
        if not all(draft.belief for draft in drafts):
            return _Kind.OTHER
        if self._drafter.at_work:
            return _Kind.GUESSED
        return _Kind.OTHER if self._pace.on else _Kind.PLAIN

    def _all_right(self, drafts: Sequence[Draft], written: Sequence[int]) -> bool:
        for index, draft in enumerate(drafts):
            right = index < len(written) and written[index] == draft.token
            self._policy.acceptance.note(draft, right)
            if not right:
                return False
            self.accepted += 1
        return True

    def _note_time(self, window: _Window, now: float) -> None:
        if window.alone:
            self._policy.note_alone(window.tokens, now - window.sent_at)
        else:
            since = max(window.sent_at, self._settled_at)
            self._policy.note_ahead(window.tokens, now - since)

    def _note_pace(self, window: _Window, written: int, now: float) -> None:
        if window.kind is _Kind.PLAIN:
            self._pace.note_plain(now - window.sent_at)
        elif window.kind is _Kind.GUESSED:
            self._pace.note_guessed(written, now - self._settled_at)
            if window.alone and window.tokens == 1:
                self._pace.note_single(now - window.sent_at)
