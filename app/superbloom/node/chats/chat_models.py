"""Models that answer: the client's part loaded once a model, joined to the swarm of the moment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from superbloom.domain.sharing import ShareState, ShareStatus
from superbloom.domain.swarm_map import coverage
from superbloom.node.chats.answer import Answerer
from superbloom.node.daemon_thread import in_daemon_thread
from superbloom.node.models.small_models import SmallModels
from superbloom.node.swarm import Place
from superbloom.swarm.directory import Directory

if TYPE_CHECKING:
    from superbloom.node.chats.client_part import ClientPart
    from superbloom.pipeline.remote_model import RemoteModel

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.05
"""Seconds between looks whether the own server has come as far as to be useful."""

BEGINNING = frozenset({ShareState.STARTING, ShareState.LOADING, ShareState.RESTARTING})
"""States of the own share in which it is worth waiting for."""


class ChatModels:
    """`node.chats.answer.Answerers` over the files here, the swarm and the own share."""

    def __init__(
        self,
        *,
        client_folder: Callable[[str, Callable[[str], None]], Awaitable[Path]],
        place: Callable[[Callable[[str], None]], Awaitable[Place]],
        present: Callable[[], Place | None],
        share: Callable[[], ShareStatus],
        small: SmallModels,
    ) -> None:
        """`client_folder` waits for the client's files; `place` for the swarm. Both raise.

        `present` is the place of the moment, which changes with the swarm. `small` are the models
        that guess ahead.
        """
        self._client_folder = client_folder
        self._place = place
        self._present = present
        self._share = share
        self._small = small
        self._parts: dict[str, _Loading] = {}
        self._remote: dict[str, RemoteModel] = {}

    def warm(self, model: str) -> None:
        """Begin to load the client's part of `model`, so that its first answer is quick."""
        self._loading(model)

    async def warmed(self, model: str) -> None:
        """Wait until the client's part of `model` is loaded, or has failed to."""
        await asyncio.wait({self._loading(model).task})

    def forget(self, model: str) -> None:
        """The model's files have changed or are gone."""
        loading = self._parts.pop(model, None)
        if loading is not None:
            loading.task.cancel()
        self._remote.pop(model, None)  # an answer that runs keeps its own
        self._small.forget(model)

    async def answerer(self, model: str, tell: Callable[[str], None]) -> Answerer:
        """As `node.chats.answer.Answerers` has it."""
        loading = self._loading(model)
        with loading.heard_by(tell):
            part = await asyncio.shield(loading.task)
        place = await self._place(tell)
        await self._wait_for_own_server(model, part.served.blocks, place.directory, tell)
        if model not in self._remote:
            self._remote[model] = part.in_swarm(self._present, self._small.source)
        return self._remote[model]

    async def close(self) -> None:
        """Free what is loaded. Answers must have ended."""
        tasks = [loading.task for loading in self._parts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for remote in self._remote.values():
            await remote.close()
        await self._small.close()

    def _loading(self, model: str) -> _Loading:
        """The load of `model` that is under way or done; a failed one is tried again."""
        found = self._parts.get(model)
        if found is None or found.failed():
            found = _Loading(lambda tell: self._load(model, tell), f"client part of {model}")
            self._parts[model] = found
        return found

    async def _load(self, model: str, tell: Callable[[str], None]) -> ClientPart:
        folder = await self._client_folder(model, tell)
        tell("Loading the client's part of the model.")
        return await in_daemon_thread(lambda: _load_client_part(model, folder), name="client part")

    async def _wait_for_own_server(
        self, model: str, blocks: int, directory: Directory, tell: Callable[[str], None]
    ) -> None:
        """While blocks are missing and the own share is on its way, wait and say how far it is."""
        said = ""
        while not all(coverage(directory.servers(model), blocks)):
            status = self._share()
            if status.model != model or status.state not in BEGINNING:
                await directory.refresh(model)  # what is missing still, the answer will say
                return
            words = status.reason or "This computer's server is starting."
            if words != said:
                said = words
                tell(words)
            await asyncio.sleep(LOOK_EVERY)


class _Loading:
    """One load under way; several answers may wait for it and hear how far it is."""

    def __init__(
        self, load: Callable[[Callable[[str], None]], Coroutine[None, None, ClientPart]], name: str
    ) -> None:
        self._words = ""
        self._hearers: list[Callable[[str], None]] = []
        self.task = asyncio.create_task(load(self._tell), name=name)
        self.task.add_done_callback(_log_failure)

    def failed(self) -> bool:
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)

    @contextlib.contextmanager
    def heard_by(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Tell the last words and every later one."""
        if self._words and not self.task.done():
            tell(self._words)
        self._hearers.append(tell)
        try:
            yield
        finally:
            self._hearers.remove(tell)

    def _tell(self, words: str) -> None:
        self._words = words
        for tell in self._hearers:
            tell(words)


def _log_failure(task: asyncio.Task[ClientPart]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("the client's part of a model could not be loaded: %s", error)


def _load_client_part(model: str, folder: Path) -> ClientPart:
    from superbloom.node.chats.client_part import load_client_part  # noqa: PLC0415 (imports torch)

    return load_client_part(model, folder)
