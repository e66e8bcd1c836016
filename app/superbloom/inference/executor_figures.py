"""The executor's figures: how quick it is, measured from its own work."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from superbloom.inference.step_queue import Job, Turn

MEASURED_STEPS = 32
MEASURED_CHUNK = 64
"""From so many tokens on a tick counts as that of a prompt."""
RECENT_SECONDS = 30.0
"""Waits are remembered for so long."""
MOST_WAITS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorStats:
    """The executor's figures.

    `step_seconds` is the median time of recent ticks that computed single tokens, for the whole
    span; `waiting_seconds` that between the arrival of a short step and its tick;
    `free_cache_tokens` what sessions over the whole span may still reserve.
    """

    step_seconds: float
    waiting_seconds: float
    prefill_tokens_per_second: float
    free_cache_tokens: int
    sessions: int
    tokens_computed: int


class Figures:
    """Recent times of a span of `blocks` blocks, and the tokens computed since the start."""

    def __init__(self, blocks: int) -> None:
        self.tokens = 0
        self._blocks = blocks
        self._step_seconds: deque[float] = deque(maxlen=MEASURED_STEPS)
        self._prefill_rates: deque[float] = deque(maxlen=MEASURED_STEPS)
        self._waits: deque[tuple[float, float]] = deque(maxlen=MOST_WAITS)
        """When a tick took a short step, and how long that had waited."""

    @property
    def step_seconds(self) -> float:
        """The median of ticks of single tokens, for the whole span."""
        return median(self._step_seconds)

    @property
    def prefill_tokens_per_second(self) -> float:
        """The median of chunks of prompts, for the whole span."""
        return median(self._prefill_rates)

    def waiting_seconds(self, now: float) -> float:
        """The median wait of the last RECENT_SECONDS' short steps, not for their own sessions."""
        waits = [wait for at, wait in self._waits if now - at <= RECENT_SECONDS]
        return median(waits) if waits else 0.0

    def note_taken(self, job: Job, now: float) -> None:
        """A tick begins with this step among others."""
        if job.arrived is not None and not job.is_prompt:
            self._waits.append((now, now - job.arrived))

    def note(self, turns: Sequence[Turn], seconds: float) -> None:
        """Keep a tick's figures; a part of the span is scaled to the whole."""
        tokens = sum(turn.tokens for turn in turns)
        scaled = seconds * self._blocks / len(turns[0].session.cache.blocks)
        self.tokens += tokens
        if all(turn.tokens == 1 for turn in turns):
            self._step_seconds.append(scaled)
        elif tokens >= MEASURED_CHUNK:
            self._prefill_rates.append(tokens / scaled)
