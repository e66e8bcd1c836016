"""A small model at work for an answer: asked on a thread of its own what the drafts need next.

The event loop never waits for it. While windows are under way the next guess is made on the
assumption that all of them are right; when it has come, the answer looks whether to send it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from torch import Tensor

from superbloom.domain.draft_pace import DraftPace
from superbloom.domain.draft_policy import DraftPolicy
from superbloom.domain.drafting import Drafter
from superbloom.domain.errors import SuperbloomError
from superbloom.domain.guessed_text import GuessedText, Question
from superbloom.domain.speculation import Speculation
from superbloom.inference.device import use_threads
from superbloom.inference.foresight import Foresight, Guess

logger = logging.getLogger(__name__)


Choose = Callable[[Tensor], Guess]
"""Scores [vocabulary] in, the token to guess out."""


class ReadText(Protocol):
    """A text as a small model reads it: `inference.draft_model.DraftText`."""

    def extend(self, token_ids: list[int]) -> None:
        """The text goes on for certain with these."""
        ...

    def guess(self, assumed: tuple[int, ...], choose: Choose) -> Guess | None:
        """What follows the text and `assumed`; None if asking again reads on."""
        ...


class Guesser:
    """A small model on a thread of its own, which all answers share; they take turns.

    `new_text` begins a text on the model. One event loop owns this.
    """

    def __init__(self, new_text: Callable[[], ReadText], threads: int = 1) -> None:
        self.new_text = new_text
        self._thread = ThreadPoolExecutor(
            1, "small model", initializer=use_threads, initargs=(threads,)
        )

    def ask(
        self, text: ReadText, grown: list[int], question: Question, choose: Choose
    ) -> asyncio.Future[Guess | None]:
        """The guess that `text`, which has `grown`, gives to the question."""

        def work() -> Guess | None:
            text.extend(grown)
            return text.guess(question.assumed, choose)

        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Guess no more; what is being computed ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class GuessSource(Protocol):
    """Where an answer finds a small model. `pace` is what is known of it on this ring."""

    @property
    def pace(self) -> DraftPace:
        """Whether it pays."""
        ...

    def guesser(self) -> Guesser | None:
        """The one to ask now; None while there is none. Being asked may begin to load it."""
        ...

    def failed(self, guesser: Guesser) -> None:
        """It is of no use any more."""
        ...


class Guessing:
    """The guesses of one answer; `came` is called after each, on the event loop.

    They are of what a sampler will choose as `foresight` has it, behind a prompt of so many tokens.
    """

    def __init__(
        self,
        lookup: Drafter,
        source: GuessSource,
        foresight: Foresight,
        prompt_tokens: int,
        came: Callable[[], None],
    ) -> None:
        policy = DraftPolicy()
        self._drafts = GuessedText(lookup, source.pace, policy.acceptance.chance)
        self.speculation = Speculation(self._drafts, policy, source.pace)
        self._source = source
        self._foresight = foresight
        self._prompt_tokens = prompt_tokens
        self._came = came
        self._guesser: Guesser | None = None
        self._text: ReadText | None = None
        self._told = 0
        """So much of the certain text the small model has heard of."""
        self._asked: asyncio.Future[Guess | None] | None = None
        self._closed = False

    def look(self) -> None:
        """Ask for the next guess, if one is wanted and none is being made."""
        if self._asked is not None or self._closed:
            return
        question = self._drafts.question()
        guesser = self._source.guesser() if question is not None else None
        if question is None or guesser is None:
            return
        if guesser is not self._guesser or self._text is None:
            self._guesser, self._text, self._told = guesser, guesser.new_text(), 0
        grown = self._drafts.certain[self._told :]
        self._told += len(grown)
        place = self._told + len(question.assumed) - self._prompt_tokens
        choose = partial(self._foresight.choose, place=place)
        try:
            self._asked = guesser.ask(self._text, grown, question, choose)
        except RuntimeError:  # it was closed a moment ago
            self._guesser = self._text = None
            return
        self._asked.add_done_callback(lambda asked: self._take(question, guesser, asked))

    def close(self) -> None:
        """The answer has ended."""
        self._closed = True
        self._text = None

    def _take(
        self, question: Question, guesser: Guesser, asked: asyncio.Future[Guess | None]
    ) -> None:
        self._asked = None
        if self._closed or asked.cancelled():
            return
        if (error := asked.exception()) is not None:
            logger.warning("a model that guesses ahead failed: %s", error, exc_info=_trace(error))
            self._guesser = self._text = None
            self._source.failed(guesser)
            return
        guess = asked.result()
        if guess is not None:
            self._drafts.answer(question, guess.token, guess.belief)
            self._came()
        self.look()


def _trace(error: BaseException) -> BaseException | None:
    return None if isinstance(error, SuperbloomError | MemoryError) else error
