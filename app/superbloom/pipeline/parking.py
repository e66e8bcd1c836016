"""Sessions kept between turns, so that a next turn computes only what is new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from superbloom.domain.generation import PhaseChange
from superbloom.pipeline.session import ChainSession

PARKED_SESSIONS = 4
"""Sessions kept at most, the last used ones."""

PARKED_SECONDS = 600.0
"""How long a session is kept."""

WORTH_TOKENS = 16
"""A session that shares fewer tokens with a prompt is not taken up again."""


class Parking:
    """The parked sessions of one model's client."""

    def __init__(self) -> None:
        self._parked: dict[ChainSession, asyncio.TimerHandle] = {}
        self._farewells: set[asyncio.Task[None]] = set()

    async def leave(self, session: ChainSession) -> None:
        """Keep a session whose answer is complete, or close it if it is of no more use."""
        if not await session.park():
            await session.close()
            return
        loop = asyncio.get_running_loop()
        self._parked[session] = loop.call_later(PARKED_SECONDS, self._expire, session)
        while len(self._parked) > PARKED_SESSIONS:
            self._expire(next(iter(self._parked)))

    async def take(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        notify: Callable[[PhaseChange], None],
        *,
        exact: bool = False,
    ) -> tuple[ChainSession, int] | None:
        """The session that shares most with `prompt`, taken up again, and how much it shares.

        At least the prompt's last token is left to compute. If `exact`, only one whose tokens were
        not rounded on their way.
        """
        while fit := [session for session in self._parked if session.exact or not exact]:
            shared = {s: s.shared_prefix(prompt[:-1]) for s in fit}
            best = max(shared, key=lambda session: shared[session])
            if shared[best] < WORTH_TOKENS:
                return None
            self._parked.pop(best).cancel()
            resumed = False
            try:
                resumed = await best.resume(shared[best], max_tokens, notify)
            finally:
                if not resumed:
                    await best.close()
            if resumed:
                return best, shared[best]
        return None

    async def close(self) -> None:
        """Close all of them."""
        for session in list(self._parked):
            self._expire(session)
        await asyncio.gather(*self._farewells, return_exceptions=True)

    def _expire(self, session: ChainSession) -> None:
        self._parked.pop(session).cancel()
        task = asyncio.create_task(session.close(), name="close a parked session")
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)
