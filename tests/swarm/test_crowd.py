"""Whatever one client does on a server, another's answer goes on: the same text, at its speed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch

from by_hand import step
from crowd import SAMPLING, STEP_SECONDS, TOKENS, always, counted, crowd, hear
from superbloom.pipeline.messages import (
    CHUNK_TOKENS,
    NewEpoch,
    Opened,
    Park,
    Probe,
    Refused,
    Result,
    Resume,
    Resumed,
    encode_frame,
)
from superbloom.pipeline.served_session import most_frame_bytes
from superbloom.pipeline.step_room import SESSION_STEPS
from superbloom.swarm.live_stream import PING
from toy_model import HIDDEN, toy_continuation
from toy_swarm import BLOCKS, Asked

MOST_SECONDS = 3.5 * STEP_SECONDS
"""A token of the good client: little more than a step, or two where it just misses one; and what
this computer takes for all of the crowd."""

MOST_FORWARDS = 5
"""A token of the good client, in forwards: its own, those of one other client and of one prompt;
and once in a while those of a tick that it just missed."""

PROBE, PARK = encode_frame(Probe()), encode_frame(Park())
NEW_EPOCH = encode_frame(NewEpoch(epoch=1, position=0, previous=""))

FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "steps": lambda: always(step()),
    "windows of 8 of which nothing is kept": lambda: always(
        step(hidden=torch.ones(8, HIDDEN), keep=0)
    ),
    "steps of an older epoch": lambda: counted(lambda n: step(epoch=1 if n == 1 else 0)),
    "a new epoch with each step": lambda: counted(lambda n: step(epoch=n)),
    "replays": lambda: always(step(replay=True)),
    "new epochs": lambda: always(NEW_EPOCH),
    "questions": lambda: always(PROBE),
    "pauses": lambda: always(PARK),
    "signs of life": lambda: always(PING),
}


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("name", FLOODS)
async def test_a_client_that_floods_its_session_slows_nobody(name: str, reads: bool) -> None:
    async with crowd() as beside:
        await beside.flood(FLOODS[name](), reads=reads)
        await asyncio.sleep(0.2)
        assert await beside.good_answer() < MOST_SECONDS
        assert beside.queued_bytes() <= SESSION_STEPS * 8 * HIDDEN * 4


@pytest.mark.parametrize("tokens", [8, 9, 200])
async def test_steps_of_any_length_leave_the_others_their_turn(tokens: int) -> None:
    cost = 0.0002
    async with crowd(token_seconds=cost) as beside:
        flood = always(step(hidden=torch.ones(tokens, HIDDEN), keep=0))
        await beside.flood(flood, max_tokens=tokens)
        await asyncio.sleep(0.2)
        alone = STEP_SECONDS + cost * (tokens + 1)
        assert await beside.good_answer() < 3 * alone


async def test_a_prompt_is_read_beside_many_who_decode() -> None:
    async with crowd() as beside:
        for _ in range(8):
            await beside.flood(always(step()))
        await asyncio.sleep(0.1)
        prompt = [(i * 13) % 49 + 1 for i in range(300)]
        asked = Asked(beside.swarm.model, prompt, SAMPLING)
        async with asyncio.timeout(3):
            assert list((await asked.end()).token_ids) == toy_continuation(prompt, TOKENS, BLOCKS)


async def test_many_sessions_of_a_client_slow_nobody_much() -> None:
    async with crowd() as beside:
        for _ in range(16):
            await beside.flood(always(step(hidden=torch.ones(8, HIDDEN))))
        await asyncio.sleep(0.3)
        assert beside.bad_sessions() == 16
        assert await beside.forwards_a_token() < MOST_FORWARDS
        assert beside.queued_bytes() <= 17 * SESSION_STEPS * 8 * HIDDEN * 4


async def test_sessions_over_many_runs_of_blocks_cost_another_client_one_forward_a_step() -> None:
    async with crowd() as beside:
        for start, end in itertools.combinations(range(BLOCKS), 2):
            await beside.flood(always(step()), start=start, end=end)
        await asyncio.sleep(0.3)
        assert beside.bad_sessions() == 15
        assert await beside.forwards_a_token() < MOST_FORWARDS


async def test_many_long_prompts_of_a_client_are_read_beside_anothers_answer() -> None:
    async with crowd() as beside:
        for _ in range(10):
            prompts = always(step(hidden=torch.ones(2000, HIDDEN)))
            await beside.flood(prompts, max_tokens=2000)
        await asyncio.sleep(0.3)
        assert await beside.forwards_a_token() < MOST_FORWARDS


async def test_a_prompt_is_read_in_turn_with_all_those_of_another_client() -> None:
    async with crowd() as beside:
        for _ in range(10):
            prompts = always(step(hidden=torch.ones(500, HIDDEN)))
            await beside.flood(prompts, max_tokens=500)
        await asyncio.sleep(0.3)
        begun = len(beside.stage.batches)
        asked = Asked(beside.swarm.model, [7] * 1000, SAMPLING)
        await asked.until(tokens=1)
        chunks = 1000 / CHUNK_TOKENS + 1
        assert len(beside.stage.batches) - begun < 3 * chunks
        asked.stop.set()
        await asked.end()


async def test_a_next_server_that_is_not_there_is_looked_for_once_an_epoch() -> None:
    async with crowd() as beside:
        looks = beside.swarm.directory.looks
        await beside.flood(always(step()), next="nobody", next_session="ab" * 16)
        assert await beside.good_answer() < MOST_SECONDS
        assert beside.executor.stats().tokens_computed > TOKENS + 20
        assert beside.swarm.directory.looks - looks == 1


# --- what ends the bad session at once --------------------------------------------------------

BAD_STEPS = {
    "a gap": step(position=7),
    "more tokens than there is room": step(hidden=torch.ones(101, HIDDEN)),
    "more tokens than a step may have": step(hidden=torch.ones(2049, HIDDEN)),
    "a wider state": step(hidden=torch.ones(1, HIDDEN + 1)),
    "more kept than sent": step(keep=2),
    "an epoch beyond what is passed on": step(epoch=1, position=3),
}


@pytest.mark.parametrize("name", BAD_STEPS)
async def test_a_bad_step_ends_its_own_session_in_words(name: str) -> None:
    async with crowd() as beside:
        answering = asyncio.create_task(beside.good_answer())
        await asyncio.sleep(5 * STEP_SECONDS)
        stream = await beside.bad_stream()
        assert isinstance(await hear(stream), Opened)
        await stream.send(BAD_STEPS[name])
        refused = await hear(stream)
        assert isinstance(refused, Refused)
        assert refused.code == "protocol_violation"
        assert await answering < MOST_SECONDS


async def test_a_frame_that_is_too_long_ends_its_session() -> None:
    async with crowd() as beside:
        answering = asyncio.create_task(beside.good_answer())
        await asyncio.sleep(5 * STEP_SECONDS)
        stream = await beside.bad_stream()
        await hear(stream)
        await stream.send(bytes(most_frame_bytes(HIDDEN) + 1))
        async with asyncio.timeout(2):
            while beside.bad_sessions():
                await asyncio.sleep(0.01)
        assert await answering < MOST_SECONDS


async def test_a_session_asks_for_more_cache_than_there_is() -> None:
    async with crowd(room=BLOCKS * 400) as beside:
        answering = asyncio.create_task(beside.good_answer())
        await asyncio.sleep(5 * STEP_SECONDS)
        stream = await beside.bad_stream(max_tokens=1000)
        refused = await hear(stream)
        assert isinstance(refused, Refused)
        assert refused.code == "session_refused"
        assert "asks for 1000" in refused.message
        assert await answering < MOST_SECONDS


async def test_a_session_that_rested_asks_for_more_cache_than_there_is() -> None:
    async with crowd(room=BLOCKS * 400) as beside:
        answering = asyncio.create_task(beside.good_answer())
        await asyncio.sleep(5 * STEP_SECONDS)
        stream = await beside.bad_stream()
        await hear(stream)
        for frame in (Park(), Resume(epoch=3, position=0, max_tokens=1000)):
            await stream.send(encode_frame(frame))
        assert await hear(stream) == Resumed(granted=False)
        assert await answering < MOST_SECONDS


async def test_a_session_that_grows_after_its_rest_takes_the_place_of_those_that_rest() -> None:
    async with crowd(room=BLOCKS * 400) as beside:
        resting, growing = [await beside.bad_stream() for _ in range(2)]
        for stream in (resting, growing):
            await hear(stream)
            await stream.send(PARK)
        await asyncio.sleep(0.05)
        order = Resume(epoch=3, position=0, max_tokens=350)
        await growing.send(encode_frame(order))
        assert await hear(growing) == Resumed(granted=True)
        assert isinstance(await hear(resting), Refused)
        await growing.send(step(epoch=3))
        assert isinstance(await hear(growing), Result)


async def test_alone_a_token_takes_little_more_than_a_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with crowd() as beside:
        assert await beside.good_answer() < 2 * STEP_SECONDS
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
