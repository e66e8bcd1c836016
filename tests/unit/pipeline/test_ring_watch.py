"""A chain that is slower than its servers say is looked at, and the slow one is found."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest
import torch

from superbloom.domain.chain_time import Hop
from superbloom.domain.errors import PeerLost, SuperbloomError
from superbloom.domain.span import Span
from superbloom.pipeline import ring_watch
from superbloom.pipeline.messages import Progress, Result
from superbloom.pipeline.ring_watch import FEWEST_LOOKS, LOOKS, STEPS, RingWatch

SAID = 0.01


class Planner:
    """What a watch asks and tells."""

    def __init__(self) -> None:
        self.observed: dict[str, float] = {}
        self.forgiven: set[str] = set()
        self.said: float | None = SAID

    def announced_seconds(self, hops: Sequence[Hop], tokens: int = 1) -> float | None:
        return self.said

    def observe(
        self, hops: Sequence[Hop], seconds: Sequence[float], tokens: int = 1
    ) -> tuple[str, ...]:
        self.observed = {hop.peer: taken for hop, taken in zip(hops, seconds, strict=True)}
        return ()

    def forgive(self, peers: Iterable[str]) -> None:
        self.forgiven.update(peers)

    def name_of(self, peer: str) -> str:
        return peer


class Link:
    """A server that reports as a test says."""

    def __init__(self, peer: str, reports: Iterable[Progress | SuperbloomError]) -> None:
        self.peer = peer
        self.blocks = Span(0, 4)
        self.asked = 0
        self._reports = iter(reports)

    async def report(self) -> Progress | SuperbloomError:
        self.asked += 1
        return next(self._reports)


def at(received: int, sent: int) -> Progress:
    return Progress(epoch=1, received=received, sent=sent)


class Ring:
    """A watched chain of two, whose time is a test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.planner = Planner()
        self.watch = RingWatch(self.planner)  # type: ignore[arg-type]
        self.now = 1000.0
        self.position = 0
        self.a = Link("a", itertools.repeat(at(8, 8)))
        self.b = Link("b", itertools.cycle([at(8, 7), at(8, 7), at(8, 7), at(8, 8)]))
        monkeypatch.setattr(ring_watch.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(ring_watch, "LONGEST_PAUSE", 0.0)

    def send(self, tokens: int = 1, epoch: int = 1) -> Result:
        hidden, end = torch.zeros(tokens, 2), self.position + tokens
        self.watch.sent(epoch, end)
        result = Result(epoch=epoch, position=self.position, end=end, hidden=hidden[-1:])
        self.position = end
        return result

    def arrive(self, result: Result) -> None:
        self.watch.arrived((self.a, self.b), result)  # type: ignore[arg-type]

    def steps(self, count: int, seconds: float, tokens: int = 1) -> None:
        for _ in range(count):
            result = self.send(tokens)
            self.now += seconds
            self.arrive(result)

    async def looked(self, steps: int = 1000) -> None:
        """The looks that have begun end; meanwhile so many steps go round at most."""
        looking = self.watch._looking
        assert looking is not None
        async with asyncio.timeout(5):
            while not looking.done():
                under_way = self.send() if steps > 0 else None
                for _ in range(8):
                    await asyncio.sleep(0)
                self.now += 0.2
                if under_way is not None:
                    self.arrive(under_way)
                steps -= 1
            await looking


@pytest.fixture
async def ring(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ring]:
    ring = Ring(monkeypatch)
    yield ring
    await ring.watch.close()


async def test_the_slow_one_is_found(ring: Ring) -> None:
    ring.steps(STEPS, 0.2)
    await ring.looked()
    assert ring.planner.observed == {"a": 0.0, "b": pytest.approx(0.2)}
    assert FEWEST_LOOKS <= ring.a.asked <= LOOKS


async def test_a_chain_as_said_is_not_looked_at_and_forgiven(ring: Ring) -> None:
    ring.steps(STEPS, SAID)
    assert ring.watch._looking is None
    assert ring.planner.forgiven == {"a", "b"}


async def test_a_few_slow_steps_say_nothing(ring: Ring) -> None:
    ring.steps(STEPS - 1, 5.0)
    assert ring.watch._looking is None
    ring.steps(STEPS // 2 + 1, SAID)
    ring.steps(STEPS // 2 - 2, 5.0)
    assert not ring.planner.observed


async def test_chunks_of_prompts_are_not_counted(ring: Ring) -> None:
    ring.steps(2 * STEPS, 5.0, tokens=256)
    assert ring.watch._looking is None


async def test_steps_that_follow_each_other_count_from_the_one_before(ring: Ring) -> None:
    under_way = [ring.send() for _ in range(STEPS)]
    for result in under_way:
        ring.now += SAID
        ring.arrive(result)
    assert ring.watch._looking is None
    assert ring.planner.forgiven


async def test_retracted_steps_are_forgotten(ring: Ring) -> None:
    for _ in range(STEPS):
        ring.send()
        ring.position -= 1
        result = ring.send(epoch=2)
        ring.now += SAID
        ring.arrive(result)
    assert ring.planner.forgiven == {"a", "b"}


async def test_nobody_is_asked_all_the_time(ring: Ring) -> None:
    ring.steps(STEPS, 0.2)
    await ring.looked()
    ring.steps(2 * STEPS, 0.2)
    assert ring.watch._looking is not None
    assert ring.watch._looking.done()
    ring.now += ring_watch.LOOK_AGAIN_SECONDS
    ring.steps(STEPS, 0.2)
    assert not ring.watch._looking.done()


async def test_looks_at_a_ring_that_rests_say_nothing(ring: Ring) -> None:
    ring.steps(STEPS, 0.2)
    looking = ring.watch._looking
    assert looking is not None
    await looking
    assert not ring.planner.observed
    assert ring.a.asked == 0


async def test_looks_at_an_answer_that_ends_say_nothing(ring: Ring) -> None:
    ring.steps(STEPS, 0.2)
    await ring.looked(steps=2)
    assert not ring.planner.observed
    ring.steps(STEPS, 0.2)  # the next answer is looked at at once
    ring.send()  # and what it has under way at its end is retracted
    await ring.looked(steps=0)
    assert ring.a.asked > FEWEST_LOOKS
    assert not ring.planner.observed


async def test_a_server_that_does_not_report_ends_the_look(ring: Ring) -> None:
    ring.b = Link("b", [at(8, 7), PeerLost("gone", peer="b")])
    ring.steps(STEPS, 0.2)
    await ring.looked()
    assert not ring.planner.observed
    assert ring.b.asked == 2


async def test_a_chain_that_changes_is_judged_anew(ring: Ring) -> None:
    ring.steps(STEPS - 1, 0.2)
    ring.b = Link("new", itertools.repeat(at(8, 7)))
    ring.steps(STEPS - 1, 0.2)
    assert ring.watch._looking is None
    ring.steps(1, 0.2)
    await ring.looked()
    assert set(ring.planner.observed) == {"a", "new"}


async def test_servers_that_left_the_map_are_not_judged(ring: Ring) -> None:
    ring.planner.said = None
    ring.steps(STEPS, 0.2)
    assert ring.watch._looking is None


async def test_closing_ends_the_looks(ring: Ring) -> None:
    ring.steps(STEPS, 0.2)
    await ring.watch.close()
    assert ring.watch._looking is not None
    assert ring.watch._looking.cancelled()
