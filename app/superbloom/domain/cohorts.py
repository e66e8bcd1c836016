"""Which of several answers go round the same servers together: all, in two halves, or as they come.

A step takes about as long for many answers as for one. Where servers and client share a computer,
all answers together are fastest; where each has its own, two halves keep two of them busy. What is
the case shows only in the tokens per second, so it is tried, and tried again from time to time.
They begin together: where that is best it is so by more than where it is not.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from statistics import median

AS_THEY_COME = 0
"""Nobody waits. Other ways of going are named by their number of groups."""

TOGETHER = 1

_TRIED = (AS_THEY_COME, 2, TOGETHER)
"""From the last to be tried to the first: halves, after all went together, part them again."""

PATIENCE = 0.6
"""Who is there waits for the others of its group at most so much of the time that a round takes."""

LATENESS = 0.25
"""Who is so much of a round late is not waited for."""

GONE_ROUNDS = 3.0
GONE_SECONDS = 2.0
"""An answer that was not here for so many rounds, and so long, is over or does something else."""

LONGEST_FIRST_ROUND = 10.0
"""Seconds until one whose round was never measured is over."""

SETTLING_ROUNDS = 3
"""A way of going counts from so many rounds after its beginning."""

WINDOW_ROUNDS = 4
WINDOWS = 3
"""A trial has so many windows of so many tokens a member, of which the best counts: the first may
fall into the disorder that the change has made, and any into one that others make."""

STEADY = 1.05
MOST_WINDOWS = 12
"""The way in use is measured until two windows in a row differ by less than this, or so many."""

HOPELESS = 0.85
"""A trial ends with a window that gives less than so much of what was best before."""

WORTH = 1.05
"""Another way must give so many times the tokens per second."""

KEEP_SECONDS = 20.0
"""How long what was found is kept before it is tried again; twice as long when it was confirmed."""

LONGEST_KEEP_SECONDS = 640.0

LEARNING = 0.3


@dataclass(slots=True)
class _Member:
    """An answer: how long it takes round the ring, and whether it is here."""

    group: int
    came_at: float
    here: bool = True
    released_at: float | None = None
    away: float | None = None
    """Seconds from its release until it is back, lately."""


class Cohorts:
    """Members come with every token and wait until they are released.

    `now` is in seconds of any clock that does not go back.
    """

    def __init__(self) -> None:
        self._members: dict[Hashable, _Member] = {}
        self._trials = _Trials()
        self._split_at: float | None = None
        """When the second half may go for the first time."""

    @property
    def groups(self) -> int:
        """How members go now."""
        return self._trials.way

    def came(self, member: Hashable, now: float) -> None:
        """A member is here and waits."""
        self._forget_gone(now)
        found = self._members.get(member)
        if found is None:
            self._members[member] = _Member(self._smaller_group(), now)
            return
        found.here, found.came_at = True, now
        if found.released_at is not None:
            away = now - found.released_at
            before = away if found.away is None else found.away
            found.away = before + LEARNING * (away - before)

    def left(self, member: Hashable) -> None:
        """A member waits no more and does not come again."""
        self._members.pop(member, None)

    def released(self, now: float) -> list[Hashable]:
        """Those that go now."""
        going = [
            key
            for key, member in self._members.items()
            if member.here and self._waits_until(member, now) <= now
        ]
        for key in going:
            member = self._members[key]
            member.here, member.released_at = False, now
        if going and self._trials.note(len(going), len(self._members), self._round(), now):
            self._regroup(now)
        return going

    def look_at(self, now: float) -> float | None:
        """When `released` may give more, if nobody comes before; None if nobody waits."""
        waiting = [member for member in self._members.values() if member.here]
        return min((self._waits_until(member, now) for member in waiting), default=None)

    def _waits_until(self, member: _Member, now: float) -> float:
        """When a member that is here has waited enough for others of its group: `now` or later."""
        if self.groups == AS_THEY_COME:
            return now
        if member.group and self._split_at is not None and now < self._split_at:
            return self._split_at
        group = [other for other in self._members.values() if other.group == member.group]
        first = min(other.came_at for other in group if other.here)
        deadline = first + PATIENCE * self._round()
        late = LATENESS * self._round()
        expected = [
            other.released_at + other.away + late
            for other in group
            if not other.here and other.released_at is not None and other.away is not None
        ]
        awaited = [at for at in expected if at > now and at - late <= deadline]
        return max(now, min(deadline, max(awaited))) if awaited else now

    def _round(self) -> float:
        """Seconds that a round takes."""
        known = [member.away for member in self._members.values() if member.away is not None]
        return median(known) if known else 0.0

    def _forget_gone(self, now: float) -> None:
        for key, member in list(self._members.items()):
            away = self._round() if member.away is None else member.away
            patience = max(GONE_ROUNDS * away, GONE_SECONDS) if away else LONGEST_FIRST_ROUND
            released_at = member.released_at
            if not member.here and released_at is not None and now - released_at > patience:
                del self._members[key]

    def _regroup(self, now: float) -> None:
        """Another way begins: halves by the order in which members were here."""
        ordered = sorted(self._members.values(), key=lambda member: member.came_at)
        half = -(-len(ordered) // 2)
        for place, member in enumerate(ordered):
            member.group = int(self.groups == 2 and place >= half)
        self._split_at = now + 1.5 * self._round() if self.groups == 2 else None

    def _smaller_group(self) -> int:
        if self.groups < 2:
            return 0
        second = sum(member.group for member in self._members.values())
        return int(2 * second < len(self._members))


@dataclass(slots=True)
class _Found:
    """The best way for about so many members, and when it is to be tried again."""

    way: int
    try_at: float = 0.0
    keep_seconds: float = KEEP_SECONDS


class _Trials:
    """Compares the ways of going by the members that they release a second."""

    def __init__(self) -> None:
        self.way = TOGETHER
        self._members = 0
        self._found: dict[int, _Found] = {}
        """By the number of members in binary digits: more or fewer may go best another way."""
        self._rates: dict[int, float] = {}
        self._untried: list[int] = []
        self._counts_from: float | None = None
        """When the way in use, or this number of members, has settled."""
        self._began: float | None = None
        self._released = 0
        self._windows: list[float] = []
        """Tokens per second in each window of the present trial."""

    def note(self, released: int, members: int, round_seconds: float, now: float) -> bool:
        """So many of the members were released; True if they go another way from now on."""
        if members != self._members:
            return self._begin_with(members)
        if members < 2 or not round_seconds:
            return False
        if self._counts_from is None:
            self._counts_from = now + SETTLING_ROUNDS * round_seconds
        if self._began is None:
            self._began = now if now >= self._counts_from else None
            return False
        if not self._is_measured(released, self._began, now):
            return False
        before = self.way
        self._go_on(now)
        if self.way == before:
            return False
        self._measure_anew()
        return True

    def _is_measured(self, released: int, began: float, now: float) -> bool:
        """Count for a window that `began` then; True if it was the last of its trial."""
        self._released += released
        if self._released < WINDOW_ROUNDS * self._members:
            return False
        self._windows.append(self._released / max(now - began, 1e-9))
        self._began, self._released = now, 0
        if not self._is_clear():
            return False
        self._rates[self.way] = max(self._windows)
        self._windows.clear()
        return True

    def _is_clear(self) -> bool:
        """True if the way in use is known well enough, or to be no good."""
        last, count = self._windows[-1], len(self._windows)
        found = self._found.get(self._members.bit_length())
        if found is None or found.way == self.way:
            before = self._windows[-2] if count > 1 else 0.0
            steady = max(last, before) < STEADY * min(last, before)
            return count >= MOST_WINDOWS or (count >= WINDOWS and steady)
        return count >= WINDOWS or last < HOPELESS * self._rates.get(found.way, 0.0)

    def _begin_with(self, members: int) -> bool:
        """More or fewer go round from now on; as is known to be best for so many."""
        known = self._found.get(members.bit_length())
        before, self.way = self.way, known.way if known is not None else self.way
        if members.bit_length() != self._members.bit_length():
            self._untried.clear()
        self._members = members
        self._measure_anew()
        return self.way != before

    def _measure_anew(self) -> None:
        self._counts_from = self._began = None
        self._released = 0
        self._windows.clear()

    def _go_on(self, now: float) -> None:
        """A way was measured: try the next one, or keep the best."""
        found = self._found.setdefault(self._members.bit_length(), _Found(self.way))
        if self._untried:
            self.way = self._untried.pop()
        elif self.way != found.way:
            self.way = self._best(found, now)
        elif now >= found.try_at:
            self._rates = {self.way: self._rates[self.way]}
            self._untried = [way for way in _TRIED if way != found.way]
            self.way = self._untried.pop()

    def _best(self, found: _Found, now: float) -> int:
        rates = {
            way: rate * (WORTH if way == found.way else 1) for way, rate in self._rates.items()
        }
        best = max(rates, key=lambda way: rates[way])
        longer = min(2 * found.keep_seconds, LONGEST_KEEP_SECONDS)
        found.keep_seconds = longer if best == found.way else KEEP_SECONDS
        found.way, found.try_at = best, now + found.keep_seconds
        return best
