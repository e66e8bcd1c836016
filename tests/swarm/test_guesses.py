"""A small model's guesses, right or wrong, change no token, and its failure ends no answer."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from superbloom.domain.conversation import ChatTurn, Role
from superbloom.domain.draft_pace import DraftPace
from superbloom.domain.generation import ChatPhase, GenerationEnd
from superbloom.domain.sampling import SamplingSettings
from superbloom.inference.draft_model import DraftModel
from superbloom.inference.foresight import Guess
from superbloom.inference.tokenizer import ChatTokenizer
from superbloom.pipeline.guessing import Choose, Guesser, ReadText
from test_real_models import RealSwarm
from toy_model import toy_continuation
from toy_swarm import BLOCKS, GREEDY, Asked, ToySwarm

PROMPT = [5, 17, 3, 44, 9]
COUNT = GREEDY.max_tokens


class AlwaysOn(DraftPace):
    """A small model is at work, whatever it costs."""

    def __init__(self) -> None:
        super().__init__()
        self.on = True

    def note_guessed(self, tokens: int, seconds: float) -> None:
        pass

    def note_single(self, seconds: float) -> None:
        pass


class Source:
    """Small models of the test's making, one after the other as they fail."""

    def __init__(self, *guessers: Guesser) -> None:
        self.pace: DraftPace = AlwaysOn()
        self.left = list(guessers)
        self.made = guessers

    def guesser(self) -> Guesser | None:
        return self.left[0] if self.left else None

    def failed(self, guesser: Guesser) -> None:
        self.left.remove(guesser)

    def close(self) -> None:
        for guesser in self.made:
            guesser.close()


class ToyGuesses:
    """Reads a text of the toy model and knows how it goes on, but for the tokens `wrong_at`."""

    def __init__(self, answer: Sequence[int], wrong_at: Sequence[int], seconds: float) -> None:
        self._known = [*PROMPT, *answer]
        self._wrong_at = {len(PROMPT) + place for place in wrong_at}
        self._seconds = seconds
        self._read = 0

    def extend(self, token_ids: list[int]) -> None:
        self._read += len(token_ids)

    def guess(self, assumed: tuple[int, ...], choose: Choose) -> Guess | None:
        time.sleep(self._seconds)
        place = self._read + len(assumed)
        if place >= len(self._known):
            raise ValueError("nobody needs what comes after the end")
        token = self._known[place]
        return Guess((token + 1) % 49 + 1 if place in self._wrong_at else token, 0.9)


def toy(answer: Sequence[int], wrong_at: Sequence[int] = (), seconds: float = 0.0) -> Source:
    return Source(Guesser(lambda: ToyGuesses(answer, wrong_at, seconds)))


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    yield toys
    if isinstance(toys.model._guesses, Source):
        toys.model._guesses.close()
    await toys.close()


def whole(count: int = COUNT) -> list[int]:
    return toy_continuation(PROMPT, count, BLOCKS)


@pytest.mark.parametrize("seconds", [0.0, 0.003])
@pytest.mark.parametrize("cuts", [(), (2, 4)])
@pytest.mark.parametrize("wrong", [[], [2], [3, 4, 5, 11], [*range(0, 30, 4)], [*range(30)]])
async def test_guesses_wrong_anywhere_change_no_token(
    swarm: ToySwarm, wrong: list[int], cuts: tuple[int, ...], seconds: float
) -> None:
    for start, end in itertools.pairwise((0, *cuts, BLOCKS)):
        swarm.add(f"server-{start}", start, end, step_seconds=0.002)
    swarm.model._guesses = toy(whole(80), wrong, seconds)
    asked = Asked(swarm.model, PROMPT)
    end = await asked.end()
    assert list(end.token_ids) == asked.written == whole()
    assert wrong or seconds or end.accepted > 5
    assert end.accepted == 0 or len(wrong) < COUNT


async def test_guesses_are_sent_while_windows_are_under_way(swarm: ToySwarm) -> None:
    """Each takes a third of the ring's time, so it would be slow to wait for them."""
    swarm.add("a", 0, 3, step_seconds=0.02)
    swarm.add("b", 3, BLOCKS, step_seconds=0.02)
    swarm.model._drafts = False
    plain = await Asked(swarm.model, PROMPT).end()
    swarm.model._drafts = True
    swarm.model._guesses = toy(whole(80), seconds=0.012)
    guessed = await Asked(swarm.model, PROMPT).end()
    assert guessed.token_ids == plain.token_ids
    assert guessed.tokens_per_second > 1.4 * plain.tokens_per_second


async def test_a_next_turn_takes_up_the_session_that_had_guesses_under_way(
    swarm: ToySwarm,
) -> None:
    server = swarm.add("a", 0, BLOCKS, step_seconds=0.002)
    swarm.model._guesses = toy(whole(80))
    prompt = [*PROMPT, *whole(20)]
    await Asked(swarm.model, PROMPT, SamplingSettings(temperature=0, max_tokens=20)).end()
    await asyncio.sleep(0.02)
    before = server.executor.tokens
    swarm.model._drafts = False
    sampling = SamplingSettings(temperature=0, max_tokens=3)
    end = await Asked(swarm.model, [*prompt, 7], sampling).end()
    assert list(end.token_ids) == toy_continuation([*prompt, 7], 3, BLOCKS)
    assert server.executor.tokens - before <= 5


