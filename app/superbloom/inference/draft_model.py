"""A whole small model in this process that guesses how a text goes on, one token at a time.

Guesses are checked by the model that answers, so they may be made quickly rather than exactly:
weights are held in 8 bits where the family allows it, and of a long text only the end is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.inference.device import CPU, default_precision
from superbloom.inference.ends import ClientEnds
from superbloom.inference.foresight import Guess
from superbloom.inference.shape import shape_of
from superbloom.inference.stage import Stage, StageStep
from superbloom.inference.weights import read_config

logger = logging.getLogger(__name__)

READ_TOKENS = 1024
"""Of a longer text, the last so many tokens are read to begin with."""

HELD_TOKENS = 4096
"""A text that has grown beyond so many is begun anew with its end."""

CHUNK_TOKENS = 128
"""Read at once: a tenth to a quarter of a second, for which nobody else has the thread."""

ONE_THREAD_BYTES = 400 * 1024 * 1024
"""A model whose weights take no more is quick enough on one core, and leaves the others alone."""


class DraftModel:
    """All of a small model. Not thread-safe: one thread owns it and its texts."""

    def __init__(self, stage: Stage, ends: ClientEnds, context_tokens: int) -> None:
        self.context_tokens = context_tokens
        self._stage = stage
        self._ends = ends

    @classmethod
    def load(cls, folder: Path) -> DraftModel:
        """Read the model in `folder`, all of it. Raises ModelError."""
        shape = shape_of(read_config(folder))
        blocks = Span(0, shape.blocks)
        precision = Precision.INT8
        try:
            stage = Stage.load(folder, blocks, precision=precision, device=CPU)
        except ModelUnsupported:
            precision = default_precision(CPU)
            stage = Stage.load(folder, blocks, precision=precision, device=CPU)
        ends = ClientEnds.load(folder, precision=precision, device=CPU)
        logger.info("a model that guesses ahead is loaded: %s in %s", folder.name, precision.value)
        return cls(stage, ends, shape.context_tokens)

    @property
    def vocabulary(self) -> int:
        """Ids from this on are none of its tokens."""
        return self._ends.vocabulary

    def threads(self, cores: int) -> int:
        """How many threads to compute with where there are so many cores."""
        return 1 if self._stage.weight_bytes <= ONE_THREAD_BYTES else max(1, cores // 2)

    def text(self, vocabulary: int) -> DraftText:
        """A new text whose guesses are ids below `vocabulary`."""
        return DraftText(self._stage, self._ends, self.context_tokens, vocabulary)


class DraftText:
    """One answer's text as the model has read it, with the cache of that."""

    def __init__(
        self, stage: Stage, ends: ClientEnds, context_tokens: int, vocabulary: int
    ) -> None:
        self._stage = stage
        self._ends = ends
        self._vocabulary = min(vocabulary, ends.vocabulary)
        self._most = min(HELD_TOKENS, context_tokens)
        self._cache = stage.new_cache(stage.span)
        self._text: list[int] = []
        """What of the text is certain and of interest: what is read begins with it."""
        self._held: list[int] = []
        """The tokens in the cache."""
        self._scores: Tensor | None = None
        """Of what follows these."""

    def extend(self, token_ids: Sequence[int]) -> None:
        """The text goes on for certain with these. Nothing is read yet."""
        self._text += token_ids

    def guess(self, assumed: Sequence[int], choose: Callable[[Tensor], Guess]) -> Guess | None:
        """What follows the text and the tokens `assumed` to follow it, as `choose` finds it.

        Reads what is new, and goes back where it had read something else. Where there is much to
        read, None comes after a part of it, and asking again goes on. None too for no text at all.
        """
        wanted = self._wanted(assumed)
        if not wanted:
            return None
        same = _shared(self._held, wanted)
        if not same == len(wanted) == len(self._held) or self._scores is None:
            begin = min(same, len(wanted) - 1)
            self._scores = self._read(wanted[begin : begin + CHUNK_TOKENS], begin)
        return choose(self._scores) if len(self._held) == len(wanted) else None

    def _wanted(self, assumed: Sequence[int]) -> list[int]:
        """What should be in the cache; the text's beginning is dropped when that is too much."""
        first_time = not self._held and len(self._text) > READ_TOKENS
        if first_time or len(self._text) + len(assumed) > self._most:
            del self._text[: -min(READ_TOKENS, self._most // 2)]
        return [*self._text, *assumed][: self._most]

    @torch.inference_mode()
    def _read(self, tokens: Sequence[int], begin: int) -> Tensor:
        """The scores [vocabulary] of what follows `tokens`, which are put in the cache."""
        del self._held[begin:]
        self._scores = None
        known = [min(token, self._ends.vocabulary - 1) for token in tokens]
        step = StageStep(self._cache, begin, self._ends.embed(known, begin))
        (hidden,) = self._stage.forward([step])
        self._held += tokens
        return self._ends.logits(hidden[-1:])[0, : self._vocabulary]


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    short = min(len(first), len(second))
    if first[:short] == second[:short]:
        return short
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
