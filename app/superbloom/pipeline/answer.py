"""One answer being written: send windows, sample from what they give, show text, find the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from torch import Tensor

from superbloom.domain.drafting import EarlierText, NoDrafts
from superbloom.domain.generation import ChatPhase, GenerationEnd, PhaseChange, TextDelta
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.domain.speculation import Speculation
from superbloom.inference.foresight import Foresight
from superbloom.inference.sampler import Sampler
from superbloom.inference.tokenizer import ChatTokenizer
from superbloom.pipeline.guessing import Guessing, GuessSource
from superbloom.pipeline.session import ChainSession
from superbloom.pipeline.stop_text import StopText

Sample = Callable[[Sampler, Tensor, Sequence[int]], Awaitable[Sequence[int]]]
"""`(sampler, hidden [1 + drafts, hidden_size], drafts) -> token ids`, as `written` gives them."""


def written(sampler: Sampler, logits: Tensor, drafts: Sequence[int]) -> list[int]:
    """The tokens that `logits` [1 + drafts, vocabulary] give: right drafts, and one more.

    Each is sampled as if there were no drafts; after the first that is not the draft, the scores
    are those of a text that was not written.
    """
    tokens: list[int] = []
    for row, draft in zip(logits, (*drafts, None), strict=True):
        tokens.append(sampler.next(row))
        if tokens[-1] != draft:
            break
    return tokens


class Answer:
    """Continues `prompt`, of which the session has `held`, and tells `emit` how it goes.

    With `drafts`, tokens that the text so far suggests are sent along and checked together; a small
    model of `guesses`, if given, guesses more of them.
    """

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
        drafts: bool = True,
        guesses: GuessSource | None = None,
    ) -> None:
        self._prompt = prompt
        self._sampling = sampling
        self._sampler = Sampler(sampling, prompt)
        self._room = room
        self._held = held
        self._session = session
        self._tokenizer = tokenizer
        self._sample = sample
        self._emit = emit
        lookup = EarlierText() if drafts else NoDrafts()
        self._guessing: Guessing | None = None
        if guesses is not None:
            foresight = Foresight(sampling, self._sampler.seed)
            self._guessing = Guessing(lookup, guesses, foresight, len(prompt), self._send_guessed)
        self._speculation = self._guessing.speculation if self._guessing else Speculation(lookup)
        self._text = tokenizer.detokenizer()
        self._stops = StopText(sampling.stop)
        self._tokens: list[int] = []
        self._began = time.perf_counter()
        self._first_at: float | None = None

    async def write(self) -> EndReason:
        """Write until the end, and say why it ended."""
        try:
            return await self._write()
        finally:
            if self._guessing is not None:
                self._guessing.close()

    async def _write(self) -> EndReason:
        await self._session.send(self._prompt[self._held :])
        await asyncio.to_thread(self._speculation.begin, self._prompt)
        while True:
            if self._guessing is not None:
                self._guessing.look()
            hidden = await self._session.receive()
            tokens = await self._sample(self._sampler, hidden, self._speculation.expected())
            ended = self._take(tokens)
            as_assumed = self._speculation.settle(tokens, time.perf_counter())
            if ended is not None:
                self._session.retract(len(self._prompt) + len(self._tokens))
                return ended
            if not as_assumed:
                self._session.retract(len(self._prompt) + len(self._tokens) - 1)
            await self._send_windows()

    async def _send_windows(self) -> None:
        """Send the tokens that are certain, and what may be sent ahead of knowing more."""
        while window := self._next_window():
            await self._session.send(window, keep=len(window))

    def _send_guessed(self) -> None:
        """There are more guesses while windows are under way: send what may be sent of them."""
        if not self._tokens:  # the prompt is on its way
            return
        while window := self._next_window():
            self._session.send_soon(window, keep=len(window))

    def _next_window(self) -> tuple[int, ...]:
        left = min(self._room, self._sampling.max_tokens) - len(self._tokens)
        return self._speculation.next_window(left, time.perf_counter())

    def end(self, reason: EndReason) -> GenerationEnd:
        """The closing event."""
        return GenerationEnd(
            reason=reason,
            token_ids=tuple(self._tokens),
            prompt_tokens=len(self._prompt),
            tokens_per_second=self._tokens_per_second(),
            first_token_seconds=0.0 if self._first_at is None else self._first_at - self._began,
            drafted=self._speculation.drafted,
            accepted=self._speculation.accepted,
        )

    def _take(self, tokens: Sequence[int]) -> EndReason | None:
        """Add tokens to the text and show them; why the answer ends within them, if it does."""
        shown, ended = "", None
        for token in tokens:
            self._count(token)
            ended = self._end_after(token)
            if ended is not EndReason.END_OF_TEXT:
                shown += self._stops.push(self._text.push(token))
            if self._stops.found:
                ended = EndReason.STOP_STRING
            if ended is not None:
                break
        if ended is not None and not self._stops.found:
            shown += self._stops.push(self._text.flush()) + self._stops.flush()
        self._show(shown)
        return ended

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
