"""Losses at awkward moments: before the first result, during a stop, a refill, a move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from superbloom.domain.errors import NetworkFailed
from superbloom.domain.generation import ChatPhase
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.pipeline import session as session_module
from superbloom.pipeline import stall
from superbloom.pipeline.messages import SESSION_SERVICE
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Stream
from toy_model import toy_continuation
from toy_swarm import BLOCKS, GREEDY, Asked, ToySwarm

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
LONG = [(i * 13) % 49 + 1 for i in range(300)]


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    yield toys
    await toys.close()


def whole(prompt: list[int] = PROMPT, count: int = GREEDY.max_tokens) -> list[int]:
    return toy_continuation(prompt, count, BLOCKS)


async def until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("lost", ["a", "b", "c"])
async def test_a_loss_before_the_first_result(swarm: ToySwarm, lost: str) -> None:
    spans = {"a": (0, 2), "b": (2, 4), "c": (4, 6)}
    for name, (start, end) in spans.items():
        swarm.add(name, start, end)
        swarm.add(f"{name} twin", start, end, announced_step_seconds=0.5)
    swarm.servers[lost].executor.hold.clear()
    asked = Asked(swarm.model, PROMPT)
    await until(lambda: all(swarm.servers[name].server.sessions for name in spans))
    await asyncio.sleep(0.05)  # the prompt is in the hands of the one that holds
    swarm.kill(lost)
    async with asyncio.timeout(3):
        assert list((await asked.end()).token_ids) == whole()
    chains = [event.chain for event in asked.events if hasattr(event, "chain")]
    assert chains[-1] == tuple(f"{n} twin" if n == lost else n for n in spans)


async def test_a_stop_while_connecting_leaves_no_session_behind(swarm: ToySwarm) -> None:
    a = swarm.add("a", 0, 3)
    silent = swarm.add("silent", 3, 6)

    async def say_nothing(stream: Stream) -> None:
        await asyncio.sleep(60)

    silent.transport.handle_stream(SESSION_SERVICE, say_nothing)
    asked = Asked(swarm.model, PROMPT)
    await until(lambda: a.server.sessions == 1)
    asked.stop.set()
    assert (await asked.end()).reason is EndReason.STOPPED
    await until(lambda: a.server.sessions == 0 and a.executor.open_sessions == 0)


async def test_a_slow_server_is_not_taken_for_a_dead_one(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(stall, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(stall, "STALL_SECONDS_PER_TOKEN", 0.05)
    swarm.add("slow", 0, 6, step_seconds=0.5)
    swarm.add("twin", 0, 6, announced_step_seconds=9.0)
    asked = Asked(swarm.model, LONG, SamplingSettings(temperature=0, max_tokens=1))
    assert list((await asked.end()).token_ids) == whole(LONG, 1)
    assert ChatPhase.RECOVERING not in asked.phases
    assert swarm.servers["twin"].executor.steps == 0


async def test_the_feeder_is_lost_while_it_fills_the_replacement(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.001)
    swarm.add("b", 3, 6, step_seconds=0.001)
    twin = swarm.add("b twin", 3, 6, announced_step_seconds=0.5)
    asked = Asked(swarm.model, LONG)
    await asked.until(tokens=8)
    twin.executor.hold.clear()
    swarm.kill("b")
    await until(lambda: twin.server.sessions == 1)
    await asyncio.sleep(0.05)  # the replay is queued at the twin and not computed
    swarm.add("a twin", 0, 3)
    swarm.kill("a")
    await asyncio.sleep(0.2)
    twin.executor.hold.set()
    async with asyncio.timeout(5):
        assert list((await asked.end()).token_ids) == whole(LONG)


async def test_a_server_looks_where_the_next_one_is_before_it_gives_it_up(
    swarm: ToySwarm,
) -> None:
    a, b = swarm.add("a", 0, 3), swarm.add("b", 3, 6)
    swarm.network.cut(a.peer, b.peer)

    async def refresh(model: str) -> None:
        swarm.network.heal(a.peer, b.peer)  # as when an announcement tells the new address

    swarm.directory.refresh = refresh  # type: ignore[method-assign]
    asked = Asked(swarm.model, PROMPT)
    assert list((await asked.end()).token_ids) == whole()
    assert ChatPhase.RECOVERING not in asked.phases


async def test_an_answer_follows_to_another_place_in_the_same_swarm(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.005)
    swarm.add("b", 3, 6, step_seconds=0.005)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=5)
    before = swarm.access[swarm.client_transport.peer_id]
    assert before is not None
    swarm.access[swarm.client_transport.peer_id] = None
    await swarm.client_transport.close()
    await asked.until(phase=ChatPhase.WAITING)
    moved = replace(before, transport=swarm.network.join("client again"))
    swarm.access[swarm.client_transport.peer_id] = moved
    swarm.relist("a")
    swarm.relist("b")
    assert list((await asked.end()).token_ids) == whole()
    await moved.transport.close()


async def test_an_answer_does_not_follow_into_another_swarm(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 6, step_seconds=0.005)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=5)
    before = swarm.access[swarm.client_transport.peer_id]
    assert before is not None
    moved = replace(
        before,
        transport=swarm.network.join("client elsewhere"),
        membership=Membership("others", b"o" * 32),
    )
    swarm.access[swarm.client_transport.peer_id] = moved
    await swarm.client_transport.close()
    with pytest.raises(NetworkFailed, match="left the swarm"):
        await asked.end()
    await moved.transport.close()