async def test_a_server_lost_with_guesses_under_way_changes_no_token(swarm: ToySwarm) -> None:
    for index, name in enumerate(["first", "middle", "last"]):
        swarm.add(name, index * 2, index * 2 + 2, step_seconds=0.002)
        swarm.add(f"{name} twin", index * 2, index * 2 + 2, announced_step_seconds=0.1)
    swarm.model._guesses = toy(whole(99), range(5, 60, 7), seconds=0.001)
    asked = Asked(swarm.model, PROMPT, SamplingSettings(temperature=0, max_tokens=60))
    await asked.until(tokens=8)
    swarm.servers["middle"].executor.hold.clear()
    await asyncio.sleep(0.05)
    swarm.kill("middle")
    async with asyncio.timeout(10):
        assert list((await asked.end()).token_ids) == asked.written == whole(60)
    assert ChatPhase.RECOVERING in asked.phases


async def test_a_model_that_fails_is_left_and_another_goes_on(
    swarm: ToySwarm, caplog: pytest.LogCaptureFixture
) -> None:
    swarm.add("a", 0, BLOCKS, step_seconds=0.003)
    ends_early = Guesser(lambda: ToyGuesses(whole(10), (), 0.0))
    source = Source(ends_early, Guesser(lambda: ToyGuesses(whole(80), (), 0.0)))
    swarm.model._guesses = source
    end = await Asked(swarm.model, PROMPT).end()
    assert list(end.token_ids) == whole()
    assert source.left == [source.made[1]]
    assert "nobody needs" in caplog.text
    assert end.accepted > 10


async def test_a_model_that_is_dropped_is_asked_no_more(swarm: ToySwarm) -> None:
    swarm.add("a", 0, BLOCKS, step_seconds=0.003)
    source = toy(whole(80))
    swarm.model._guesses = source
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=5)
    source.close()
    assert list((await asked.end()).token_ids) == whole()


async def test_a_stop_leaves_nothing_behind(swarm: ToySwarm) -> None:
    swarm.add("a", 0, BLOCKS, step_seconds=0.005)
    swarm.model._guesses = toy(whole(600))
    asked = Asked(swarm.model, PROMPT, SamplingSettings(temperature=0, max_tokens=500))
    await asked.until(tokens=20)
    asked.stop.set()
    end = await asked.end()
    assert list(end.token_ids) == whole(500)[: len(end.token_ids)]
    assert all(toy.executor.open_sessions == 0 for toy in swarm.servers.values())


# --- the starter as its own small model -----------------------------------------------------


class HeardText:
    """A small model's text; `guesses` keeps what it guessed to follow which tokens."""

    def __init__(self, text: ReadText, guesses: dict[tuple[int, ...], int]) -> None:
        self._text = text
        self._guesses = guesses
        self._certain: list[int] = []

    def extend(self, token_ids: list[int]) -> None:
        self._certain += token_ids
        self._text.extend(token_ids)

    def guess(self, assumed: tuple[int, ...], choose: Choose) -> Guess | None:
        found = self._text.guess(assumed, choose)
        if found is not None:
            self._guesses[*self._certain, *assumed] = found.token
        return found


@pytest.mark.starter
@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "at 0.8"])
async def test_the_starter_guesses_for_itself(starter_folder: Path, temperature: float) -> None:
    """The same text as without guesses, and most of what is guessed to follow it is right.

    How many drafts are sent that follow a wrong one is a matter of time, and not asked.
    """
    tokenizer = ChatTokenizer.load(starter_folder)
    prompt = tokenizer.render([ChatTurn(Role.USER, "Write a story about a lighthouse keeper.")])
    swarm = RealSwarm(starter_folder, 30)
    swarm.network.default_delay = 0.04  # without delay it rightly does not pay
    for start in (0, 15):
        swarm.add(f"server-{start}", start, start + 15)
    sampling = SamplingSettings(temperature=temperature, seed=7, max_tokens=32)

    async def written(drafts: bool) -> GenerationEnd:
        swarm.model._drafts = drafts
        events = swarm.model.continue_tokens(prompt, sampling, asyncio.Event())
        *_, end = [event async for event in events]
        assert isinstance(end, GenerationEnd)
        return end

    try:
        plain = await written(drafts=False)
        draft = DraftModel.load(starter_folder)
        heard: dict[tuple[int, ...], int] = {}
        source = Source(Guesser(lambda: HeardText(draft.text(49152), heard), draft.threads(2)))
        swarm.model._guesses = source
        guessed = await written(drafts=True)
        assert guessed.token_ids == plain.token_ids
        assert guessed.accepted > 5
        text = (*prompt, *plain.token_ids)
        places = [at for at in range(len(prompt), len(text)) if text[:at] in heard]
        right = [at for at in places if heard[text[:at]] == text[at]]
        assert len(places) > 5
        assert len(right) >= 0.6 * len(places), f"{len(right)} of {len(places)}"
    finally:
        source.close()
        await swarm.close()
