"""The next turn of a chat computes only what is new, and the text is that of a fresh start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from superbloom.domain.errors import SessionRefused
from superbloom.domain.generation import ChatPhase
from superbloom.domain.sampling import SamplingSettings
from toy_model import toy_continuation
from toy_swarm import BLOCKS, Asked, ToySwarm

FIRST = [(i * 13) % 49 + 1 for i in range(300)]
SHORT = SamplingSettings(temperature=0, max_tokens=10)


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    yield toys
    await toys.close()


def whole(prompt: list[int]) -> list[int]:
    return toy_continuation(prompt, SHORT.max_tokens, BLOCKS)


async def ask(swarm: ToySwarm, prompt: list[int]) -> list[int]:
    return list((await Asked(swarm.model, prompt, SHORT).end()).token_ids)


async def test_a_second_turn_computes_only_what_is_new(swarm: ToySwarm) -> None:
    servers = [swarm.add("a", 0, 3), swarm.add("b", 3, 6)]
    answer = await ask(swarm, FIRST)
    before = [server.executor.tokens for server in servers]
    second = [*FIRST, *answer, 7, 8, 9]
    assert await ask(swarm, second) == whole(second)
    computed = [s.executor.tokens - b for s, b in zip(servers, before, strict=True)]
    assert computed == [13, 13]  # the answer's last token, three new ones, nine of the new answer
    assert all(server.executor.open_sessions == 1 for server in servers)
    assert all(server.server.sessions == 0 for server in servers)  # it rests


async def test_a_regenerated_answer_computes_only_itself(swarm: ToySwarm) -> None:
    server = swarm.add("a", 0, 6)
    first = await ask(swarm, FIRST)
    before = server.executor.tokens
    assert await ask(swarm, FIRST) == first == whole(FIRST)
    assert server.executor.tokens - before == SHORT.max_tokens


async def test_a_branch_goes_on_from_where_it_parts(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3)
    swarm.add("b", 3, 6)
    await ask(swarm, FIRST)
    branch = [*FIRST[:200], 44, 45, 46]
    assert await ask(swarm, branch) == whole(branch)
    assert await ask(swarm, FIRST) == whole(FIRST)


async def test_two_chats_in_turn_keep_their_own(swarm: ToySwarm) -> None:
    server = swarm.add("a", 0, 6)
    other = [(i * 11) % 49 + 1 for i in range(300)]
    await ask(swarm, FIRST)
    await ask(swarm, other)
    before = server.executor.tokens
    assert await ask(swarm, FIRST) == whole(FIRST)
    assert await ask(swarm, other) == whole(other)
    assert server.executor.tokens - before == 2 * SHORT.max_tokens


async def test_a_parked_session_makes_room_for_others(swarm: ToySwarm) -> None:
    server = swarm.add("a", 0, 6, room=700)
    await ask(swarm, FIRST)
    other = swarm.client(swarm.network.join("other"), swarm.membership)
    prompt = [(i * 11) % 49 + 1 for i in range(500)]
    answered = await Asked(other, prompt, SHORT).end()
    assert list(answered.token_ids) == whole(prompt)
    assert server.executor.open_sessions == 1
    await other.close()
    second = [*FIRST, *whole(FIRST), 7]
    assert await ask(swarm, second) == whole(second)


async def test_a_session_that_never_fits_costs_nobody_its_place(swarm: ToySwarm) -> None:
    server = swarm.add("a", 0, 6, room=700)
    await ask(swarm, FIRST)
    other = swarm.client(swarm.network.join("other"), swarm.membership)
    with pytest.raises(SessionRefused, match="room"):
        await Asked(other, [3] * 800, SHORT).end()
    await other.close()
    before = server.executor.tokens
    assert await ask(swarm, FIRST) == whole(FIRST)
    assert server.executor.tokens - before == SHORT.max_tokens


async def test_only_as_many_parked_sessions_end_as_must(swarm: ToySwarm) -> None:
    server = swarm.add("a", 0, 6, room=700)
    prompts = [[n + 1] * 200 for n in range(3)]
    for prompt in prompts:
        await ask(swarm, prompt)
    other = swarm.client(swarm.network.join("other"), swarm.membership)
    await Asked(other, [9] * 250, SHORT).end()
    await other.close()
    before = server.executor.tokens
    assert await ask(swarm, prompts[2]) == whole(prompts[2])
    assert server.executor.tokens - before == SHORT.max_tokens


async def test_a_client_that_reads_nothing_holds_up_neither_a_newcomer_nor_the_end(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = swarm.add("a", 0, 6, room=700)
    await ask(swarm, FIRST)
    (resting,) = server.server._sessions.values()

    async def never(_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(resting, "_tell", never)
    other = swarm.client(swarm.network.join("other"), swarm.membership)
    prompt = [9] * 500
    async with asyncio.timeout(1):
        assert list((await Asked(other, prompt, SHORT).end()).token_ids) == whole(prompt)
    (busy,) = [s for s in server.server._sessions.values() if s is not resting]
    monkeypatch.setattr(busy, "_tell", never)
    async with asyncio.timeout(8):
        await server.server.drain(0.1)
        await server.server.close()
    assert not server.server._sessions
    await other.close()


async def test_a_session_that_cannot_grow_is_begun_anew(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 6, room=320)
    swarm.add("b", 0, 6, announced_step_seconds=0.5)
    await ask(swarm, FIRST)
    second = [*FIRST, *whole(FIRST), *range(1, 30)]
    assert await ask(swarm, second) == whole(second)


@pytest.mark.parametrize("lost", ["a", "b"])
async def test_a_server_lost_between_turns_is_replaced(swarm: ToySwarm, lost: str) -> None:
    swarm.add("a", 0, 3)
    swarm.add("b", 3, 6)
    await ask(swarm, FIRST)
    swarm.kill(lost)
    start = 0 if lost == "a" else 3
    swarm.add("new", start, start + 3)
    second = [*FIRST, *whole(FIRST), 7]
    asked = Asked(swarm.model, second, SHORT)
    assert list((await asked.end()).token_ids) == whole(second)
    assert "new" in str([event.chain for event in asked.events if hasattr(event, "chain")])


async def test_a_server_lost_in_a_second_turn_is_replaced(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.003)
    swarm.add("b", 3, 6, step_seconds=0.003)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    await ask(swarm, FIRST)
    second = [*FIRST, *whole(FIRST), 7]
    asked = Asked(swarm.model, second, SHORT)
    await asked.until(tokens=4)
    swarm.kill("b")
    assert list((await asked.end()).token_ids) == whole(second)
    assert ChatPhase.RECOVERING in asked.phases


async def test_the_last_used_sessions_are_kept(swarm: ToySwarm) -> None:
    server = swarm.add("a", 0, 6)
    prompts = [[n + 1] * 40 for n in range(6)]
    for prompt in prompts:
        await ask(swarm, prompt)
    before = server.executor.tokens
    assert await ask(swarm, prompts[-1]) == whole(prompts[-1])
    assert server.executor.tokens - before == SHORT.max_tokens
    assert await ask(swarm, prompts[0]) == whole(prompts[0])
    assert server.executor.tokens - before == 2 * SHORT.max_tokens + len(prompts[0]) - 1


async def test_a_draining_server_does_not_wait_for_resting_sessions(swarm: ToySwarm) -> None:
    server = swarm.add("a", 0, 6)
    await ask(swarm, FIRST)
    async with asyncio.timeout(5):
        await server.server.drain(60)
    assert server.executor.open_sessions == 0
    swarm.kill("a")
    swarm.add("b", 0, 6)
    assert await ask(swarm, FIRST) == whole(FIRST)


async def test_an_answer_that_ends_while_its_server_drains_does_not_hold_it_up(
    swarm: ToySwarm,
) -> None:
    server = swarm.add("a", 0, 6, step_seconds=0.005)
    asked = Asked(swarm.model, FIRST, SHORT)
    await asked.until(tokens=2)
    async with asyncio.timeout(5):
        await server.server.drain(60)
    assert list((await asked.end()).token_ids) == whole(FIRST)
