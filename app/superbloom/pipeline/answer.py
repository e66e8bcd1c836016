"""One answer being written: advance the session, sample, show text, find the end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from torch import Tensor

from superbloom.domain.generation import ChatPhase, GenerationEnd, PhaseChange, TextDelta
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.inference.sampler import Sampler
from superbloom.inference.tokenizer import ChatTokenizer
from superbloom.pipeline.session import ChainSession
from superbloom.pipeline.stop_text import StopText

Sample = Callable[[Sampler, Tensor], Awaitable[int]]
"""`(sampler, hidden [1, hidden_size]) -> token id`."""


class Answer:
    """Continues `prompt`, of which the session has `held`, and tells `emit` how it goes."""

    def __init__(
        self,
        prompt: tuple[int, ...],
        sampling: SamplingSettings,
        *,
        room: int,
        held: int,
        session: ChainSession,
        tokenizer: ChatTokenizer,
        sample: Sample,
        emit: Callable[[TextDelta | PhaseChange], None],
    ) -> None:
        self._prompt = prompt
        self._sampling = sampling
        self._room = room
        self._held = held
        self._session = session
        self._tokenizer = tokenizer
        self._sample = sample
        self._emit = emit
        self._tokens: list[int] = []
        self._began = time.perf_counter()
        self._first_at: float | None = None

    async def write(self) -> EndReason:
        """Write until the end, and say why it ended."""
        sampler = Sampler(self._sampling, self._prompt)
        text = self._tokenizer.detokenizer()
        stops = StopText(self._sampling.stop)
        pending: Sequence[int] = self._prompt[self._held :]
        ended: EndReason | None = None
        while ended is None:
            token = await self._sample(sampler, await self._session.advance(pending))
            self._count(token)
            pending = (token,)
            ended = self._end_after(token)
            if ended is not EndReason.END_OF_TEXT:
                self._show(stops.push(text.push(token)))
            if stops.found:
                return EndReason.STOP_STRING
        self._show(stops.push(text.flush()) + stops.flush())
        return ended

    def end(self, reason: EndReason) -> GenerationEnd:
        """The closing event."""
        return GenerationEnd(
            reason=reason,
            token_ids=tuple(self._tokens),
            prompt_tokens=len(self._prompt),
            tokens_per_second=self._tokens_per_second(),
            first_token_seconds=0.0 if self._first_at is None else self._first_at - self._began,
        )

    def _count(self, token: int) -> None:
        self._tokens.append(token)
        if self._first_at is None:
            self._first_at = time.perf_counter()
            names = self._session.server_names
            words = f"Through {', '.join(names)}."
            self._emit(PhaseChange(phase=ChatPhase.WRITING, words=words, chain=names))

    def _end_after(self, token: int) -> EndReason | None:
        if token in self._tokenizer.end_ids:
            return EndReason.END_OF_TEXT
        if len(self._tokens) >= self._room:
            return EndReason.CONTEXT_FULL
        if len(self._tokens) >= self._sampling.max_tokens:
            return EndReason.LENGTH
        return None

    def _show(self, text: str) -> None:
        if text:
            self._emit(
                TextDelta(
                    text=text,
                    tokens=len(self._tokens),
                    tokens_per_second=self._tokens_per_second(),
                )
            )

    def _tokens_per_second(self) -> float:
        """Decode speed after the first token."""
        if self._first_at is None or len(self._tokens) < 2:
            return 0.0
        return (len(self._tokens) - 1) / (time.perf_counter() - self._first_at)
