"""Tells a server that hangs from one that is only slow, by what a chain's servers report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from superbloom.domain.errors import ProtocolViolation, SuperbloomError
from superbloom.pipeline.chain import Chain
from superbloom.pipeline.hop_link import HopLink
from superbloom.pipeline.messages import CHUNK_TOKENS, Progress, Refused
from superbloom.pipeline.windows import Windows

STALL_SECONDS = 15.0
"""How long a server that has something to do may show no progress at all."""

STALL_SECONDS_PER_TOKEN = 0.5
"""More time for each token of the step in its hands: a slow machine may take long for a chunk."""

Report = Progress | SuperbloomError
"""What a server answers to a probe, or why it does not."""


class StallWatch:
    """What the servers of one chain said before, and since when nothing has changed."""

    def __init__(self) -> None:
        self._seen: dict[HopLink, tuple[Progress, float]] = {}

    async def lost_one(self, chain: Chain, windows: Windows) -> bool:
        """Ask every server how far it is; True if one was lost because it holds the others up."""
        links = chain.links
        reports = await asyncio.gather(*(link.report() for link in links))
        misled = first_misled(links, reports, windows.epoch)
        if misled is not None:
            chain.lose_refusing(*misled)
            return True
        now = time.monotonic()
        stalled = self.stalled(links, reports, windows.sent, now, windows.beginning)
        if stalled is not None:
            chain.lose(stalled, "It makes no progress.")
        return stalled is not None

    def stalled(
        self,
        links: Sequence[HopLink],
        reports: Sequence[Report],
        sent: int,
        now: float,
        beginning: Progress,
    ) -> HopLink | None:
        """The first link that holds the others up, if any; None while all may only be slow.

        `sent` is the position up to which the client sent steps; `now` in monotonic seconds;
        `beginning` what those would report who have got nothing of the present epoch.
        """
        seen, due = {}, sent
        for link, said in zip(links, reports, strict=True):
            if not isinstance(said, Progress):
                return link
            before = self._seen.get(link)
            since = before[1] if before is not None and before[0] == said else now
            seen[link] = (said, since)
            report = said if said.epoch >= beginning.epoch else beginning
            waiting = max(due, report.received) - report.sent
            patience = STALL_SECONDS + STALL_SECONDS_PER_TOKEN * min(waiting, CHUNK_TOKENS)
            if waiting > 0 and now - since > patience:
                return link
            due = report.sent
        self._seen = seen
        # Everything is said to have gone through: what the last one sent did not arrive.
        unheard = [link for link in links[-1:] if now - seen[link][1] > STALL_SECONDS]
        return unheard[0] if unheard and due >= sent else None


def first_misled(
    links: Sequence[HopLink], reports: Sequence[Report], epoch: int
) -> tuple[HopLink, Refused] | None:
    """The first server that is past `epoch`, the newest there is, and its case against another.

    It learned of that epoch by a step of the server before it, or it does not tell the truth.
    """
    before = ""
    for link, report in zip(links, reports, strict=True):
        if isinstance(report, Progress) and report.epoch > epoch:
            words = "It was sent steps of an epoch that the client has not begun."
            return link, Refused(
                code=ProtocolViolation.code, message=words, next_step="", blame=before
            )
        before = link.peer
    return None
