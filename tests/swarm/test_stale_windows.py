"""A step of a newer epoch voids what is left of older ones, at one server after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import torch

from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.sampling import SamplingSettings
from superbloom.pipeline import chain_planner, stall
from superbloom.pipeline import session as session_module
from superbloom.pipeline.messages import (
    EpochBegun,
    NewEpoch,
    NextLost,
    Park,
    Probe,
    Progress,
    Refused,
    Result,
    Resume,
    Resumed,
    Step,
    encode_frame,
)
from superbloom.pipeline.next_server import NextServer
from superbloom.pipeline.served_session import ServedSession
from superbloom.swarm.live_stream import LiveStream
from test_epochs import Hand
from told_drafts import NarrowPolicy, tell
from toy_model import HIDDEN, toy_continuation
from toy_swarm import BLOCKS, Asked, ToySwarm

PROMPT = [5, 17, 3, 44, 9]
SAMPLING = SamplingSettings(temperature=0, max_tokens=40)


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    yield toys
    await toys.close()


def whole() -> list[int]:
    return toy_continuation(PROMPT, SAMPLING.max_tokens, BLOCKS)


async def result(hand: Hand) -> tuple[int, int, int]:
    """Epoch, position and end of the next result."""
    heard = await hand.hear(Result)
    assert isinstance(heard, Result)
    return heard.epoch, heard.position, heard.end


async def test_windows_that_wait_are_not_computed_when_a_newer_epoch_comes(
    swarm: ToySwarm,
) -> None:
    toy = swarm.add("a", 0, BLOCKS)
    hand = await Hand.open(swarm, "a", 0, BLOCKS)
    await hand.step(0, tokens=5)
    assert await result(hand) == (0, 0, 5)
    toy.executor.hold.clear()
    for position in (5, 8, 11, 14):
        await hand.step(0, position, tokens=3)
    await hand.step(1, position=4)
    await asyncio.sleep(0.05)
    toy.executor.hold.set()
    assert await result(hand) == (1, 4, 6)
    assert toy.executor.tokens in (5 + 2, 5 + 3 + 2)  # the first may have been under way already
    await hand.say(Probe())
    assert await hand.hear(Progress) == Progress(epoch=1, received=6, sent=6)
    await hand.stream.close()


async def test_the_next_server_learns_of_the_epoch_by_the_step_itself(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3)
    second = swarm.add("b", 3, BLOCKS)
    b = await Hand.open(swarm, "b", 3, BLOCKS, after="a")
    a = await Hand.open(swarm, "a", 0, 3, before="b")
    await a.step(0, tokens=5)
    assert await result(b) == (0, 0, 5)
    second.executor.hold.clear()
    for position in (5, 8, 11):
        await a.step(0, position, tokens=3)
    await asyncio.sleep(0.05)  # they wait at the second server
    await a.step(1, position=5)
    await asyncio.sleep(0.05)
    second.executor.hold.set()
    assert await result(b) == (1, 5, 7)
    assert second.executor.tokens in (5 + 2, 5 + 3 + 2)
    await a.stream.close()
    await b.stream.close()


async def test_a_step_of_an_older_epoch_is_dropped(swarm: ToySwarm) -> None:
    toy = swarm.add("a", 0, BLOCKS)
    hand = await Hand.open(swarm, "a", 0, BLOCKS)
    await hand.step(7)
    assert await result(hand) == (7, 0, 2)
    await hand.step(6, position=2)
    await hand.step(7, position=2)
    assert await result(hand) == (7, 2, 4)
    assert toy.executor.steps == 2
    await hand.stream.close()


async def test_an_epoch_may_not_begin_beyond_what_is_passed_on(swarm: ToySwarm) -> None:
    toy = swarm.add("a", 0, BLOCKS)
    hand = await Hand.open(swarm, "a", 0, BLOCKS)
    toy.executor.hold.clear()
    await hand.step(0, tokens=5)
    await hand.step(1, position=5)
    refused = await hand.hear(Refused)
    assert isinstance(refused, Refused)
    assert refused.code == "protocol_violation"
    await hand.stream.close()


async def test_a_client_may_go_back_from_an_epoch_that_a_step_named(swarm: ToySwarm) -> None:
    swarm.add("a", 0, BLOCKS)
    hand = await Hand.open(swarm, "a", 0, BLOCKS)
    await hand.step(2**32 - 1)
    assert await result(hand) == (2**32 - 1, 0, 2)
    await hand.say(NewEpoch(epoch=1, position=2, previous=""))
    assert await hand.hear(EpochBegun) == EpochBegun(epoch=1)
    await hand.step(1, position=2)
    assert await result(hand) == (1, 2, 4)
    await hand.stream.close()


async def test_what_waits_when_a_session_is_parked_is_not_computed(swarm: ToySwarm) -> None:
    toy = swarm.add("a", 0, BLOCKS)
    hand = await Hand.open(swarm, "a", 0, BLOCKS)
    await hand.step(0, tokens=5)
    await result(hand)
    toy.executor.hold.clear()
    for position in (5, 8, 11):
        await hand.step(0, position, tokens=3)
    await hand.say(Park())
    await hand.step(0, position=14, tokens=3)
    await asyncio.sleep(0.05)
    toy.executor.hold.set()
    await hand.say(Resume(epoch=1, position=4, max_tokens=50))
    while not isinstance(await hand.hear(Result | Resumed), Resumed):  # type: ignore[arg-type]
        pass
    await hand.step(1, position=4)
    assert await result(hand) == (1, 4, 6)
    assert toy.executor.tokens in (5 + 2, 5 + 3 + 2)
    await hand.stream.close()


@pytest.mark.parametrize("heals", [True, False])
async def test_a_lost_way_is_tried_or_told_again_in_the_epoch_of_a_step(
    swarm: ToySwarm, heals: bool
) -> None:
    first, second = swarm.add("a", 0, 3), swarm.add("b", 3, BLOCKS)
    b = await Hand.open(swarm, "b", 3, BLOCKS, after="a")
    a = await Hand.open(swarm, "a", 0, 3, before="b")
    await a.step(0)
    assert await result(b) == (0, 0, 2)
    swarm.network.cut(first.peer, second.peer)
    await a.hear(NextLost)
    if heals:
        swarm.network.heal()
    await a.step(1, position=1)
    if heals:
        assert await result(b) == (1, 1, 3)
    else:
        again = await a.hear(NextLost)
        assert isinstance(again, NextLost)
        assert again.epoch == 1
    await a.stream.close()
    await b.stream.close()


# --- servers that lie -----------------------------------------------------------------------


async def answer_around(swarm: ToySwarm, liar: str, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The answer, which must be right and end without the liar."""
    monkeypatch.setattr(session_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(stall, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(stall, "STALL_SECONDS_PER_TOKEN", 0.0)
    tell(monkeypatch, PROMPT, whole(), {9, 17}, NarrowPolicy)
    asked = Asked(swarm.model, PROMPT, SAMPLING)
    assert list((await asked.end()).token_ids) == asked.written == whole()
    chains = [event.chain for event in asked.events if hasattr(event, "chain")]
    assert any(liar in chain for chain in chains)
    assert liar not in chains[-1]
    return asked


@pytest.mark.parametrize("lie", [lambda n: 2**31, lambda n: 2**20 * n, lambda n: n])
async def test_a_server_that_makes_up_epochs_is_left(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch, lie: Callable[[int], int]
) -> None:
    liar = swarm.add("liar", 0, 3)
    swarm.add("honest", 0, 3, announced_step_seconds=0.5)
    swarm.add("b", 3, 5)
    swarm.add("c", 5, 6)
    push, pushed = NextServer._push, 0

    async def lying(self: NextServer, step: Step) -> None:
        nonlocal pushed
        if self._access.transport.peer_id == liar.peer:
            pushed += 1
            if pushed > 3:
                fields = {name: getattr(step, name) for name in ("position", "keep", "replay")}
                step = Step(epoch=step.epoch + lie(pushed), hidden=step.hidden, **fields)
        await push(self, step)

    monkeypatch.setattr(NextServer, "_push", lying)
    await answer_around(swarm, "liar", monkeypatch)


async def test_a_last_server_that_gives_too_few_states_for_a_window_is_left(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm.add("a", 0, 3)
    liar = swarm.add("liar", 3, 6)
    swarm.add("honest", 3, 6, announced_step_seconds=0.5)
    send = LiveStream.send
    # As the last server sends it: one row for a window of several tokens.
    true_result = Result(epoch=0, position=0, end=1, hidden=torch.zeros(1, HIDDEN))
    kind = encode_frame(true_result)[0]

    async def shortened(self: LiveStream, data: bytes) -> None:
        if data[0] == kind and self.peer == swarm.client_transport.peer_id:
            rows = int.from_bytes(data[13:17], "little")
            if rows > 1 and any(s._client is self for s in liar.server._sessions.values()):
                position = int.from_bytes(data[5:9], "little")
                end = int.from_bytes(data[9:13], "little")
                epoch = int.from_bytes(data[1:5], "little")
                hidden = torch.zeros(1, HIDDEN)
                data = encode_frame(Result(epoch=epoch, position=position, end=end, hidden=hidden))
        await send(self, data)

    monkeypatch.setattr(LiveStream, "send", shortened)
    await answer_around(swarm, "liar", monkeypatch)


async def test_a_server_that_was_blamed_wrongly_is_asked_again_if_nobody_else_is_there(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_planner, "AVOID_SECONDS", 0.5)
    for name, start, end in (("a", 0, 3), ("b", 3, 5), ("c", 5, BLOCKS)):
        swarm.add(name, start, end)
    accept, accepted = ServedSession.accept, 0

    async def mistaken(self: ServedSession, step: Step) -> None:
        nonlocal accepted
        if self.blocks.end == BLOCKS:
            accepted += 1
            if accepted == 4:
                raise ProtocolViolation("It seems to have sent nonsense.")
        await accept(self, step)

    monkeypatch.setattr(ServedSession, "accept", mistaken)
    asked = Asked(swarm.model, PROMPT, SAMPLING)
    assert list((await asked.end()).token_ids) == asked.written == whole()
    assert accepted > 4
