"""Whether a small model's guesses pay: tokens per second with it at work, and without.

Guessing takes time of its own, and cores that others may need: of the client's head, or of a server
on the same computer. So what counts is not how often guesses are right but the speed of the whole
text. The model is tried where single tokens take long, stays while the text comes faster with it,
and is tried again ever more rarely where it does not.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low

SLOW_SECONDS = 0.08
"""Single tokens that take less leave a small model no time to guess in."""

PLAIN_TOKENS = 4
"""So many tokens without the model tell what they take."""

SHORT_TRIAL = 4
TRIAL = 8
LONG_TRIAL = 16
"""Results after which a trial ends where the text is much, a good deal, or at all slower."""

_BARS = {SHORT_TRIAL: 0.7, TRIAL: 0.85, LONG_TRIAL: 1.08}
_STAY = 1.05
"""What the speed must be, of that without, at these points of a trial and after it."""

FIRST_RETRY = 64
LAST_RETRY = 4096
"""Tokens without the model before it is tried again; twice as many after each failure."""

FRESH_RESULTS = 512
"""After so many results with the model, its absence is measured again."""

OUTDATED = 0.75
"""As it is once single tokens take so much less than without the model some time ago."""

_DECAY = 0.97


class DraftPace:
    """One model's small model: `on` while it is to guess. Outlives answers: the ring stays."""

    def __init__(self) -> None:
        self.on = False
        self._plain: deque[float] = deque(maxlen=7)
        self._single: deque[float] = deque(maxlen=5)
        """What single tokens took while the model was at work."""
        self._to_measure = PLAIN_TOKENS
        self._retry_in = 0
        self._patience = FIRST_RETRY
        self._results = 0
        """With the model, since the trial began."""
        self._measured_at = 0
        """The number of results at which its absence was measured."""
        self._tokens = self._seconds = 0.0
        """Of the last results with the model, older ones fading."""

    @property
    def gain(self) -> float:
        """How many times the speed without the model is reached with it; 1 if not known."""
        if not (self._seconds and self._plain):
            return 1.0
        return self._tokens / self._seconds * median_low(self._plain)

    def note_plain(self, seconds: float) -> None:
        """A token that nobody guessed took so long while the model rested."""
        self._plain.append(seconds)
        self._to_measure -= 1
        self._retry_in -= 1
        if self._to_measure > 0 or self._retry_in > 0 or self.on:
            return
        if median_low(self._plain) >= SLOW_SECONDS:
            self.on = True

    def note_guessed(self, tokens: int, seconds: float) -> None:
        """So many tokens came after so long while the model was at work."""
        if not self.on:  # of windows that were under way when it was told to rest
            return
        self._tokens = self._tokens * _DECAY + tokens
        self._seconds = self._seconds * _DECAY + seconds
        self._results += 1
        bar = _STAY if self._results > LONG_TRIAL else _BARS.get(self._results, 0.0)
        if self.gain < bar:
            self._give_up()
        elif self._results == LONG_TRIAL:
            self._patience = FIRST_RETRY
        elif self._results - self._measured_at >= FRESH_RESULTS:
            self._measure_plain()

    def note_single(self, seconds: float) -> None:
        """A window of one token, with none under way before it, took so long beside the model."""
        self._single.append(seconds)
        full = len(self._single) == self._single.maxlen
        if self.on and full and median_low(self._single) < OUTDATED * median_low(self._plain):
            self._measure_plain()

    def _give_up(self) -> None:
        self.on = False
        self._retry_in = self._patience
        self._patience = min(2 * self._patience, LAST_RETRY)
        self._results = self._measured_at = 0
        self._tokens = self._seconds = 0.0
        self._single.clear()

    def _measure_plain(self) -> None:
        """Let the model rest for a few tokens; what was seen of it still counts."""
        self.on = False
        self._to_measure = PLAIN_TOKENS
        self._measured_at = self._results
        self._plain.clear()
        self._single.clear()
