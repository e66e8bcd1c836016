"""A ring of servers, and a small model beside the client, played through with a clock of their own.

Windows queue at every server, and those that turned out to be wrong are computed to their end all
the same.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

from superbloom.domain.draft_pace import DraftPace
from superbloom.domain.draft_policy import DraftPolicy
from superbloom.domain.drafting import Drafter, EarlierText
from superbloom.domain.guessed_text import GuessedText, Question
from superbloom.domain.speculation import WINDOW_TOKENS, Speculation

Compute = Callable[[int], float]
"""Seconds that a window of so many tokens takes on one server."""


class Ring:
    """Servers in a ring: `links` seconds one way, the last of them back to the client."""

    def __init__(self, links: Sequence[float], compute: Compute) -> None:
        self._links, self._compute = links, compute
        self._free = [0.0] * (len(links) - 1)
        self.most_under_way = 1
        self.windows = 0

    def back_at(self, now: float, tokens: int, slower: float = 1.0) -> float:
        """When a window that is sent now comes back."""
        self.windows += 1
        for server, link in enumerate(self._links[:-1]):
            begun = max(now + link, self._free[server])
            now = self._free[server] = begun + slower * self._compute(tokens)
        return now + self._links[-1]

    def seconds(self, drafter: Drafter, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """How long the answer takes after its first token."""
        return self._written(Speculation(drafter), prompt, answer)

    def seconds_with(
        self, model: SmallModel, pace: DraftPace, prompt: Sequence[int], answer: Sequence[int]
    ) -> float:
        """The same with a small model that guesses, whose pace may be known from before."""
        policy = DraftPolicy()
        text = GuessedText(EarlierText(), pace, policy.acceptance.chance)
        model.begin(text, answer)
        return self._written(Speculation(text, policy, pace), prompt, answer, model)

    def _written(
        self,
        speculation: Speculation,
        prompt: Sequence[int],
        answer: Sequence[int],
        model: SmallModel | None = None,
    ) -> float:
        now, done = 0.0, 1
        speculation.begin(prompt)
        speculation.settle(answer[:1], now)
        under_way: deque[float] = deque()
        while done < len(answer):
            while window := speculation.next_window(len(answer) - done, now):
                assert len(window) <= WINDOW_TOKENS
                slower = model.slows if model is not None and model.is_busy else 1.0
                under_way.append(self.back_at(now, len(window), slower))
            self.most_under_way = max(self.most_under_way, len(under_way))
            if model is not None:
                model.look(now, done)
                if model.ready_at < under_way[0]:
                    now = max(now, model.ready_at)
                    model.tell()
                    continue
            now = max(now, under_way.popleft())
            written = checked(answer[done:], speculation.expected())
            done += len(written)
            if not speculation.settle(written, now):
                under_way.clear()
        return now


class SmallModel:
    """Guesses tokens, of which it gets the part `right`, as sure as it should be of each.

    `slows`: how many times the servers' time is taken while it computes.
    """

    def __init__(self, right: float, seconds: float, *, slows: float = 1.0, seed: int = 1) -> None:
        self.slows = slows
        self.ready_at = float("inf")
        self.asked = 0
        self._right, self._seconds, self._seed = right, seconds, seed
        self._question: Question | None = None
        self._place = 0

    def begin(self, text: GuessedText, answer: Sequence[int]) -> None:
        """Guess for a text that will go on with `answer`."""
        self._text = text
        chance = random.Random(self._seed)
        spread = min(self._right, 1 - self._right)
        self._beliefs = [self._right + spread * chance.uniform(-1, 1) for _ in answer]
        self._guesses = [
            token if chance.random() < belief else -1 - token
            for token, belief in zip(answer, self._beliefs, strict=True)
        ]
        self._question = None
        self.ready_at = float("inf")

    @property
    def is_busy(self) -> bool:
        """True while it computes."""
        return self._question is not None

    def look(self, now: float, done: int) -> None:
        """Begin with the next guess, if one is wanted and none under way; `done` are certain."""
        if self._question is not None:
            return
        self._question = self._text.question()
        if self._question is not None:
            self.asked += 1
            self._place = done + len(self._question.assumed)
            self.ready_at = now + self._seconds

    def tell(self) -> None:
        """The guess is ready."""
        question, self._question = self._question, None
        assert question is not None
        self.ready_at = float("inf")
        if self._place < len(self._guesses):
            self._text.answer(question, self._guesses[self._place], self._beliefs[self._place])


def checked(truth: Sequence[int], drafts: Sequence[int]) -> list[int]:
    """What the model makes of the drafts if it means to write `truth`."""
    written: list[int] = []
    for token, draft in zip(truth, (*drafts, None), strict=False):
        written.append(token)
        if token != draft:
            break
    return written
