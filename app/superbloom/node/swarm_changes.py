"""Changes of swarm: one at a time, after the first swarm has begun and until the node ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from superbloom.domain.errors import NetworkFailed

BEGIN_SECONDS = 10.0
"""How long a change waits for a swarm that is only beginning."""


class SwarmChanges:
    """Who wants to change the swarm waits here for its turn."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._begun = asyncio.Event()
        self._ended = False

    @contextlib.asynccontextmanager
    async def beginning(self) -> AsyncIterator[None]:
        """For the first change of all, or the first one after an end."""
        async with self._turn:
            self._ended = False
            yield

    def begun(self) -> None:
        """The swarm has a name and a secret from now on."""
        self._begun.set()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """For repairs. Raises NetworkFailed after the end."""
        async with self._turn:
            if self._ended:
                raise NetworkFailed("The node is ending.", "Start it again and try then.")
            yield

    @contextlib.asynccontextmanager
    async def wanted(self) -> AsyncIterator[None]:
        """For what a user asks. Raises NetworkFailed too while no swarm has begun."""
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                await self._begun.wait()
        except TimeoutError:
            raise NetworkFailed(
                "The swarm of this computer has not begun yet.",
                "Try again in a moment; if that does not help, start the node again.",
            ) from None
        async with self.turn():
            yield

    @contextlib.asynccontextmanager
    async def end(self) -> AsyncIterator[None]:
        """The last change, once the one under way is done."""
        async with self._turn:
            self._ended = True
            yield
