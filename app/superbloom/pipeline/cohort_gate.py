"""Holds the answers of one client until their cohort is together."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from superbloom.domain.cohorts import Cohorts


class CohortGate:
    """Answers wait here before their next token is chosen. One event loop owns it."""

    def __init__(self) -> None:
        self._cohorts = Cohorts()
        self._waiting: dict[Hashable, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, member: Hashable) -> None:
        """Wait for those that should go on together with `member`, part of a round at most."""
        loop = asyncio.get_running_loop()
        self._waiting[member] = done = loop.create_future()
        self._cohorts.came(member, loop.time())
        self._look()
        try:
            await done
        except asyncio.CancelledError:
            self.leave(member)
            raise

    def leave(self, member: Hashable) -> None:
        """An answer is over: nobody waits for it any more."""
        self._waiting.pop(member, None)
        self._cohorts.left(member)
        self._look()

    def _look(self) -> None:
        """Let go who may, and look again when somebody has waited long enough."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for member in self._cohorts.released(loop.time()):
            done = self._waiting.pop(member, None)
            if done is not None and not done.done():
                done.set_result(None)
        look_at = self._cohorts.look_at(loop.time())
        if look_at is not None:
            self._timer = loop.call_at(look_at, self._look)
