"""How many tokens to draft, and when to send drafts ahead: by what is right and what it costs.

Everything is measured: how often drafts are right, also those that are not sent, and how long
windows take. Where drafts do not pay, none are sent but for a rare probe of the time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from math import prod
from statistics import median_low

from superbloom.domain.drafting import Draft

WORTH = 1.03
"""Drafts must promise so many times the tokens per second of none."""

LEAST_CHANCE = 0.1
"""Drafts less likely to count are not worth the servers' work, which others could use."""

AHEAD_CHANCE = 0.6
"""A window is sent ahead if all that it builds on is right with at least this probability."""

GUESSED_AHEAD_CHANCE = 0.3
"""The same where it builds on a model's guesses. They are made one at a time, so that a window that
waited for what is before it to be known would give their head start away."""

AHEAD_GAP = 0.75
"""And if it comes after the one before within this part of the time that it would take alone."""

FIRST_PROBE = 16
LAST_PROBE = 256
"""Drafts that do not seem to pay are tried after so many windows, then half as often each time."""

FRESH_WINDOWS = 256
"""After so many windows with drafts, one without them is measured again."""

GUESSED_SLOPE = 0.03
"""What a further token in a window adds to its time where that was not measured, as a part."""

_MATCHES = (3, 4, 6, 12)
_MATCH_PRIORS = (0.3, 0.5, 0.75, 0.9)
"""How often a draft is right after a match of at least so many tokens, before any was seen."""

_BELIEFS = (0.0, 0.3, 0.5, 0.7, 0.85, 0.95)
_BELIEF_PRIORS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""The same for a model's guess to which it gives at least that probability."""

_PRIOR_DRAFTS = 4.0
_DECAY = 0.97


class Acceptance:
    """How often drafts are right, by what speaks for them: the match or the model's belief."""

    def __init__(self) -> None:
        priors = (*_MATCH_PRIORS, *_BELIEF_PRIORS)
        self._right = [prior * _PRIOR_DRAFTS for prior in priors]
        self._seen = [_PRIOR_DRAFTS] * len(priors)

    def chance(self, draft: Draft) -> float:
        """The probability that the draft is right if all before it are."""
        place = _place(draft)
        return self._right[place] / self._seen[place]

    def note(self, draft: Draft, right: bool) -> None:
        """A draft after nothing but right ones was right or wrong, whether it was sent or not."""
        place = _place(draft)
        self._right[place] = self._right[place] * _DECAY + right
        self._seen[place] = self._seen[place] * _DECAY + 1


def _place(draft: Draft) -> int:
    if draft.belief:
        return len(_MATCHES) + bisect_right(_BELIEFS, draft.belief) - 1
    return max(0, bisect_right(_MATCHES, draft.matched) - 1)


class WindowTimes:
    """Seconds that windows of so many tokens take, from sending them to knowing what follows."""

    SAMPLES = 7

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}
        self._noted = 0
        self._noted_single = 0

    @property
    def knows_single(self) -> bool:
        """True if single tokens were measured lately."""
        return 1 in self._samples and self._noted - self._noted_single < FRESH_WINDOWS

    def note(self, tokens: int, seconds: float) -> None:
        """A window of `tokens` took so long."""
        self._samples.setdefault(tokens, deque(maxlen=self.SAMPLES)).append(seconds)
        self._noted += 1
        if tokens == 1:
            self._noted_single = self._noted

    def seconds(self, tokens: int) -> float:
        """Measured, or between what was, or a little dearer than what was; 1 to begin with."""
        if tokens in self._samples:
            return self._typical(tokens)
        below = [known for known in sorted(self._samples) if known < tokens]
        above = [known for known in sorted(self._samples) if known > tokens]
        if not below:
            return self._typical(above[0]) if above else 1.0
        base = self._typical(below[-1])
        if above:
            slope = (self._typical(above[0]) - base) / (above[0] - below[-1])
        else:
            slope = self._slope(below)
        return base + slope * (tokens - below[-1])

    def _slope(self, known: list[int]) -> float:
        """What a token more than the widest window known may add, in seconds."""
        first, last = self._typical(known[0]), self._typical(known[-1])
        grown = (last - first) / (known[-1] - known[0]) if len(known) > 1 else 0.0
        return max(grown, GUESSED_SLOPE * first)

    def _typical(self, tokens: int) -> float:
        return median_low(self._samples[tokens])


class DraftPolicy:
    """Weighs drafts of one session."""

    GAP_WEIGHT = 0.3
    GAP_GUESS = 0.5
    GAP_FORGETTING = 0.002

    def __init__(self) -> None:
        self.acceptance = Acceptance()
        self.times = WindowTimes()
        self._gap = self.GAP_GUESS
        self._passed_over = 0
        self._probe_after = FIRST_PROBE

    def width(self, drafts: Sequence[Draft]) -> int:
        """How many of the drafts to send behind a token that is certain.

        The number with the most tokens per second, by what a window yields and takes; none unless
        that is worth it, or while the time without drafts is not known.
        """
        if not (drafts and self.times.knows_single):
            return 0
        seconds = [self.times.seconds(n) for n in range(1, len(drafts) + 2)]
        count, gain = self._best(drafts, seconds)
        return count if gain >= WORTH else 0

    def probe_width(self, drafts: Sequence[Draft]) -> int:
        """How many of the drafts to send where they do not seem to pay: mostly none."""
        if not drafts:
            return 0
        self._passed_over += 1
        if self._passed_over < self._probe_after:
            return 0
        self._passed_over = 0
        self._probe_after = min(2 * self._probe_after, LAST_PROBE)
        hoped = [1 + GUESSED_SLOPE * n for n in range(len(drafts) + 1)]
        return max(1, self._best(drafts, hoped)[0])

    def _best(self, drafts: Sequence[Draft], seconds: Sequence[float]) -> tuple[int, float]:
        """How many drafts are best, and how much faster that is than none.

        `seconds`: what windows with none, one, two, ... take.
        """
        best, best_gain = 0, 1.0
        tokens, chance = 1.0, 1.0
        for count, draft in enumerate(drafts, 1):
            chance *= self.acceptance.chance(draft)
            if chance < LEAST_CHANCE:
                break
            tokens += chance
            gain = tokens * seconds[0] / seconds[count]
            if gain > best_gain:
                best, best_gain = count, gain
        return best, best_gain

    def sends_ahead(self, assumed: Sequence[Draft]) -> bool:
        """True if a window that rests on all these drafts should follow at once."""
        chance = prod(self.acceptance.chance(draft) for draft in assumed)
        guessed = any(draft.belief for draft in assumed)
        least = GUESSED_AHEAD_CHANCE if guessed else AHEAD_CHANCE
        return chance >= least and self._gap < AHEAD_GAP

    def note_alone(self, tokens: int, seconds: float) -> None:
        """A window that was sent while nothing was under way took so long."""
        self.times.note(tokens, seconds)
        self._gap += self.GAP_FORGETTING * (self.GAP_GUESS - self._gap)

    def note_ahead(self, tokens: int, seconds: float) -> None:
        """A window that was sent ahead came so long after the one before it."""
        part = min(seconds / self.times.seconds(tokens), 2.0)
        self._gap += self.GAP_WEIGHT * (part - self._gap)
