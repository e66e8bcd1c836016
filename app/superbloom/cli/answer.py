"""One question and its answer as it comes, whatever happens on the way."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from superbloom.cli.interrupts import Terminated
from superbloom.cli.node_link import NodeLink
from superbloom.cli.terminal import Progress, progress_in_words
from superbloom.control.messages import (
    Answering,
    ChatDelta,
    ChatFinished,
    ChatNotice,
    Done,
    Event,
    ModelProgress,
    SendMessage,
    StopAnswer,
)
from superbloom.domain.conversation import Message
from superbloom.domain.errors import NodeUnreachable, SuperbloomError
from superbloom.domain.generation import ChainHop, ChatPhase
from superbloom.domain.sampling import EndReason

SEND_SECONDS = 60.0
STOP_SECONDS = 20.0
LAST_STOP_SECONDS = 3.0
"""What a program that is told to end still waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer that has ended. `failure` where it failed or somebody else stopped it."""

    answer: Message
    chain: tuple[str, ...]
    hops: tuple[ChainHop, ...]
    """More of the same servers, if it is known."""
    interrupted: bool
    """By the user's Ctrl-C."""
    failure: SuperbloomError | None


class AnswerRun:
    """Asks one question; `write` gets the text piece by piece."""

    def __init__(
        self,
        link: NodeLink,
        model: str,
        *,
        write: Callable[[str], None],
        progress: Progress,
        patience: float,
    ) -> None:
        """`patience`: seconds without any new text after which it gives up."""
        self._link = link
        self._model = model
        self._write = write
        self._progress = progress
        self._patience = patience
        self._chain: tuple[str, ...] = ()
        self._hops: tuple[ChainHop, ...] = ()
        self._text_begun = False
        self._interrupted = False
        self._news_at = time.monotonic()

    def run(self, question: SendMessage) -> Answered:
        """Ask, and follow the answer to its end. Ctrl-C stops it; a second one gives up.

        Raises what the node refuses the question with, and NodeUnreachable.
        """
        conversation = question.conversation
        self._link.listen()
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.SIG_IGN:  # as it is for what a script runs in the background
            signal.signal(signal.SIGINT, self._interrupt)
        try:
            self._link.ask(question, Answering, timeout=SEND_SECONDS)
            return self._ended(self._follow(conversation))
        except Terminated:
            with contextlib.suppress(SuperbloomError):
                self._link.ask(StopAnswer(conversation=conversation), Done, LAST_STOP_SECONDS)
            raise
        finally:
            signal.signal(signal.SIGINT, before)
            self._progress.clear()
            self._link.pause()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-C: only noted, for an exception could strike between an event and its text."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        self._link.wake()

    def _follow(self, conversation: str) -> ChatFinished:
        stopping = False
        while True:
            event = self._link.next_event()
            if self._interrupted and not stopping:
                stopping = True
                self._stop(conversation)
            if event is None:
                self._check_patience(conversation)
            elif (finished := self._take(event, conversation)) is not None:
                return finished

    def _take(self, event: Event, conversation: str) -> ChatFinished | None:
        match event:
            case ChatDelta() if event.conversation == conversation:
                self._news_at = time.monotonic()
                self._progress.clear()
                self._text_begun = True
                self._write(event.text)
            case ChatNotice() if event.conversation == conversation:
                self._chain = event.chain or self._chain
                self._hops = event.hops or self._hops
                self._tell(event)
            case ModelProgress() if event.model == self._model and not event.finished:
                self._progress.say(
                    progress_in_words(event.words, event.done_bytes, event.total_bytes)
                )
            case ChatFinished() if event.conversation == conversation:
                return event
        return None

    def _tell(self, notice: ChatNotice) -> None:
        trouble = notice.phase in (ChatPhase.RECOVERING, ChatPhase.WAITING)
        if self._text_begun and trouble:
            self._progress.note(f"\n[{notice.words}]")
        elif not self._text_begun:
            self._progress.say(notice.words)

    def _stop(self, conversation: str) -> None:
        self._news_at = time.monotonic()
        self._patience = STOP_SECONDS
        self._link.begin(StopAnswer(conversation=conversation), Done, STOP_SECONDS)

    def _check_patience(self, conversation: str) -> None:
        if time.monotonic() - self._news_at < self._patience:
            return
        if self._interrupted:
            raise NodeUnreachable("The node does not stop the answer.", "Restart it.")
        self._link.ask(StopAnswer(conversation=conversation), Done, STOP_SECONDS)
        raise SuperbloomError(
            f"No text came for {self._patience:g} s.",
            "See `superbloom status` for what is missing, or wait longer with --timeout.",
        )

    def _ended(self, finished: ChatFinished) -> Answered:
        failure = None
        if finished.error:
            failure = SuperbloomError(finished.error, finished.next_step)
        elif finished.answer.end is EndReason.STOPPED and not self._interrupted:
            failure = SuperbloomError(
                "The answer was stopped before its end.", "Ask again; the text so far is kept."
            )
        elif finished.answer.end is EndReason.FAILED:
            failure = SuperbloomError("The answer failed.")
        return Answered(
            answer=finished.answer,
            chain=self._chain,
            hops=self._hops,
            interrupted=self._interrupted,
            failure=failure,
        )
