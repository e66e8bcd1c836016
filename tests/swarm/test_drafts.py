"""Drafts, right or wrong, change no token: not in losses, ends within windows, or next turns."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from superbloom.domain.draft_policy import DraftPolicy
from superbloom.domain.generation import ChatPhase, TextDelta
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.pipeline.remote_model import RemoteModel
from told_drafts import EagerPolicy, NarrowPolicy, tell
from toy_model import ToyEnds, toy_continuation
from toy_swarm import BLOCKS, GREEDY, Asked, ToySwarm

PROMPT = [5, 17, 3, 44, 9]
COUNT = GREEDY.max_tokens
CHAINS = [(), (3,), (2, 4)]


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    yield toys
    await toys.close()


def whole(count: int = COUNT, prompt: list[int] = PROMPT) -> list[int]:
    return toy_continuation(prompt, count, BLOCKS)


def build(swarm: ToySwarm, cuts: tuple[int, ...], **executor: float) -> None:
    for start, end in itertools.pairwise((0, *cuts, BLOCKS)):
        swarm.add(f"server-{start}", start, end, **executor)


async def undrafted(swarm: ToySwarm, sampling: SamplingSettings) -> list[int]:
    """The answer without drafts."""
    swarm.model._drafts = False
    end = await Asked(swarm.model, PROMPT, sampling).end()
    swarm.model._drafts = True
    assert end.drafted == 0
    return list(end.token_ids)


@pytest.mark.parametrize("policy", [EagerPolicy, NarrowPolicy])
@pytest.mark.parametrize("cuts", CHAINS)
@pytest.mark.parametrize("wrong", [[], *([n] for n in range(2, 12)), [3, 4, 5, 11], range(30)])
async def test_drafts_wrong_anywhere_change_no_token(
    swarm: ToySwarm,
    monkeypatch: pytest.MonkeyPatch,
    wrong: list[int],
    cuts: tuple[int, ...],
    policy: type[DraftPolicy],
) -> None:
    build(swarm, cuts)
    tell(monkeypatch, PROMPT, whole(), wrong, policy)
    asked = Asked(swarm.model, PROMPT)
    end = await asked.end()
    assert list(end.token_ids) == asked.written == whole()
    assert end.drafted > 0
    assert (end.accepted == 0) == (len(wrong) == COUNT)


async def test_right_drafts_need_few_steps_and_show_text_a_window_at_a_time(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = swarm.add("a", 0, BLOCKS)
    tell(monkeypatch, PROMPT, whole())
    asked = Asked(swarm.model, PROMPT)
    await asked.end()
    shown = [event.tokens for event in asked.events if isinstance(event, TextDelta)]
    assert shown == [1, 9, 17, 25, 30]
    assert server.executor.steps == len(shown)
    assert server.executor.tokens == len(PROMPT) + COUNT - 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cuts", CHAINS)
async def test_a_seed_gives_the_tokens_that_it_gives_without_drafts(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch, seed: int, cuts: tuple[int, ...]
) -> None:
    build(swarm, cuts)
    sampling = SamplingSettings(
        temperature=0.4, top_p=0.9, repetition_penalty=1.3, seed=seed, max_tokens=COUNT
    )
    expected = await undrafted(swarm, sampling)
    tell(monkeypatch, PROMPT, expected, {4, 5, 13, 20})
    end = await Asked(swarm.model, PROMPT, sampling).end()
    assert list(end.token_ids) == expected
    assert end.accepted > 0


async def test_drafts_come_from_the_text_itself(swarm: ToySwarm) -> None:
    build(swarm, (3,), step_seconds=0.002)
    answer = whole()
    prompt = [*PROMPT, *answer[:12], 2, *PROMPT]
    end = await Asked(swarm.model, prompt).end()
    assert list(end.token_ids) == whole(prompt=prompt)
    plain = RemoteModel(
        present=swarm.model._present,
        ends=ToyEnds(),  # type: ignore[arg-type]
        tokenizer=swarm.model._tokenizer,
        served=swarm.model._served,
        context_tokens=5000,
        drafts=False,
    )
    assert (await Asked(plain, prompt).end()).token_ids == end.token_ids
    await plain.close()


# --- ends within a window, and what comes after ---------------------------------------------


async def then_another_turn(swarm: ToySwarm, prompt: list[int], answer: list[int]) -> None:
    """The session goes on as one that was never ahead of its text."""
    swarm.model._drafts = False
    second = [*prompt, *answer, 7, 8]
    (resting,) = swarm.model._parking._parked
    held = resting._windows.tokens
    assert held == second[: len(held)]
    server = swarm.servers["server-0"]
    await asyncio.sleep(0.01)  # a window that was in its hands is done with
    before = server.executor.tokens
    sampling = SamplingSettings(temperature=0, max_tokens=5)
    asked = Asked(swarm.model, second, sampling)
    assert list((await asked.end()).token_ids) == whole(5, second)
    new = len(second) - len(prompt) - len(answer) + 5
    assert new - 1 <= server.executor.tokens - before <= new  # the last token was drafted, or not


LONG = [(i * 13) % 49 + 1 for i in range(40)]


@pytest.mark.parametrize("length", range(1, 19))
async def test_an_answer_may_end_anywhere_in_a_window(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    build(swarm, (2, 4))
    tell(monkeypatch, LONG, whole(prompt=LONG), policy=NarrowPolicy)
    sampling = SamplingSettings(temperature=0, max_tokens=length)
    end = await Asked(swarm.model, LONG, sampling).end()
    assert (end.reason, list(end.token_ids)) == (EndReason.LENGTH, whole(length, LONG))
    await then_another_turn(swarm, LONG, whole(length, LONG))


@pytest.mark.parametrize("place", range(1, 17))
async def test_a_token_that_ends_the_text_voids_what_follows_it(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    build(swarm, (3,))
    answer = whole(prompt=LONG)
    place = answer.index(answer[place])
    monkeypatch.setattr(swarm.model._tokenizer, "end_ids", frozenset({answer[place]}))
    tell(monkeypatch, LONG, answer)
    asked = Asked(swarm.model, LONG)
    end = await asked.end()
    assert end.reason is EndReason.END_OF_TEXT
    assert list(end.token_ids) == answer[: place + 1]
    assert asked.written == answer[:place]
    monkeypatch.setattr(swarm.model._tokenizer, "end_ids", frozenset())
    await then_another_turn(swarm, LONG, answer[: place + 1])


@pytest.mark.parametrize("place", range(2, 12))
async def test_a_stop_string_within_a_window_voids_what_follows_it(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    build(swarm, (3,))
    answer = whole(prompt=LONG)
    stop = f" {answer[place]} {answer[place + 1]}"
    tell(monkeypatch, LONG, answer)
    asked = Asked(swarm.model, LONG, SamplingSettings(temperature=0, max_tokens=30, stop=(stop,)))
    end = await asked.end()
    assert end.reason is EndReason.STOP_STRING
    assert asked.written == answer[:place]
    assert list(end.token_ids) == answer[: place + 2]
    await then_another_turn(swarm, LONG, answer[: place + 2])


async def test_a_stop_with_windows_under_way_ends_the_computation(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(swarm, (3,), step_seconds=0.005)
    count = 2000
    tell(monkeypatch, PROMPT, whole(count))
    asked = Asked(swarm.model, PROMPT, SamplingSettings(temperature=0, max_tokens=count))
    await asked.until(tokens=20)
    asked.stop.set()
    end = await asked.end()
    assert list(end.token_ids) == whole(len(end.token_ids))
    assert all(toy.executor.open_sessions == 0 for toy in swarm.servers.values())


# --- losses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [[], range(0, 60, 5)])
@pytest.mark.parametrize("lost", ["first", "middle", "last"])
async def test_a_server_lost_with_windows_under_way_changes_no_token(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch, lost: str, wrong: list[int]
) -> None:
    for index, name in enumerate(["first", "middle", "last"]):
        swarm.add(name, index * 2, index * 2 + 2, step_seconds=0.002)
        swarm.add(f"{name} twin", index * 2, index * 2 + 2, announced_step_seconds=0.1)
    tell(monkeypatch, PROMPT, whole(60), wrong, NarrowPolicy)
    asked = Asked(swarm.model, PROMPT, SamplingSettings(temperature=0, max_tokens=60))
    await asked.until(tokens=8)
    swarm.servers[lost].executor.hold.clear()
    await asyncio.sleep(0.05)  # everything under way has come to the one that holds
    swarm.kill(lost)
    async with asyncio.timeout(10):
        assert list((await asked.end()).token_ids) == asked.written == whole(60)
    assert ChatPhase.RECOVERING in asked.phases


async def test_a_history_that_is_gone_costs_a_new_prefill_and_no_token(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.pipeline.history.History.holds", lambda self, tokens: False)
    prompt = [(i * 13) % 49 + 1 for i in range(254)]  # a window lies across the border of chunks
    swarm.add("a", 0, 3, step_seconds=0.002)
    swarm.add("b", 3, 6, step_seconds=0.002)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    tell(monkeypatch, prompt, whole(prompt=prompt), {20})
    asked = Asked(swarm.model, prompt)
    swarm.servers["b"].executor.hold.clear()
    await asyncio.sleep(0.05)
    swarm.servers["b"].executor.hold.set()
    await asked.until(tokens=1)
    swarm.kill("b")
    assert list((await asked.end()).token_ids) == whole(prompt=prompt)


async def test_a_way_between_servers_lost_while_drafts_are_wrong(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = swarm.add("a", 0, 3, step_seconds=0.002)
    b = swarm.add("b", 3, 6, step_seconds=0.002)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    tell(monkeypatch, PROMPT, whole(60), range(0, 60, 3), NarrowPolicy)
    asked = Asked(swarm.model, PROMPT, SamplingSettings(temperature=0, max_tokens=60))
    await asked.until(tokens=6)
    swarm.network.cut(a.peer, b.peer)
    async with asyncio.timeout(8):
        assert list((await asked.end()).token_ids) == whole(60)
