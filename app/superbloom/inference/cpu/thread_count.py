"""How many threads a CPU computes with, step by step: fewer while other programs want the cores.

The threads of a layer wait for each other. Where one of them has to share its core, all wait for
it at every layer, and a step takes several times as long as one that leaves that core alone: with
another busy program on two cores the starter's step of 36 ms took 180 to 480 ms with two threads,
and 52 to 175 with one. So a step that has become slow is tried with fewer threads, and once in a
while with more again. Fewer are kept only if the number before, tried once more, is still slow: a
short disturbance may have been over by the time that fewer were tried (eight sessions through half
of the starter took 24 ms instead of 20 for a third of the time). Parts of prompts go by what other
programs do: see `prompt_threads`.
"""

from __future__ import annotations

from collections import deque
from statistics import median

TRIAL_STEPS = 5
"""A number of threads is judged by so many steps, one after the other."""

SUSPICIOUS = 1.4
"""Fewer threads are tried when steps take so many times the best that was seen."""

WORTH = 0.85
"""Fewer threads are kept when steps take at most so much of the time."""

HOPELESS = 2.0
"""A trial ends at once with a step that takes so many times the time before."""

RETRY_SECONDS = 5.0
"""How long fewer threads are kept before more are tried again; twice as long after each failure."""

LONGEST_RETRY_SECONDS = 60.0


class ThreadCount:
    """From 1 to `most` threads; steps of one sort, which are noted one by one."""

    def __init__(self, most: int) -> None:
        self._choices = sorted({most, most - 1, most // 2, 1} - {0}, reverse=True)
        self._place = 0
        self._tried: int | None = None
        """The place of the choice on trial."""
        self._fewer: tuple[int, float] | None = None
        """A choice that was better, and its pace, while the one before is tried once more."""
        self._best: dict[int, float] = {}
        """The shortest time of steps of about so many tokens, in seconds."""
        self._paces: deque[float] = deque(maxlen=TRIAL_STEPS)
        """How many times the best the last steps took."""
        self._kinds: deque[int] = deque(maxlen=TRIAL_STEPS)
        """The kinds of the last steps, by their number of tokens."""
        self._judged_kind = 0
        """That of the steps by which the number of threads was chosen."""
        self._before = 0.0
        """The pace before the trial."""
        self._retry_at = 0.0
        self._patience = RETRY_SECONDS

    @property
    def threads(self) -> int:
        """How many to compute the next step with."""
        return self._choices[self._place if self._tried is None else self._tried]

    def note(self, tokens: int, seconds: float, now: float) -> None:
        """A step of so few `tokens` took so long; `now` is monotonic.

        It is compared with steps of about as many tokens.
        """
        kind = tokens.bit_length()
        self._kinds.append(kind)
        best = self._best[kind] = min(seconds, self._best.get(kind, seconds))
        self._paces.append(seconds / best)
        if self._tried is not None and self._paces[-1] > HOPELESS * self._before:
            self._judge(self._paces[-1], now)
        elif len(self._paces) == TRIAL_STEPS:
            pace = median(self._paces)
            if self._tried is not None:
                self._judge(pace, now)
            else:
                self._look(pace, now)

    def _look(self, pace: float, now: float) -> None:
        """Try fewer threads when steps are slow, more when that is some time ago, or was for steps
        of another kind: many sessions at once keep the cores busy by what is around them."""
        others = set(self._kinds) == {self._kinds[-1]} != {self._judged_kind}
        if self._place and (now > self._retry_at or others):
            self._try(self._place - 1, pace)
        elif pace > SUSPICIOUS and self._place + 1 < len(self._choices):
            self._try(self._place + 1, pace)

    def _try(self, place: int, before: float) -> None:
        self._tried, self._before = place, before
        self._paces.clear()

    def _judge(self, pace: float, now: float) -> None:
        assert self._tried is not None
        if self._fewer is not None:
            place, its_pace = self._fewer
            self._settle(place if its_pace < pace * WORTH else self._place, now)
        elif self._tried < self._place:
            if pace < self._before:
                self._settle(self._tried, now)
            else:
                self._patience = min(2 * self._patience, LONGEST_RETRY_SECONDS)
                self._settle(self._place, now)
        elif pace < self._before * WORTH:
            self._fewer = self._tried, pace
            self._try(self._place, pace)
        elif self._tried + 1 < len(self._choices):
            self._try(self._tried + 1, self._before)
        else:  # slow for other reasons: that is how it is now
            self._best = {kind: best * self._before for kind, best in self._best.items()}
            self._settle(self._place, now)

    def _settle(self, place: int, now: float) -> None:
        if place != self._place:
            self._patience = RETRY_SECONDS
        self._place, self._tried, self._fewer = place, None, None
        self._retry_at = now + self._patience
        self._judged_kind = self._kinds[-1]
        self._paces.clear()
