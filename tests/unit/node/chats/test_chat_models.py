"""Waiting for files, swarm and own server before an answer; loading once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from announced import server_info
from superbloom.control.messages import ModelInfo
from superbloom.domain.errors import ModelNotHere
from superbloom.domain.sharing import ShareState, ShareStatus
from superbloom.node.chats import chat_models
from superbloom.node.chats.chat_models import ChatModels
from superbloom.node.models.small_models import SmallModels
from superbloom.node.swarm import Place
from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryNetwork

MODEL = "tiny"


class Surroundings:
    """What the models ask of a node, under the test's control."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = 0
        self.files = asyncio.Event()
        self.missing: Exception | None = None
        self.share = ShareStatus(state=ShareState.OFF, wanted=False)
        self.said: list[str] = []
        transport = MemoryNetwork().join()
        membership = Membership("test", b"5")
        directory = Directory(transport, membership)
        self.place = Place(
            transport=transport, membership=membership, directory=directory, host="127.0.0.1"
        )
        monkeypatch.setattr(chat_models, "_load_client_part", self._load)
        self.models = ChatModels(
            client_folder=self._folder,
            place=self._give_place,
            present=lambda: self.place,
            share=lambda: self.share,
            small=SmallModels(_no_models, wanted=lambda: True),
        )

    def ask(self) -> asyncio.Task[Any]:
        return asyncio.create_task(self.models.answerer(MODEL, self.said.append))

    def share_is(self, state: ShareState, reason: str = "", model: str = MODEL) -> None:
        self.share = ShareStatus(state=state, wanted=True, reason=reason, model=model)

    async def server_appears(self) -> None:
        await self.place.directory.announce(
            server_info(self.place.transport.peer_id, model=MODEL, fingerprint="0" * 16, blocks=4)
        )
        await self.place.directory.refresh(MODEL)

    async def until_said(self, words: str) -> None:
        async with asyncio.timeout(10):
            while words not in self.said:
                await asyncio.sleep(0.01)

    async def _folder(self, model: str, tell: Callable[[str], None]) -> Path:
        tell("Fetching the model: 1 %.")
        await self.files.wait()
        if self.missing is not None:
            raise self.missing
        return Path("/models") / model

    async def _give_place(self, tell: Callable[[str], None]) -> Place:
        return self.place

    def _load(self, model: str, folder: Path) -> Any:
        self.loads += 1
        assert folder == Path("/models") / model
        return SimpleNamespace(
            served=SimpleNamespace(blocks=4),
            in_swarm=lambda present, guesses: SimpleNamespace(present=present),
        )


async def _no_models() -> tuple[ModelInfo, ...]:
    return ()


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    return Surroundings(monkeypatch)


async def test_it_is_loaded_once_and_kept(around: Surroundings) -> None:
    around.files.set()
    around.models.warm(MODEL)
    first, second = await asyncio.gather(around.ask(), around.ask())
    assert first is second
    assert around.loads == 1


async def test_whoever_comes_later_hears_how_far_it_is(around: Surroundings) -> None:
    around.models.warm(MODEL)
    await asyncio.sleep(0)
    asking = around.ask()
    await around.until_said("Fetching the model: 1 %.")
    around.files.set()
    await asking
    assert "Loading the client's part of the model." in around.said


async def test_a_failure_is_raised_and_tried_again(around: Surroundings) -> None:
    around.files.set()
    around.missing = ModelNotHere("It is not here.")
    with pytest.raises(ModelNotHere):
        await around.ask()
    around.missing = None
    assert await around.ask()


async def test_leaving_the_wait_does_not_end_the_load(around: Surroundings) -> None:
    asking = around.ask()
    await around.until_said("Fetching the model: 1 %.")
    asking.cancel()
    around.files.set()
    await around.ask()
    assert around.loads == 1


async def test_the_own_server_is_waited_for_in_words(around: Surroundings) -> None:
    around.files.set()
    around.share_is(ShareState.LOADING, "Loading blocks 0-3: 40 %.")
    asking = around.ask()
    await around.until_said("Loading blocks 0-3: 40 %.")
    assert not asking.done()
    await around.server_appears()
    assert await asking


@pytest.mark.parametrize("state", [ShareState.OFF, ShareState.FAILED])
async def test_a_server_that_does_not_come_is_not_waited_for(
    around: Surroundings, state: ShareState
) -> None:
    around.files.set()
    around.share_is(ShareState.STARTING)
    asking = around.ask()
    await around.until_said("This computer's server is starting.")
    around.share_is(state)
    assert await asking


async def test_another_models_server_is_not_waited_for(around: Surroundings) -> None:
    around.files.set()
    around.share_is(ShareState.LOADING, model="other")
    assert await around.ask()


async def test_a_model_follows_to_another_swarm(around: Surroundings) -> None:
    around.files.set()
    first = await around.ask()
    around.place = Place(
        transport=around.place.transport,
        membership=Membership("other", b"6"),
        directory=around.place.directory,
        host="127.0.0.1",
    )
    assert await around.ask() is first
    assert first.present() is around.place
    assert around.loads == 1


async def test_a_removed_model_is_loaded_anew(around: Surroundings) -> None:
    around.files.set()
    await around.ask()
    around.models.forget(MODEL)
    await around.ask()
    assert around.loads == 2
