"""A session's tokens on their way: through the chain, under way in windows, or still to be sent."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from superbloom.pipeline.messages import CHUNK_TOKENS, Progress, Result, Step

CREDIT_CHUNKS = 4
"""Prefill steps that may be under way at once."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Tokens up to position `end`, of which the hidden states of the last `keep` are wanted."""

    end: int
    keep: int


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """Positions [start, end) as one step, whose last `keep` hidden states come back."""

    epoch: int
    start: int
    end: int
    keep: int

    def carrying(self, hidden: Tensor) -> Step:
        """The step with its tokens' hidden states [end - start, hidden_size]."""
        return Step(
            epoch=self.epoch, position=self.start, keep=self.keep, replay=False, hidden=hidden
        )


class Windows:
    """Tokens [0, committed) are through the chain, those up to `sent` under way, the rest waits.

    Tokens are added in windows; each is complete when its last step's result has come. Steps carry
    the `epoch`, which rises when what was sent before no longer counts.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.committed = 0
        self.sent = 0
        self.epoch = 0
        self.begun_at = 0
        """The position at which the steps of the present epoch begin."""
        self._windows: deque[_Window] = deque()
        self._steps: deque[PlannedStep] = deque()

    def add(self, token_ids: Sequence[int], keep: int) -> None:
        """A further window; the hidden states of its last `keep` tokens are wanted."""
        assert 1 <= keep <= len(token_ids)
        self.tokens.extend(token_ids)
        self._windows.append(_Window(len(self.tokens), keep))

    def next_step(self) -> PlannedStep | None:
        """What is to be sent now; None when all is, or enough of it for the moment."""
        if self.sent - self.committed >= CHUNK_TOKENS * CREDIT_CHUNKS:
            return None
        window = next((w for w in self._windows if w.end > self.sent), None)
        if window is None:
            return None
        end = min(self.sent + CHUNK_TOKENS, window.end)
        if end < window.end:  # what is kept comes back in one piece
            end = min(end, window.end - window.keep)
        keep = window.keep if end == window.end else 0
        return PlannedStep(self.epoch, self.sent, end, keep)

    def note_sent(self, step: PlannedStep) -> None:
        """The step is under way."""
        self._steps.append(step)
        self.sent = step.end

    def expects(self, result: Result) -> bool:
        """True if this is what the oldest step under way must give."""
        if not self._steps:
            return False
        oldest, rows = self._steps[0], int(result.hidden.shape[0])
        return (result.position, result.end, rows) == (oldest.start, oldest.end, oldest.keep)

    def take(self, result: Result) -> bool:
        """The oldest step's result has come; True if that completes the oldest window."""
        self._steps.popleft()
        self.committed = result.end
        complete = result.end == self._windows[0].end
        if complete:
            self._windows.popleft()
        return complete

    def retract(self, position: int) -> None:
        """Forget what is not through the chain, and all tokens from `position` on."""
        kept = min(self.committed, position)
        del self.tokens[kept:]
        self._windows.clear()
        if self.sent > kept:
            self.begin_epoch(kept)

    def begin_epoch(self, position: int) -> None:
        """Nothing that was sent counts any more: what is there from `position` on is sent again."""
        self.epoch += 1
        self.begun_at = self.committed = self.sent = position
        self._steps.clear()

    @property
    def beginning(self) -> Progress:
        """What a server reports that knows of the present epoch and has got no step of it."""
        return Progress(epoch=self.epoch, received=self.begun_at, sent=self.begun_at)

    def shared_prefix(self, token_ids: Sequence[int]) -> int:
        """How many of `token_ids`, from the first on, are through the chain."""
        pairs = zip(self.tokens[: self.committed], token_ids, strict=False)
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
        return sum(1 for _ in same)
