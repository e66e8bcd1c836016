"""Answers through many servers are those of the whole model, whatever happens to the servers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from superbloom.domain.errors import ContextFull, SessionRefused
from superbloom.domain.generation import ChatPhase
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.domain.swarm_map import ServerState
from toy_model import toy_continuation
from toy_swarm import BLOCKS, GREEDY, Asked, ToySwarm

PROMPT = [5, 17, 3, 44, 9]


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    yield toys
    await toys.close()


def whole(count: int = GREEDY.max_tokens, prompt: list[int] = PROMPT) -> list[int]:
    return toy_continuation(prompt, count, BLOCKS)


@pytest.mark.parametrize("cuts", [(), (3,), (2, 4), (1, 2, 3, 4, 5)])
async def test_any_chain_gives_the_text_of_the_whole_model(
    swarm: ToySwarm, cuts: tuple[int, ...]
) -> None:
    for start, end in itertools.pairwise((0, *cuts, BLOCKS)):
        swarm.add(f"server-{start}", start, end)
    end_event = await (asked := Asked(swarm.model, PROMPT)).end()
    assert list(end_event.token_ids) == asked.written == whole()
    assert end_event.reason is EndReason.LENGTH
    assert end_event.prompt_tokens == len(PROMPT)
    assert asked.phases[0] is ChatPhase.CONNECTING
    assert asked.phases[-1] is ChatPhase.WRITING


async def test_a_long_prompt_goes_through_in_chunks(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3)
    swarm.add("b", 3, 6)
    prompt = [(i * 13) % 49 + 1 for i in range(1700)]
    end = await Asked(swarm.model, prompt, SamplingSettings(temperature=0, max_tokens=5)).end()
    assert list(end.token_ids) == whole(5, prompt)


async def test_parts_of_overlapping_spans_are_used(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 4)
    swarm.add("b", 2, 6)
    assert list((await Asked(swarm.model, PROMPT).end()).token_ids) == whole()


async def test_servers_forget_a_session_when_its_client_leaves(swarm: ToySwarm) -> None:
    servers = [swarm.add("a", 0, 3), swarm.add("b", 3, 6)]
    await Asked(swarm.model, PROMPT).end()
    await swarm.model.close()
    async with asyncio.timeout(5):
        while any(s.server.sessions for s in servers):
            await asyncio.sleep(0)
    assert all(s.executor.open_sessions == 0 for s in servers)
    assert all(s.server.tokens_served >= len(PROMPT) for s in servers)


async def test_many_answers_at_once_do_not_disturb_each_other(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 2)
    swarm.add("b", 2, 6)
    prompts = [[n + 1, 2 * n + 1, 7] for n in range(8)]
    ends = await asyncio.gather(*(Asked(swarm.model, prompt).end() for prompt in prompts))
    assert [list(end.token_ids) for end in ends] == [whole(prompt=prompt) for prompt in prompts]


# --- servers that go away -------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["first", "middle", "last"])
async def test_a_killed_server_with_a_replica_changes_no_token(swarm: ToySwarm, lost: str) -> None:
    for index, name in enumerate(["first", "middle", "last"]):
        swarm.add(name, index * 2, index * 2 + 2, step_seconds=0.002)
        swarm.add(f"{name} twin", index * 2, index * 2 + 2, announced_step_seconds=0.1)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    swarm.kill(lost)
    assert list((await asked.end()).token_ids) == whole()
    assert ChatPhase.RECOVERING in asked.phases
    told = " ".join(event.words for event in asked.events if hasattr(event, "words"))
    assert f"{lost} twin" in told


async def test_replicas_with_other_cuts_take_over(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.002)
    swarm.add("b", 3, 6, step_seconds=0.002)
    swarm.add("c", 2, 5, announced_step_seconds=0.5)
    swarm.add("d", 4, 6, announced_step_seconds=0.5)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    swarm.kill("b")
    assert list((await asked.end()).token_ids) == whole()


async def test_a_neighbour_that_holds_the_lost_blocks_takes_over(swarm: ToySwarm) -> None:
    swarm.add("whole", 0, 6, announced_step_seconds=1.0, step_seconds=0.002)
    swarm.add("b", 3, 6, step_seconds=0.002)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    assert asked.events[0] is not None
    swarm.kill("b")
    assert list((await asked.end()).token_ids) == whole()


async def test_two_servers_killed_at_once(swarm: ToySwarm) -> None:
    for name, slow in (("", 0.01), (" twin", 0.1)):
        for index in range(3):
            swarm.add(
                f"{index}{name}",
                index * 2,
                index * 2 + 2,
                announced_step_seconds=slow,
                step_seconds=0.002,
            )
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    swarm.kill("0")
    swarm.kill("2")
    assert list((await asked.end()).token_ids) == whole()


async def test_one_loss_after_another(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.002)
    for index in range(4):
        swarm.add(f"b{index}", 3, 6, announced_step_seconds=0.01 * (index + 1), step_seconds=0.002)
    asked = Asked(swarm.model, PROMPT)
    for index in range(3):
        await asked.until(tokens=5 * (index + 1))
        swarm.kill(f"b{index}")
    assert list((await asked.end()).token_ids) == whole()


async def test_without_a_replica_the_answer_waits_and_goes_on(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.002)
    swarm.add("b", 3, 6, step_seconds=0.002)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    swarm.kill("b")
    await asked.until(phase=ChatPhase.WAITING)
    swarm.add("late", 3, 6)
    assert list((await asked.end()).token_ids) == whole()


async def test_a_server_lost_while_waiting_for_another(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.002)
    swarm.add("b", 3, 6, step_seconds=0.002)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    swarm.kill("b")
    await asked.until(phase=ChatPhase.WAITING)
    swarm.kill("a")
    swarm.add("new a", 0, 3)
    swarm.add("new b", 3, 6)
    assert list((await asked.end()).token_ids) == whole()


async def test_a_partition_is_found_by_silence(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.002)
    swarm.add("b", 3, 6, step_seconds=0.002)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    swarm.network.partition(swarm.servers["b"].peer)
    async with asyncio.timeout(8):
        assert list((await asked.end()).token_ids) == whole()


async def test_a_link_between_two_servers_falls_silent(swarm: ToySwarm) -> None:
    a = swarm.add("a", 0, 3, step_seconds=0.002)
    b = swarm.add("b", 3, 6, step_seconds=0.002)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    swarm.network.partition(a.peer, b.peer)
    async with asyncio.timeout(8):
        assert list((await asked.end()).token_ids) == whole()


async def test_a_history_that_is_gone_costs_a_new_prefill(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.pipeline.history.History.holds", lambda self, tokens: False)
    swarm.add("a", 0, 3, step_seconds=0.002)
    swarm.add("b", 3, 6, step_seconds=0.002)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=8)
    swarm.kill("b")
    assert list((await asked.end()).token_ids) == whole()


async def test_a_loss_in_the_middle_of_a_long_prompt(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.02)
    swarm.add("b", 3, 6, step_seconds=0.02)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    prompt = [(i * 13) % 49 + 1 for i in range(1700)]
    asked = Asked(swarm.model, prompt, SamplingSettings(temperature=0, max_tokens=5))
    async with asyncio.timeout(10):
        while swarm.servers["b"].executor.steps < 2:
            await asyncio.sleep(0.005)
    swarm.kill("b")
    assert list((await asked.end()).token_ids) == whole(5, prompt)


async def test_a_draining_server_is_left_for_another(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.005)
    b = swarm.add("b", 3, 6, step_seconds=0.005)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=5)
    swarm.relist("b", state=ServerState.DRAINING)
    await b.server.drain(5)
    assert b.server.sessions == 0
    assert list((await asked.end()).token_ids) == whole()


async def test_a_draining_server_without_a_replica_finishes_the_answer(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3)
    b = swarm.add("b", 3, 6, step_seconds=0.005)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=5)
    swarm.relist("b", state=ServerState.DRAINING)
    draining = asyncio.create_task(b.server.drain(20))
    assert list((await asked.end()).token_ids) == whole()
    await draining


# --- stopping -------------------------------------------------------------------------------


async def test_stop_ends_the_computation_on_every_server(swarm: ToySwarm) -> None:
    servers = [swarm.add("a", 0, 3, step_seconds=0.005), swarm.add("b", 3, 6, step_seconds=0.005)]
    asked = Asked(swarm.model, PROMPT, SamplingSettings(temperature=0, max_tokens=4000))
    await asked.until(tokens=5)
    asked.stop.set()
    end = await asked.end()
    assert end.reason is EndReason.STOPPED
    assert list(end.token_ids) == whole(len(end.token_ids))
    assert all(s.executor.open_sessions == 0 for s in servers)


async def test_stop_ends_a_wait_for_servers(swarm: ToySwarm) -> None:
    asked = Asked(swarm.model, PROMPT)
    await asked.until(phase=ChatPhase.WAITING)
    asked.stop.set()
    assert (await asked.end()).reason is EndReason.STOPPED


async def test_a_stop_string_ends_the_answer_before_it(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 6)
    words = whole(10)
    sampling = SamplingSettings(temperature=0, max_tokens=30, stop=(f"{words[6]} {words[7]}",))
    asked = Asked(swarm.model, PROMPT, sampling)
    assert (await asked.end()).reason is EndReason.STOP_STRING
    assert asked.written == words[:6]


# --- refusals -------------------------------------------------------------------------------


async def test_a_session_that_fits_nowhere_is_refused_in_words(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 6, room=10)
    with pytest.raises(SessionRefused, match="room for 10 tokens"):
        await Asked(swarm.model, PROMPT).end()


async def test_a_server_with_room_is_taken_instead_of_a_full_one(swarm: ToySwarm) -> None:
    swarm.add("full", 0, 6, room=10)
    swarm.add("roomy", 0, 6, announced_step_seconds=0.5)
    assert list((await Asked(swarm.model, PROMPT).end()).token_ids) == whole()


async def test_a_prompt_longer_than_the_context_is_refused(swarm: ToySwarm) -> None:
    with pytest.raises(ContextFull, match="5000"):
        await Asked(swarm.model, [1] * 5000).end()
