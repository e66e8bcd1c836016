"""Which answers go together, on a simulated ring of two servers and the client's head."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.cohorts import (
    AS_THEY_COME,
    MOST_WINDOWS,
    PATIENCE,
    SETTLING_ROUNDS,
    TOGETHER,
    WINDOW_ROUNDS,
    Cohorts,
    _Trials,
)

Going = Callable[[], None]


@dataclass
class Clock:
    now: float = 0.0
    coming: list[tuple[float, int, Going]] = field(default_factory=list)
    numbers: itertools.count = field(default_factory=itertools.count)

    def at(self, when: float, what: Going) -> None:
        heapq.heappush(self.coming, (when, next(self.numbers), what))

    def run(self, until: float) -> None:
        while self.coming and self.coming[0][0] <= until:
            self.now, _, what = heapq.heappop(self.coming)
            what()
        self.now = until


class Computer:
    """Does one thing after the other, for as many as wait at that moment."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stages: list[Stage] = []
        self.busy = False

    def look(self) -> None:
        ready = next((stage for stage in self.stages if stage.waiting), None)
        if self.busy or ready is None:
            return
        self.busy = True
        self.stages.remove(ready)
        self.stages.append(ready)  # in turn
        taken, ready.waiting = ready.waiting, []
        self.clock.at(self.clock.now + ready.seconds(len(taken)), lambda: self.end(ready, taken))

    def end(self, stage: Stage, taken: list[int]) -> None:
        self.busy = False
        for member in taken:
            stage.pass_on(member)
        self.look()


class Stage:
    def __init__(self, computer: Computer, base: float, each: float, link: float) -> None:
        self.computer, self.base, self.each, self.link = computer, base, each, link
        self.waiting: list[int] = []
        self.following: Callable[[int], None]
        computer.stages.append(self)

    def seconds(self, count: int) -> float:
        return self.base + self.each * count

    def take(self, member: int) -> None:
        self.waiting.append(member)
        self.computer.clock.at(self.computer.clock.now + 0.0005, self.computer.look)

    def pass_on(self, member: int) -> None:
        clock = self.computer.clock
        clock.at(clock.now + self.link, lambda: self.following(member))


def fix(cohorts: Cohorts, way: int) -> None:
    """Members go this way, whatever it gives."""
    cohorts._trials.note = lambda *_: False  # type: ignore[method-assign]
    cohorts._trials.way = way


class Ring:
    """`members` answers through two servers; `way` is fixed, or found by the cohorts."""

    def __init__(self, *, shared: bool, members: int, link: float = 0.001, way: int | None = None):
        self.clock = Clock()
        self.tokens = 0
        self.cohorts = Cohorts()
        if way is not None:
            fix(self.cohorts, way)
        one = Computer(self.clock)
        places = [one] * 3 if shared else [Computer(self.clock) for _ in range(3)]
        first, second = (Stage(place, 0.02, 0.001, link) for place in places[:2])
        head = Stage(places[2], 0.004, 0.0005, link)
        first.following, second.following = second.take, self.back
        self.first, self.head = first, head
        head.following = first.take
        for member in range(members):
            self.clock.at(0.013 * member, lambda member=member: self.back(member))

    def back(self, member: int) -> None:
        self.cohorts.came(member, self.clock.now)
        self.look()

    def look(self) -> None:
        for member in self.cohorts.released(self.clock.now):
            self.tokens += 1
            self.head.take(member)  # type: ignore[arg-type]
        when = self.cohorts.look_at(self.clock.now)
        if when is not None:
            self.clock.at(max(when, self.clock.now + 1e-6), self.look)

    def rate(self, begin: float, end: float) -> float:
        self.clock.run(begin)
        before = self.tokens
        self.clock.run(end)
        return (self.tokens - before) / (end - begin)


@pytest.mark.parametrize("members", [2, 4, 8])
@pytest.mark.parametrize("link", [0.001, 0.03])
@pytest.mark.parametrize("shared", [True, False])
def test_the_best_way_is_found(shared, link, members):
    fixed = {
        way: Ring(shared=shared, members=members, link=link, way=way).rate(5, 20)
        for way in (AS_THEY_COME, 1, 2)
    }
    ring = Ring(shared=shared, members=members, link=link)
    found = ring.rate(10, 120)
    assert found >= 0.93 * max(fixed.values())
    assert found >= 0.95 * fixed[AS_THEY_COME]


def test_who_is_alone_never_waits() -> None:
    cohorts = Cohorts()
    for turn in range(200):
        cohorts.came("a", turn * 0.1)
        assert cohorts.released(turn * 0.1) == ["a"]
        assert cohorts.look_at(turn * 0.1) is None


