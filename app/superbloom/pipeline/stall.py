"""Tells a server that hangs from one that is only slow, by what a chain's servers report."""

from __future__ import annotations

from collections.abc import Sequence

from superbloom.domain.errors import SuperbloomError
from superbloom.pipeline.hop_link import HopLink
from superbloom.pipeline.messages import CHUNK_TOKENS, Progress

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

    def stalled(
        self, links: Sequence[HopLink], reports: Sequence[Report], sent: int, now: float
    ) -> HopLink | None:
        """The first link that holds the others up, if any; None while all may only be slow.

        `sent` is the position up to which the client sent steps; `now` in monotonic seconds.
        """
        seen, due = {}, sent
        for link, report in zip(links, reports, strict=True):
            if not isinstance(report, Progress):
                return link
            before = self._seen.get(link)
            since = before[1] if before is not None and before[0] == report else now
            seen[link] = (report, since)
            waiting = max(due, report.received) - report.sent
            patience = STALL_SECONDS + STALL_SECONDS_PER_TOKEN * min(waiting, CHUNK_TOKENS)
            if waiting > 0 and now - since > patience:
                return link
            due = report.sent
        self._seen = seen
        # Everything is said to have gone through: what the last one sent did not arrive.
        unheard = [link for link in links[-1:] if now - seen[link][1] > STALL_SECONDS]
        return unheard[0] if unheard and due >= sent else None
