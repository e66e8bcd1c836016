"""Where the steps of a chain are, by what its servers report: the share of the time at each one."""

from __future__ import annotations

from collections.abc import Sequence

from superbloom.pipeline.messages import Progress


class RingProfile:
    """Counts looks at a chain of `servers` servers, each taken while a step was under way."""

    def __init__(self, servers: int) -> None:
        self._held = [0.0] * servers
        self.looks = 0

    def add(self, reports: Sequence[Progress]) -> None:
        """A look: one report of every server, in the chain's order.

        A step that a server says it has sent, and the next one has not received, counts as the
        sender's: it is slow to send, or says what is not true. One that nobody has is between the
        last server and the first.
        """
        self.looks += 1
        last = len(reports) - 1
        holders = [i for i in range(last + 1) if _holds(reports, i)] or [last]
        for index in holders:
            self._held[index] += 1 / len(holders)

    def shares(self) -> tuple[float, ...]:
        """The part of the time that steps are at each server or on their way from it."""
        return tuple(held / max(1, self.looks) for held in self._held)


def _holds(reports: Sequence[Progress], index: int) -> bool:
    here, following = reports[index], reports[index + 1 : index + 2]
    on_its_way = any((f.epoch, f.received) < (here.epoch, here.sent) for f in following)
    return here.received > here.sent or on_its_way