def test_one_that_left_is_not_waited_for() -> None:
    cohorts = Cohorts()
    fix(cohorts, 1)
    for turn in range(5):
        cohorts.came("a", turn * 1.0)
        cohorts.came("b", turn * 1.0)
        assert cohorts.released(turn * 1.0) == ["a", "b"]
    cohorts.came("a", 4.9)
    assert cohorts.released(4.9) == []
    cohorts.left("b")
    assert cohorts.released(4.9) == ["a"]


@given(
    st.sampled_from([1, 2]),
    st.lists(st.lists(st.floats(0.01, 3.0), min_size=30, max_size=30), min_size=2, max_size=6),
)
def test_nobody_waits_longer_than_part_of_a_round(way: int, rounds: list[list[float]]) -> None:
    """Whatever the others do; a round is what the members' rounds took lately, in the middle."""
    clock, cohorts = Clock(), Cohorts()
    fix(cohorts, way)
    waits: list[tuple[float, float]] = []
    came: dict[int, tuple[float, float]] = {}

    def come(member: int) -> None:
        cohorts.came(member, clock.now)
        came[member] = (clock.now, cohorts._round())
        look()

    def look() -> None:
        while going := cohorts.released(clock.now):
            for member in going:
                since, longest = came.pop(member)
                waits.append((clock.now - since, longest))
                if rounds[member]:
                    again = clock.now + rounds[member].pop()
                    clock.at(again, lambda member=member: come(member))
                else:
                    cohorts.left(member)  # may end the others' wait
        for member, (since, longest) in came.items():
            came[member] = (since, max(longest, cohorts._round()))
        when = cohorts.look_at(clock.now)
        if when is not None:
            assert when > clock.now
            clock.at(when, look)

    for member in range(len(rounds)):
        clock.at(0.1 * member, lambda member=member: come(member))
    clock.run(1000.0)
    assert not came
    assert len(waits) == 31 * len(rounds)
    assert all(wait <= PATIENCE * longest + 1e-6 for wait, longest in waits)


def test_what_is_best_for_so_many_is_remembered() -> None:
    trials, now = _Trials(), 0.0

    def go_round(members: int, times: int, best: int) -> None:
        nonlocal now
        for _ in range(times):
            seconds = 0.1 if trials.way == best else 0.15
            now += seconds
            trials.note(members, members, seconds, now)

    go_round(8, 100, best=1)
    assert trials.way == 1
    go_round(2, 100, best=AS_THEY_COME)
    assert trials.way == AS_THEY_COME
    go_round(7, 1, best=1)
    go_round(8, 1, best=1)
    assert trials.way == 1


def test_a_hopeless_trial_ends_early() -> None:
    trials, now, gone = _Trials(), 0.0, {AS_THEY_COME: 0, 1: 0, 2: 0}
    for _ in range(60):
        way = trials.way
        gone[way] += 1
        seconds = 0.1 if way == 1 else 0.15
        now += seconds
        trials.note(8, 8, seconds, now)
    assert trials.way == 1
    for way in (AS_THEY_COME, 2):
        assert gone[way] <= SETTLING_ROUNDS + WINDOW_ROUNDS + 2


def test_the_disorder_after_a_change_does_not_count() -> None:
    """A way that is slow at first, and then the best."""
    trials, now, gone = _Trials(), 0.0, 0
    for _ in range(400):
        before = trials.way
        gone += 1
        seconds = 0.1 if before == 2 and gone > SETTLING_ROUNDS + WINDOW_ROUNDS / 2 else 0.11
        now += seconds
        if trials.note(8, 8, seconds, now):
            gone = 0
    assert trials.way == 2


def test_a_member_that_is_late_is_no_loss() -> None:
    cohorts = Cohorts()
    fix(cohorts, 1)
    for turn in range(20):
        for member in "ab":
            cohorts.came(member, turn * 0.05)
        assert cohorts.released(turn * 0.05) == ["a", "b"]
    cohorts.came("a", 2.0)  # b is a second late
    cohorts.released(2.0)
    assert set(cohorts._members) == {"a", "b"}
    cohorts.came("a", 4.0)
    assert set(cohorts._members) == {"a"}


def test_others_are_tried_when_the_first_way_has_found_its_pace() -> None:
    trials, now, rounds = _Trials(), 0.0, 0
    while trials.way == TOGETHER and rounds < 100:
        rounds += 1
        seconds = 0.1 + 0.3 * 0.9**rounds  # all is slow at first
        now += seconds
        trials.note(8, 8, seconds, now)
    assert 20 < rounds < 60
    assert trials._rates[TOGETHER] > 0.85 * 8 / 0.1


def test_an_unsteady_way_is_measured_for_some_time_only() -> None:
    trials, now, rounds = _Trials(), 0.0, 0
    while trials.way == TOGETHER and rounds < 1000:
        rounds += 1
        now += 0.1 if rounds // WINDOW_ROUNDS % 2 else 0.2
        trials.note(8, 8, 0.1, now)
    assert rounds <= SETTLING_ROUNDS + WINDOW_ROUNDS * MOST_WINDOWS + 2
