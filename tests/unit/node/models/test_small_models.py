"""A small model is loaded in the background when it is asked for, and dropped in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from superbloom.control.messages import ModelInfo
from superbloom.node.models import small_models
from superbloom.node.models.small_models import (
    FAILURE_SECONDS,
    IDLE_SECONDS,
    RETRY_SECONDS,
    SmallModels,
    SmallModelSource,
)
from superbloom.pipeline.guessing import Guesser


class Computer:
    """What the small models ask of a node, and a clock, under the test's control."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.wanted = True
        self.loads: list[str] = []
        self.found: str | Exception | None = "small"
        monkeypatch.setattr(small_models, "_load_draft", self._load)
        self.small = SmallModels(self._models, wanted=lambda: self.wanted, clock=lambda: self.now)
        self.source = self.small.source("large", 1000)

    async def guesser(self, source: SmallModelSource | None = None) -> Guesser | None:
        """What is there after a load, if one begins."""
        source = source or self.source
        if (found := source.guesser()) is None and self.small._loading is not None:
            await self.small._loading
            found = source.guesser()
        return found

    async def _models(self) -> tuple[ModelInfo, ...]:
        return ()

    def _load(self, answering: str, models: Any) -> Any:
        self.loads.append(answering)
        if isinstance(self.found, Exception):
            raise self.found
        if self.found is None:
            return None
        model = SimpleNamespace(text=lambda vocabulary: vocabulary, threads=lambda cores: 1)
        return SimpleNamespace(id=self.found, model=model)


@pytest.fixture
async def computer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Computer]:
    made = Computer(monkeypatch)
    yield made
    await made.small.close()


async def test_asking_loads_it_without_waiting_and_only_once(computer: Computer) -> None:
    assert computer.source.guesser() is None
    assert computer.source.guesser() is None
    found = await computer.guesser()
    assert found is not None
    assert found.new_text() == 1000
    assert await computer.guesser() is found
    assert computer.loads == ["large"]


async def test_nothing_is_loaded_for_one_who_does_not_want_it(computer: Computer) -> None:
    computer.wanted = False
    assert await computer.guesser() is None
    assert not computer.loads


async def test_it_goes_when_the_user_does_not_want_it_any_more(computer: Computer) -> None:
    assert await computer.guesser()
    computer.wanted = False
    computer.small.settle()
    assert await computer.guesser() is None
    assert computer.small._loaded is None


async def test_where_there_is_none_it_is_looked_for_again_later(computer: Computer) -> None:
    computer.found = None
    assert await computer.guesser() is None
    assert await computer.guesser() is None
    assert len(computer.loads) == 1
    computer.found = "small"
    computer.now += RETRY_SECONDS
    assert await computer.guesser()


async def test_a_load_that_fails_is_logged_and_ends_nothing(
    computer: Computer, caplog: pytest.LogCaptureFixture
) -> None:
    computer.found = MemoryError()
    assert await computer.guesser() is None
    assert "no small model could be loaded" in caplog.text


async def test_one_that_failed_is_not_trusted_soon(computer: Computer) -> None:
    found = await computer.guesser()
    assert found
    computer.source.failed(found)
    computer.now += RETRY_SECONDS
    assert await computer.guesser() is None
    computer.now += FAILURE_SECONDS
    again = await computer.guesser()
    assert again
    assert again is not found


@pytest.mark.parametrize("removed", ["small", "large"])
async def test_it_goes_with_the_files_of_either_model(computer: Computer, removed: str) -> None:
    assert await computer.guesser()
    computer.small.forget(removed)
    assert computer.source.guesser() is None
    assert computer.small._loaded is None


async def test_a_model_that_is_idle_long_is_dropped(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await computer.guesser()
    computer.now += IDLE_SECONDS - 1
    computer.small._watch()
    assert await computer.guesser()
    computer.now += IDLE_SECONDS + 1
    computer.small._watch()
    assert computer.small._loaded is None
    assert await computer.guesser(), "it comes back when it is asked for"


async def test_another_model_that_answers_takes_its_place(computer: Computer) -> None:
    first = await computer.guesser()
    other = computer.small.source("other", 500)
    second = await computer.guesser(other)
    assert second is not None
    assert second is not first
    assert second.new_text() == 500
    assert computer.source.guesser() is None


async def test_what_is_known_of_the_pace_stays_with_the_model(computer: Computer) -> None:
    assert computer.small.source("large", 1000) is computer.source
    assert computer.small.source("other", 1000).pace is not computer.source.pace


async def test_an_end_while_it_loads_leaves_nothing(computer: Computer) -> None:
    assert computer.source.guesser() is None
    await asyncio.sleep(0)
    await computer.small.close()
    assert computer.small._loaded is None
    assert computer.source.guesser() is None
