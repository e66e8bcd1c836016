"""A small model is asked one thing at a time, off the event loop, about the text as it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from torch import Tensor

from superbloom.domain.draft_pace import DraftPace
from superbloom.domain.drafting import NoDrafts
from superbloom.domain.sampling import SamplingSettings
from superbloom.inference.foresight import Foresight, Guess
from superbloom.pipeline.guessing import Guesser, Guessing

PROMPT = [1, 2, 3]


class Text:
    """Guesses the number of tokens that it has read; `gate` holds it up."""

    def __init__(self, gate: threading.Event) -> None:
        self.read: list[int] = []
        self.asked: list[tuple[int, ...]] = []
        self.parts = 0
        self.threads: set[str] = set()
        self._gate = gate

    def extend(self, token_ids: list[int]) -> None:
        self.read += token_ids

    def guess(self, assumed: tuple[int, ...], choose: Callable[[Tensor], Guess]) -> Guess | None:
        self._gate.wait(10)
        self.threads.add(threading.current_thread().name)
        self.asked.append(assumed)
        if self.parts:
            self.parts -= 1
            return None
        return Guess(len(self.read) + len(assumed), 0.9)


class Asker:
    """One answer's guesses; `came` counts them."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.texts: list[Text] = []
        self.pace = DraftPace()
        self.pace.on = True
        self.there: Guesser | None = Guesser(self._new_text)
        self.all = [self.there]
        self.failures = 0
        self.came = 0
        self._changed = asyncio.Event()
        foresight = Foresight(SamplingSettings(temperature=0), seed=0)
        self.guessing = Guessing(NoDrafts(), self, foresight, len(PROMPT), self._count)
        self.guessing.speculation.begin(PROMPT)

    def guesser(self) -> Guesser | None:
        return self.there

    def failed(self, guesser: Guesser) -> None:
        self.failures += 1
        self.there = None
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def _new_text(self) -> Text:
        self.texts.append(Text(self.gate))
        return self.texts[-1]

    def _count(self) -> None:
        self.came += 1
        if self.came == 4:
            self.guessing.close()
        self._changed.set()


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    made = Asker()
    yield made
    made.gate.set()
    made.guessing.close()
    for guesser in made.all:
        guesser.close()


async def test_each_guess_is_asked_for_after_the_one_before(asker: Asker) -> None:
    asker.guessing.look()
    assert asker.came == 0  # nothing is computed on the loop
    await asker.until(lambda: asker.came == 4)
    (text,) = asker.texts
    assert text.read == PROMPT
    assert text.asked == [(), (3,), (3, 4), (3, 4, 5)]
    assert threading.current_thread().name not in text.threads


async def test_it_is_asked_one_thing_at_a_time(asker: Asker) -> None:
    asker.gate.clear()
    for _ in range(3):
        asker.guessing.look()
    asker.gate.set()
    await asker.until(lambda: asker.came == 4)
    assert len(asker.texts[0].asked) == 4


async def test_a_text_that_is_read_in_parts_is_asked_again(asker: Asker) -> None:
    asker.gate.clear()
    asker.guessing.look()
    asker.texts[0].parts = 2
    asker.gate.set()
    await asker.until(lambda: asker.came == 4)
    assert asker.texts[0].asked[:4] == [(), (), (), (3,)]


async def test_what_was_written_meanwhile_is_told_with_the_next_question(asker: Asker) -> None:
    asker.gate.clear()
    asker.guessing.look()
    asker.guessing.speculation.settle([9], 0.0)
    asker.gate.set()
    await asker.until(lambda: asker.came == 4)
    assert asker.texts[0].read == [*PROMPT, 9]


async def test_another_model_hears_the_whole_text(asker: Asker) -> None:
    asker.gate.clear()
    asker.guessing.look()
    asker.there = Guesser(asker._new_text)
    asker.all.append(asker.there)
    asker.gate.set()
    await asker.until(lambda: asker.came == 4)
    assert asker.texts[1].read == PROMPT


async def test_one_that_fails_is_reported_once(
    asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(assumed: tuple[int, ...], choose: object) -> Guess | None:
        raise MemoryError("no room")

    asker.gate.clear()
    asker.guessing.look()
    asker.texts[0].guess = broken  # type: ignore[method-assign]
    asker.gate.set()
    await asker.until(lambda: asker.came == 1)
    await asker.until(lambda: asker.failures == 1)
    assert "no room" in caplog.text
    asker.guessing.look()
    assert asker.failures == 1


async def test_one_that_was_closed_is_left_in_peace(asker: Asker) -> None:
    assert asker.there
    asker.there.close()
    asker.guessing.look()
    await asyncio.sleep(0.01)
    assert (asker.came, asker.failures) == (0, 0)


async def test_after_the_end_nothing_is_asked(asker: Asker) -> None:
    asker.gate.clear()
    asker.guessing.look()
    asker.guessing.close()
    asker.gate.set()
    await asyncio.sleep(0.02)
    asker.guessing.look()
    assert asker.came == 0
    assert len(asker.texts[0].asked) <= 1
