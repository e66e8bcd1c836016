"""The executor's figures: how quick it is, measured from its own work."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from superbloom.inference.step_queue import Turn, has_prompt

MEASURED_STEPS = 32
MEASURED_CHUNK = 64
"""From so many tokens on a tick counts as that of a prompt."""
ENOUGH_STEPS = 3
"""So many steps of a session alone say more than any others."""
MEASURED_SECONDS = 120.0
"""Times are remembered for so long."""
RECENT_SECONDS = 30.0
"""Waits are remembered for so long."""
MOST_WAITS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorStats:
    """The executor's figures, as a client that opens one session more should find them.

    `step_seconds` is how long a step of one token of one session takes over the whole span, when
    nobody else is computed for; `waiting_seconds` how long its short steps wait before that, for
    those of other owners; `free_cache_tokens` what sessions over the whole span may still reserve.
    """

    step_seconds: float
    waiting_seconds: float
    prefill_tokens_per_second: float
    free_cache_tokens: int
    sessions: int
    tokens_computed: int


class Measured:
    """The last values of a figure, and its first ones, which count once the last are old."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: deque[tuple[float, float]] = deque(maxlen=MEASURED_STEPS)

    def note(self, value: float, now: float) -> None:
        """Another value."""
        if len(self._first) < ENOUGH_STEPS:
            self._first.append(value)
        self._last.append((now, value))

    def recent(self, now: float) -> list[float]:
        """Those of the last MEASURED_SECONDS."""
        return [value for at, value in self._last if now - at <= MEASURED_SECONDS]

    def median(self, now: float) -> float:
        """The middle of the recent ones, or else of the first ones, of which there must be any."""
        return median(self.recent(now) or self._first)


class Figures:
    """Recent times of a span of `blocks` blocks, and the tokens computed since the start.

    A time that is long past says little: the computer may have been busy with something else. Who
    has had nothing to do for a while says what was measured at the start, when it was alone.
    """

    def __init__(self, blocks: int) -> None:
        self.tokens = 0
        self._blocks = blocks
        self._alone = Measured()
        """Seconds of ticks with a single token, over all blocks."""
        self._shared = Measured()
        """What a single token would have taken in other ticks without a prompt."""
        self._ticks = Measured()
        """Seconds of all ticks without a prompt."""
        self._prefill_rates = Measured()
        self._waits: deque[tuple[float, float]] = deque(maxlen=MOST_WAITS)
        """When a tick took an owner's short step, and how long that had waited."""

    def step_seconds(self, now: float) -> float:
        """How long one token of one session alone takes, for the whole span.

        That is measured where it happens, and else concluded from steps that were longer, shared
        their tick, or took a part of the blocks.
        """
        alone = self._alone.recent(now)
        if len(alone) < ENOUGH_STEPS:
            alone += self._shared.recent(now)
        return median(alone) if alone else self._alone.median(now)

    def tick_seconds(self, now: float) -> float:
        """The median of ticks without a prompt, whatever they held, for the whole span."""
        return self._ticks.median(now)

    def prefill_tokens_per_second(self, now: float) -> float:
        """The median of chunks of prompts, for the whole span."""
        return self._prefill_rates.median(now)

    def waiting_seconds(self, now: float) -> float:
        """The median wait of the last RECENT_SECONDS' short steps, one an owner and tick."""
        waits = [wait for at, wait in self._waits if now - at <= RECENT_SECONDS]
        return median(waits) if waits else 0.0

    def note_wait(self, arrived: float, now: float) -> None:
        """A tick begins with a short step that waited for no other of its owner."""
        self._waits.append((now, now - arrived))

    def note(self, turns: Sequence[Turn], seconds: float, now: float) -> None:
        """Keep the figures of a forward; a part of the span is scaled to the whole."""
        tokens = sum(turn.tokens for turn in turns)
        part = len(turns[0].session.cache.blocks) / self._blocks
        scaled = seconds / part
        self.tokens += tokens
        if tokens >= MEASURED_CHUNK:
            self._prefill_rates.note(tokens / scaled, now)
        elif not has_prompt(turns):
            self._ticks.note(scaled, now)
            if tokens == 1 and part == 1:
                self._alone.note(scaled, now)
            else:
                self._shared.note(self._without_others(scaled, tokens, now), now)

    def _without_others(self, seconds: float, tokens: int, now: float) -> float:
        """How long a forward of `tokens` tokens would have taken with one of them, at least.

        Every token beside the first adds at least what it takes in a long chunk, and no more than
        its part of the whole.
        """
        more = (tokens - 1) / self.prefill_tokens_per_second(now)
        return max(seconds / tokens, seconds - more)
