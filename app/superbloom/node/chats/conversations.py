"""The conversation store, used from the event loop: one thread of its own touches the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from superbloom.domain.conversation import Conversation, Message
from superbloom.storage.conversations import ConversationStore

P = ParamSpec("P")
R = TypeVar("R")


class Conversations:
    """ConversationStore's verbs, awaited. Nothing runs after `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="conversations")
        self._opened: ConversationStore | None = None

    async def problem(self) -> str:
        """A sentence for the user if the old file was damaged, else empty."""
        return await self._do(lambda: self._store().problem)

    async def all(self) -> tuple[Conversation, ...]:
        """Every conversation, newest first."""
        return tuple(await self._do(lambda: self._store().conversations()))

    async def head(self, conversation: str) -> Conversation:
        """A conversation's head line. Raises InputRejected when there is none of this id."""
        return (await self.transcript(conversation))[0]

    async def transcript(self, conversation: str) -> tuple[Conversation, tuple[Message, ...]]:
        """The head line and the shown path, oldest first. Raises InputRejected."""
        return await self._do(lambda: self._store().transcript(conversation))

    async def create(self, conversation: Conversation) -> None:
        await self._do(lambda: self._store().create(conversation))

    async def rename(self, conversation: str, title: str) -> None:
        await self._do(lambda: self._store().rename(conversation, title))

    async def delete(self, conversation: str) -> None:
        await self._do(lambda: self._store().delete(conversation))

    async def add(self, message: Message) -> None:
        await self._do(lambda: self._store().add_message(message))

    async def update(self, message: Message) -> None:
        await self._do(lambda: self._store().update_message(message))

    async def close(self) -> None:
        """Write what is under way and close the database."""
        await self._do(self._close_store)
        self._thread.shutdown(wait=True)

    async def _do(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _store(self) -> ConversationStore:
        if self._opened is None:
            self._opened = ConversationStore(self._path)
        return self._opened

    def _close_store(self) -> None:
        if self._opened is not None:
            self._opened.close()
