"""Prompts go in 8 bits over links that hold them up, and there only if they may."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
import torch

from by_hand import opening, pushing
from frames import step_frame
from superbloom.domain.generation import ChatPhase
from superbloom.domain.sampling import SamplingSettings
from superbloom.pipeline.messages import (
    CHUNK_TOKENS,
    PUSH_SERVICE,
    SESSION_SERVICE,
    Open,
    Opened,
    Refused,
    Step,
    decode_frame,
    encode_frame,
)
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.memory_stream import MemoryStream
from toy_model import HIDDEN, toy_continuation
from toy_swarm import BLOCKS, Asked, ToySwarm

CHUNKS = 6
PROMPT = [(i * 13) % 49 + 1 for i in range(CHUNKS * CHUNK_TOKENS)]
CHUNK_BYTES = CHUNK_TOKENS * HIDDEN * 4
SHORT = SamplingSettings(temperature=0, max_tokens=4)
EXACT = dataclasses.replace(SHORT, exact=True)
SLOW = CHUNK_BYTES / 0.5
"""A chunk takes half a second; the toys say that they compute one in a quarter."""

FAST = CHUNK_BYTES / 0.1
WIDTHS = {"client to first": ("client", "a"), "first to second": ("a", "b")}


class Traffic:
    """The bytes of steps, the steps, and those in 8 bits, by sender and receiver."""

    def __init__(self) -> None:
        self.nbytes: Counter[tuple[str, str]] = Counter()
        self.steps: dict[tuple[str, str], list[Step]] = {}

    def note(self, way: tuple[str, str], frame: bytes) -> None:
        step = decode_frame(frame, hidden_size=HIDDEN) if frame else None
        if isinstance(step, Step):
            self.nbytes[way] += len(frame)
            self.steps.setdefault(way, []).append(step)

    def compact(self, way: tuple[str, str]) -> list[int]:
        """Where the compact steps begin."""
        return [step.position for step in self.steps[way] if step.compact]

    def all_compact(self) -> int:
        return sum(step.compact for steps in self.steps.values() for step in steps)


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    seen = Traffic()
    put = MemoryStream.put_on_way

    def counting(stream: MemoryStream, frame: bytes | None) -> None:
        seen.note((stream.peer, stream.owner), frame or b"")
        put(stream, frame)

    monkeypatch.setattr(MemoryStream, "put_on_way", counting)
    return seen


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    toys.add("a", 0, 3)
    toys.add("b", 3, BLOCKS)
    yield toys
    await toys.close()


def whole(prompt: list[int] = PROMPT) -> list[int]:
    return toy_continuation(prompt, SHORT.max_tokens, BLOCKS)


async def answer(swarm: ToySwarm, sampling: SamplingSettings = SHORT) -> list[int]:
    return list((await Asked(swarm.model, PROMPT, sampling).end()).token_ids)


@pytest.mark.parametrize("width", WIDTHS)
async def test_a_prompt_over_a_slow_link_takes_clearly_fewer_bytes(
    swarm: ToySwarm, traffic: Traffic, width: str
) -> None:
    narrow = WIDTHS[width]
    swarm.network.limit(SLOW, *narrow)
    await answer(swarm)
    starts = [number * CHUNK_TOKENS for number in range(CHUNKS)]
    assert traffic.compact(narrow) == starts[1:]  # the first tells how slow the link is
    assert traffic.nbytes[narrow] < 0.6 * CHUNKS * CHUNK_BYTES
    (other,) = set(WIDTHS.values()) - {narrow}
    assert traffic.compact(other) == []
    assert traffic.nbytes[other] > CHUNKS * CHUNK_BYTES


async def test_the_next_prompt_is_compact_from_its_first_step_on(
    swarm: ToySwarm, traffic: Traffic
) -> None:
    narrow = WIDTHS["client to first"]
    swarm.network.limit(SLOW, *narrow)
    await answer(swarm)
    traffic.steps.clear()
    other = [token + 1 for token in PROMPT[: 2 * CHUNK_TOKENS]]
    await Asked(swarm.model, other, SHORT).end()
    assert traffic.compact(narrow) == [0, CHUNK_TOKENS]


@pytest.mark.parametrize("width", WIDTHS)
async def test_exactness_that_is_asked_for_is_kept_over_any_link(
    swarm: ToySwarm, traffic: Traffic, width: str
) -> None:
    swarm.network.limit(SLOW, *WIDTHS[width])
    assert await answer(swarm, EXACT) == whole()
    assert traffic.all_compact() == 0


async def test_an_exact_answer_takes_up_no_session_that_may_have_been_rounded(
    swarm: ToySwarm, traffic: Traffic
) -> None:
    swarm.network.limit(SLOW, *WIDTHS["client to first"])
    written = await answer(swarm)
    assert traffic.all_compact() > 0
    swarm.network.limit(1e9, *WIDTHS["client to first"])
    longer = [*PROMPT, *written, 5, 6]
    end = await Asked(swarm.model, longer, EXACT).end()
    assert list(end.token_ids) == whole(longer)


@pytest.mark.parametrize("rate", [None, FAST])
async def test_where_computing_takes_longer_nothing_is_rounded(
    swarm: ToySwarm, traffic: Traffic, rate: float | None
) -> None:
    if rate is not None:
        for narrow in WIDTHS.values():
            swarm.network.limit(rate, *narrow)
    assert await answer(swarm) == whole()
    assert traffic.all_compact() == 0


async def test_a_replay_over_a_good_link_is_exact(swarm: ToySwarm, traffic: Traffic) -> None:
    swarm.add("b twin", 3, BLOCKS, announced_step_seconds=0.5)
    asked = Asked(swarm.model, PROMPT, dataclasses.replace(SHORT, max_tokens=30))
    await asked.until(tokens=5)
    swarm.kill("b")
    assert list((await asked.end()).token_ids) == toy_continuation(PROMPT, 30, BLOCKS)
    assert ChatPhase.RECOVERING in asked.phases
    assert any(step.replay for step in traffic.steps["a", "b twin"])
    assert traffic.all_compact() == 0


async def test_a_replay_over_a_slow_link_is_compact_too(swarm: ToySwarm, traffic: Traffic) -> None:
    for server in swarm.servers.values():
        server.executor.step_seconds = 0.02
    swarm.add("b twin", 3, BLOCKS, announced_step_seconds=0.5)
    swarm.network.limit(SLOW, "a", "b twin")
    asked = Asked(swarm.model, PROMPT, dataclasses.replace(SHORT, max_tokens=30))
    await asked.until(tokens=5)
    swarm.kill("b")
    assert len((await asked.end()).token_ids) == 30
    replayed = traffic.steps["a", "b twin"]
    long = [step.compact for step in replayed if step.replay and step.is_long]
    assert long == [False] + [True] * (CHUNKS - 1)
    assert not any(step.compact for step in replayed if not step.is_long)


# --- those who do not keep to what was agreed -----------------------------------------------


async def hear(stream: LiveStream) -> object:
    return decode_frame(await stream.receive() or b"", hidden_size=HIDDEN)


async def opened(swarm: ToySwarm, **changes: object) -> tuple[Open, LiveStream]:
    mallory = swarm.network.join("mallory")
    said = opening(swarm, "mallory", "a", end=3, max_tokens=1000, **changes)
    stream = LiveStream(await mallory.open_stream("a", SESSION_SERVICE, timeout=2))
    await stream.send(encode_frame(said))
    assert isinstance(await hear(stream), Opened)
    return said, stream


COMPACT_STEP = encode_frame(step_frame(torch.ones(20, HIDDEN), compact=True))


async def test_a_client_that_rounds_in_an_exact_session_loses_it(swarm: ToySwarm) -> None:
    _, stream = await opened(swarm, allows_compact=False)
    await stream.send(COMPACT_STEP)
    heard = await hear(stream)
    assert isinstance(heard, Refused)
    assert heard.code == "protocol_violation"
    await stream.close()


async def test_a_server_that_rounds_in_an_exact_session_is_blamed(swarm: ToySwarm) -> None:
    liar = swarm.network.join("liar")
    said, stream = await opened(swarm, allows_compact=False, previous="liar")
    push = LiveStream(await liar.open_stream("a", PUSH_SERVICE, timeout=2))
    await push.send(encode_frame(pushing(swarm, "liar", "a", said.session)))
    await push.send(COMPACT_STEP)
    heard = await hear(stream)
    assert isinstance(heard, Refused)
    assert (heard.code, heard.blame) == ("protocol_violation", "liar")
    await stream.close()
    await push.close()
