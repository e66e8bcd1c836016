"""Tells the swarm what this server is, again and again, and says goodbye at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from superbloom.domain.errors import SuperbloomError
from superbloom.domain.swarm_map import ServerInfo, load_differs
from superbloom.swarm.directory import ANNOUNCE_SECONDS, Directory

logger = logging.getLogger(__name__)

GOODBYE_SECONDS = 3.0

LOAD_SECONDS = 3.0
"""How often to look whether the load has changed so much that the swarm should hear of it now."""


class Announcer:
    """Announces what `describe()` gives: every ANNOUNCE_SECONDS, on a new load, when asked to."""

    def __init__(self, directory: Directory, describe: Callable[[], ServerInfo]) -> None:
        self._directory = directory
        self._describe = describe
        self._announced: ServerInfo | None = None
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="announcer")

    def soon(self) -> None:
        """Something has changed: announce now."""
        self._news.set()

    async def announce(self) -> None:
        """Announce once; a swarm that takes nothing is asked again later."""
        try:
            async with asyncio.timeout(ANNOUNCE_SECONDS):
                self._announced = described = self._describe()
                if not await self._directory.announce(described):
                    logger.warning("nobody in the swarm took the announcement")
        except SuperbloomError as error:
            logger.warning("the announcement was not taken: %s", error)
        except TimeoutError:
            logger.warning("the announcement did not get through")

    async def close(self) -> None:
        """Announce no more and tell the swarm that this server leaves."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._directory.goodbye(self._describe())
        except (SuperbloomError, TimeoutError) as error:
            logger.info("the goodbye was not heard: %s", error)

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                await self.announce()
                await self._until_due()
            except Exception:  # the task supervisor: what cannot be said now may be said later
                logger.exception("announcing failed")
                await self._news_within(ANNOUNCE_SECONDS)

    async def _until_due(self) -> None:
        """Wait for the next time, for `soon`, or for a load that is not what was announced."""
        due = time.monotonic() + ANNOUNCE_SECONDS
        while (left := due - time.monotonic()) > 0:
            if await self._news_within(min(LOAD_SECONDS, left)):
                return
            if self._announced is not None and load_differs(self._announced, self._describe()):
                return

    async def _news_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True
