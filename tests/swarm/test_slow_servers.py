"""A server that is slower than it says, or became busy, is left at the next turn."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from superbloom.domain.generation import PhaseChange
from superbloom.domain.sampling import SamplingSettings
from toy_model import toy_continuation
from toy_swarm import BLOCKS, Asked, ToySwarm

PROMPT = [(i * 13) % 49 + 1 for i in range(40)]
LONG = SamplingSettings(temperature=0, max_tokens=44)
SHORT = SamplingSettings(temperature=0, max_tokens=5)


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    toys.model._drafts = False
    yield toys
    await toys.close()


async def ask(
    swarm: ToySwarm, prompt: list[int], sampling: SamplingSettings = SHORT
) -> tuple[list[int], tuple[str, ...]]:
    """The answer's tokens and the servers at its end."""
    asked = Asked(swarm.model, prompt, sampling)
    answer = list((await asked.end()).token_ids)
    assert answer == toy_continuation(prompt, sampling.max_tokens, BLOCKS)
    chains = [event.chain for event in asked.events if isinstance(event, PhaseChange)]
    return answer, chains[-1]


async def test_the_chain_is_shown_with_blocks_and_times(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 2)
    swarm.add("b", 2, 6, announced_step_seconds=0.02)
    asked = Asked(swarm.model, PROMPT, SHORT)
    await asked.end()
    shown = [event.hops for event in asked.events if isinstance(event, PhaseChange) and event.hops]
    assert list(map(str, shown[-1])) == ["a (blocks 0-1, 10 ms)", "b (blocks 2-5, 20 ms)"]


@pytest.mark.parametrize("liar_first", [False, True])
async def test_a_server_ten_times_slower_than_it_says_is_left_at_the_next_turn(
    swarm: ToySwarm, liar_first: bool
) -> None:
    said, true = 0.005, 0.05
    liars, honest = ((0, 3), (3, 6)) if liar_first else ((3, 6), (0, 3))
    swarm.add("honest", *honest, announced_step_seconds=said, step_seconds=said)
    liar = swarm.add("liar", *liars, announced_step_seconds=said, step_seconds=true)
    swarm.add("twin", *liars, announced_step_seconds=2 * said, step_seconds=2 * said)
    answer, chain = await ask(swarm, PROMPT, LONG)
    assert set(chain) == {"honest", "liar"}
    steps = liar.executor.steps
    for text in ([*PROMPT, *answer, 7], [3] * 40):  # a further turn, and another chat
        _, chain = await ask(swarm, text)
        assert set(chain) == {"honest", "twin"}
    assert liar.executor.steps == steps


async def test_a_slow_server_that_nobody_replaces_is_kept_with_its_cache(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, announced_step_seconds=0.001)
    slow = swarm.add("slow", 3, 6, announced_step_seconds=0.001, step_seconds=0.05)
    answer, _ = await ask(swarm, PROMPT, LONG)
    tokens = slow.executor.tokens
    await ask(swarm, [*PROMPT, *answer, 7])
    assert slow.executor.tokens - tokens == 1 + 1 + SHORT.max_tokens - 1


async def test_a_server_that_became_busy_is_left_at_the_next_turn(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 6)
    swarm.add("b", 0, 6, announced_step_seconds=0.02)
    answer, chain = await ask(swarm, PROMPT)
    assert chain == ("a",)
    swarm.relist("a", sessions=9, waiting_seconds=0.4)
    second = [*PROMPT, *answer, 7]
    answer, chain = await ask(swarm, second)
    assert chain == ("b",)
    swarm.relist("a", sessions=0)
    _, chain = await ask(swarm, [*second, *answer, 7])
    assert chain == ("a",)


async def test_a_little_quicker_is_not_worth_reading_everything_again(swarm: ToySwarm) -> None:
    server = swarm.add("a", 0, 6, announced_step_seconds=0.01)
    answer, _ = await ask(swarm, PROMPT)
    swarm.add("b", 0, 6, announced_step_seconds=0.009)
    swarm.add("c", 0, 6, announced_step_seconds=0.001, room=20)
    swarm.relist("c", free_cache_tokens=20)
    tokens = server.executor.tokens
    _, chain = await ask(swarm, [*PROMPT, *answer, 7])
    assert chain == ("a",)
    assert server.executor.tokens - tokens < len(PROMPT)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_is_set_while_an_answer_is_written_changes_nothing(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    swarm.add("a", 0, 3, step_seconds=0.003)
    swarm.add("b", 3, 6, step_seconds=0.003)
    swarm.add("twin", 3, 6, announced_step_seconds=0.5)
    asked = Asked(swarm.model, PROMPT, LONG)
    await asked.until(tokens=5)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + jump)
    await asked.until(tokens=10)
    swarm.kill("b")
    answer = list((await asked.end()).token_ids)
    assert answer == toy_continuation(PROMPT, LONG.max_tokens, BLOCKS)
    _, chain = await ask(swarm, [*PROMPT, *answer, 7])
    assert chain == ("a", "twin")
