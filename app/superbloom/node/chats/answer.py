"""One running answer: asked, streamed, stored as it grows, ended in words whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from superbloom.control.messages import ChatDelta, ChatFinished, ChatNotice, Event
from superbloom.domain.conversation import ChatTurn, Message
from superbloom.domain.errors import SuperbloomError
from superbloom.domain.generation import (
    ChatPhase,
    GenerationEnd,
    GenerationEvent,
    PhaseChange,
    TextDelta,
)
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.node.chats.text_stream import TextStream

logger = logging.getLogger(__name__)

R = TypeVar("R")

STORE_EVERY = 1.0
"""Seconds between two writes of a growing answer."""


class Answerer(Protocol):
    """A model that answers: `pipeline.remote_model.RemoteModel`."""

    def generate(
        self, turns: Sequence[ChatTurn], sampling: SamplingSettings, stop: asyncio.Event
    ) -> AsyncGenerator[GenerationEvent, None]:
        """The answer as it comes, a GenerationEnd last. Raises SuperbloomError."""


class Answerers(Protocol):
    """Where models that answer come from."""

    async def answerer(self, model: str, tell: Callable[[str], None]) -> Answerer:
        """The model once it can answer; `tell` hears what is being waited for, in words.

        Raises SuperbloomError when waiting is of no use.
        """


class RunningAnswer:
    """Answers one question; `run` ends with exactly one ChatFinished and never raises."""

    def __init__(
        self,
        answer: Message,
        *,
        model: str,
        turns: Sequence[ChatTurn],
        sampling: SamplingSettings,
        answerers: Answerers,
        store: Callable[[Message], Awaitable[None]],
        notify: Callable[[Event], None],
    ) -> None:
        self.stop = asyncio.Event()
        self._answer = answer
        self._model = model
        self._turns = turns
        self._sampling = sampling
        self._answerers = answerers
        self._store = store
        self._notify = notify
        self._stream = TextStream(self._send_piece)
        self._stored_at = time.monotonic()
        self._topic: tuple[ChatPhase, str] | None = None
        """What was said last, without its figures: the log need not have every percent."""

    def as_sent(self) -> Message:
        """The answer as it is, all its text sent to the views."""
        self._stream.flush()
        return self._answer

    async def run(self) -> Message:
        """Answer; the finished message, as stored."""
        error = next_step = ""
        try:
            await self._answer_question()
        except SuperbloomError as failure:
            logger.warning("an answer failed: %s", failure)
            error, next_step = failure.message, failure.next_step
        except asyncio.CancelledError:
            logger.info("an answer was cut short: the node ends")
        except Exception:
            logger.exception("an answer failed unexpectedly")
            error = "The answer failed for a reason the program did not expect."
            next_step = "Ask again; if it happens again, look at the node's log."
        self._stream.flush()
        if self._answer.end is None:
            ended = EndReason.FAILED if error else EndReason.STOPPED
            self._answer = replace(self._answer, end=ended)
        try:
            await self._store(self._answer)
        except SuperbloomError as failure:
            logger.error("an answer could not be stored: %s", failure)
            error, next_step = failure.message, failure.next_step
        self._notify(
            ChatFinished(
                conversation=self._answer.conversation,
                answer=self._answer,
                error=error,
                next_step=next_step,
            )
        )
        return self._answer

    async def _answer_question(self) -> None:
        waiting = self._answerers.answerer(self._model, self._say_waiting)
        answerer = await _unless_stopped(waiting, self.stop)
        if answerer is None:
            return
        answering = answerer.generate(self._turns, self._sampling, self.stop)
        async with contextlib.aclosing(answering):
            async for event in answering:
                await self._take(event)

    async def _take(self, event: GenerationEvent) -> None:
        match event:
            case TextDelta():
                await self._take_text(event)
            case PhaseChange():
                self._stream.flush()
                self._say(event)
            case GenerationEnd():
                self._take_end(event)

    async def _take_text(self, delta: TextDelta) -> None:
        self._answer = replace(
            self._answer,
            text=self._answer.text + delta.text,
            tokens=delta.tokens,
            tokens_per_second=delta.tokens_per_second,
        )
        self._stream.add(delta.text)
        if time.monotonic() - self._stored_at >= STORE_EVERY:
            self._stored_at = time.monotonic()
            await self._store(self._answer)

    def _take_end(self, end: GenerationEnd) -> None:
        self._answer = replace(
            self._answer,
            end=end.reason,
            tokens=len(end.token_ids),
            tokens_per_second=end.tokens_per_second,
            first_token_seconds=end.first_token_seconds,
        )

    def _send_piece(self, text: str) -> None:
        self._notify(
            ChatDelta(
                conversation=self._answer.conversation,
                message=self._answer.id,
                text=text,
                tokens=self._answer.tokens,
                tokens_per_second=self._answer.tokens_per_second,
            )
        )

    def _say_waiting(self, words: str) -> None:
        self._say(PhaseChange(phase=ChatPhase.WAITING, words=words))

    def _say(self, change: PhaseChange) -> None:
        phase, words = change.phase, change.words
        topic = (phase, words.partition(":")[0])
        if phase in (ChatPhase.RECOVERING, ChatPhase.WAITING) and topic != self._topic:
            logger.info("answer %s: %s", self._answer.id, words)
        self._topic = topic
        self._notify(
            ChatNotice(
                conversation=self._answer.conversation,
                message=self._answer.id,
                phase=phase,
                words=words,
                chain=change.chain,
                hops=change.hops,
            )
        )


async def _unless_stopped(work: Awaitable[R], stop: asyncio.Event) -> R | None:
    """The result of `work`, or None as soon as `stop` is set; then `work` is cancelled."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
