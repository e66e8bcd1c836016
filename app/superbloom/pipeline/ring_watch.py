"""Notices that a chain is slower than its servers say, and finds out which of them it is."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from statistics import median

from superbloom.domain.chain_time import Hop
from superbloom.domain.observed import is_fine, is_slow
from superbloom.pipeline.chain_planner import ChainPlanner
from superbloom.pipeline.hop_link import HopLink
from superbloom.pipeline.messages import Progress, Result
from superbloom.pipeline.ring_profile import RingProfile

log = logging.getLogger(__name__)

STEPS = 16
"""A chain is judged by the median of so many steps."""

MOST_TOKENS = 16
"""Longer steps are parts of prompts, which say nothing about the ring's time."""

MOST_UNDER_WAY = 256

LOOKS = 24
"""How often the servers are asked where the steps are."""

FEWEST_LOOKS = 10
"""Fewer say nothing."""

LOOK_AGAIN_SECONDS = 60.0
"""How long nobody is asked again after that."""

PAUSES = (0.31, 0.73, 0.47, 0.89, 0.61)
"""Between two looks, as parts of a step's time: not in time with the steps."""

LONGEST_PAUSE = 2.0


class RingWatch:
    """The watch over one chain; `close` it with the chain."""

    def __init__(self, planner: ChainPlanner) -> None:
        self._planner = planner
        self._links: tuple[HopLink, ...] = ()
        self._under_way: deque[tuple[int, int, float]] = deque(maxlen=MOST_UNDER_WAY)
        """Epoch and end of the steps that were sent, and when."""
        self._arrived_at = 0.0
        self._passed: list[tuple[float, int]] = []
        self._count = 0
        self._looking: asyncio.Task[None] | None = None
        self._looked_at: float | None = None

    def sent(self, epoch: int, end: int) -> None:
        """The client is about to send a step up to position `end`."""
        self._under_way.append((epoch, end, time.monotonic()))

    def arrived(self, links: tuple[HopLink, ...], result: Result) -> None:
        """A step has come back through all of `links`.

        Its time counts from when the one before it came back: what it waited for that one is not
        the servers' slowness.
        """
        now, before = time.monotonic(), self._arrived_at
        self._arrived_at = now
        sent_at = self._take_sent(result)
        tokens = result.end - result.position
        if links != self._links:
            self._links, self._looked_at = links, None
            self._passed.clear()
        if sent_at is None or tokens > MOST_TOKENS:
            return
        self._count += 1
        self._passed.append((now - max(sent_at, before), tokens))
        if len(self._passed) == STEPS:
            self._judge()
            self._passed.clear()

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _take_sent(self, result: Result) -> float | None:
        """When the step of `result` was sent; older ones, which were retracted, are forgotten."""
        while self._under_way:
            epoch, end, sent_at = self._under_way.popleft()
            if (epoch, end) == (result.epoch, result.end):
                return sent_at
        return None

    def _judge(self) -> None:
        taken = median(seconds for seconds, _ in self._passed)
        tokens = round(median(tokens for _, tokens in self._passed))
        expected = self._planner.announced_seconds(_hops(self._links), tokens)
        if expected is None:
            return
        if is_fine(taken, expected):
            self._planner.forgive(link.peer for link in self._links)
        if is_slow(taken, expected) and self._may_look():
            looking = self._look(self._links, taken, tokens)
            self._looking = asyncio.create_task(looking, name="look at a ring")

    def _may_look(self) -> bool:
        if self._looking is not None and not self._looking.done():
            return False
        before = self._looked_at
        return before is None or time.monotonic() - before > LOOK_AGAIN_SECONDS

    async def _look(self, links: tuple[HopLink, ...], taken: float, tokens: int) -> None:
        """Ask the servers again and again where the steps are, and note who holds them long.

        What is seen counts when a step has come back after it: an answer may end at any time.
        """
        profile, waiting = RingProfile(len(links)), list[list[Progress]]()
        count = self._count
        for pause in itertools.islice(itertools.cycle(PAUSES), LOOKS):
            await asyncio.sleep(min(pause * taken, LONGEST_PAUSE))
            if self._count != count:
                count = self._count
                for reports in waiting:
                    profile.add(reports)
                waiting.clear()
            if self._under_way:
                found = await asyncio.gather(*(link.report() for link in links))
                waiting.append([report for report in found if isinstance(report, Progress)])
                if len(waiting[-1]) < len(links):
                    return
            if links != self._links:
                return
        if profile.looks >= FEWEST_LOOKS:
            self._conclude(links, profile, taken, tokens)

    def _conclude(
        self, links: tuple[HopLink, ...], profile: RingProfile, taken: float, tokens: int
    ) -> None:
        self._looked_at = time.monotonic()
        seconds = [share * taken for share in profile.shares()]
        for peer in self._planner.observe(_hops(links), seconds, tokens):
            log.info("Server %s is slower than it says.", self._planner.name_of(peer))


def _hops(links: Sequence[HopLink]) -> tuple[Hop, ...]:
    return tuple(Hop(link.peer, link.blocks) for link in links)
