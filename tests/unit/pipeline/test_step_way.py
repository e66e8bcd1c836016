"""Long steps go in 8 bits over links that are known to hold them up, and only there."""

from __future__ import annotations

import asyncio
import math
import time

import pytest
import torch

from frames import step_frame
from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.link_rates import LinkRates
from superbloom.domain.speculation import WINDOW_TOKENS
from superbloom.pipeline import step_way
from superbloom.pipeline.messages import Arrived, Step, decode_frame, encode_frame
from superbloom.pipeline.step_way import MOST_RATE, StepWay, tell_arrived
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Stream

HIDDEN = 4
TOKENS = 100
NBYTES = TOKENS * HIDDEN * 4
SLOW, FAST = Arrived(bytes_per_second=NBYTES // 2), Arrived(bytes_per_second=10**9)


def long(tokens: int = TOKENS, **changes: object) -> Step:
    return step_frame(torch.randn(tokens, HIDDEN), **changes)


def way_to(
    rates: LinkRates, peer: str = "peer", *, computing: float = 0.0, allows_compact: bool = True
) -> StepWay:
    return StepWay(peer, rates, lambda _: computing, allows_compact=allows_compact)


def step_in(frame: bytes) -> Step:
    step = decode_frame(frame, hidden_size=HIDDEN)
    assert isinstance(step, Step)
    return step


async def sent(way: StepWay, step: Step) -> Step:
    """The step as it goes out, which must be at once."""
    async with asyncio.timeout(0.5):
        return step_in(await way.frame(step))


async def test_the_second_step_over_an_unknown_link_waits_until_the_first_is_there() -> None:
    way = way_to(LinkRates())
    assert not (await sent(way, long())).compact
    second = asyncio.create_task(way.frame(long()))
    await asyncio.sleep(0.02)
    assert not second.done()
    way.heard(SLOW)
    assert step_in(await second).compact
    assert (await sent(way, long())).compact


async def test_a_fast_link_carries_what_it_got() -> None:
    way = way_to(LinkRates())
    first = long()
    assert torch.equal((await sent(way, first)).hidden, first.hidden)
    way.heard(FAST)
    for _ in range(5):
        step = await sent(way, long(compact=True))
        assert not step.compact


async def test_a_slow_link_is_none_where_computing_takes_longer() -> None:
    way = way_to(LinkRates(), computing=5.0)
    await sent(way, long())
    way.heard(SLOW)
    assert not (await sent(way, long())).compact


async def test_a_new_session_begins_with_what_an_earlier_one_learnt() -> None:
    rates = LinkRates()
    way = way_to(rates)
    await sent(way, long())
    way.heard(SLOW)
    assert (await sent(way_to(rates), long())).compact
    assert not (await sent(way_to(rates, "another peer"), long())).compact


async def test_steps_without_a_gap_are_timed_by_their_replies() -> None:
    rates = LinkRates()
    way = way_to(rates)
    rates.note("peer", 1e9, time.monotonic())
    for _ in range(4):
        await sent(way, long())
    for _ in range(4):
        await asyncio.sleep(0.05)
        way.heard(Arrived(bytes_per_second=2**32 - 1))
    rate = rates.bytes_per_second("peer", time.monotonic())
    assert rate is not None
    assert NBYTES / 0.08 < rate < NBYTES / 0.045


async def test_a_gap_between_steps_is_not_held_against_the_link() -> None:
    rates = LinkRates()
    way = way_to(rates)
    for _ in range(4):
        await sent(way, long())
        await asyncio.sleep(0.05)
        way.heard(FAST)
    assert rates.bytes_per_second("peer", time.monotonic()) == FAST.bytes_per_second


async def test_steps_of_an_answer_are_never_compact_and_never_wait() -> None:
    rates = LinkRates()
    way = way_to(rates)
    await sent(way, long())
    assert not (await sent(way, long(WINDOW_TOKENS))).compact
    way.heard(SLOW)
    assert not (await sent(way, long(WINDOW_TOKENS, compact=True))).compact


async def test_an_exact_session_never_waits_and_is_never_compact() -> None:
    rates = LinkRates()
    learning = way_to(rates)
    await sent(learning, long())
    exact = way_to(LinkRates(), allows_compact=False)
    for _ in range(3):
        assert not (await sent(exact, long())).compact
    learning.heard(SLOW)
    assert not (await sent(way_to(rates, allows_compact=False), long())).compact


async def test_the_end_of_a_stream_lets_go_who_waits() -> None:
    way = way_to(LinkRates())
    await sent(way, long())
    second = asyncio.create_task(way.frame(long()))
    await asyncio.sleep(0)
    way.end()
    async with asyncio.timeout(0.5):
        assert not step_in(await second).compact


async def test_a_peer_that_never_says_a_word_counts_as_a_slow_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step_way, "HOLD_SECONDS", 0.3)
    way = way_to(LinkRates())
    await sent(way, long())
    async with asyncio.timeout(1):
        assert step_in(await way.frame(long())).compact


async def test_a_word_about_nothing_is_refused() -> None:
    way = way_to(LinkRates())
    with pytest.raises(ProtocolViolation):
        way.heard(FAST)
    await sent(way, long())
    way.heard(FAST)
    with pytest.raises(ProtocolViolation):
        way.heard(FAST)


@pytest.mark.parametrize("rate", [1000.0, math.inf])
async def test_the_receiver_of_a_long_step_says_how_fast_it_came(rate: float) -> None:
    network = MemoryNetwork(seed=1)
    network.limit(rate, "a", "b")
    near_end, far_end = network.join("a"), network.join("b")

    async def serve(raw: Stream) -> None:
        stream = LiveStream(raw)
        while (data := await stream.receive()) is not None:
            step = decode_frame(data, hidden_size=HIDDEN)
            assert isinstance(step, Step)
            await tell_arrived(stream, step)

    far_end.handle_stream("x", serve)
    stream = LiveStream(await near_end.open_stream("b", "x", timeout=1))
    await stream.send(encode_frame(long(1)))
    await stream.send(encode_frame(long(20)))
    async with asyncio.timeout(2):
        word = decode_frame(await stream.receive() or b"", hidden_size=HIDDEN)
    assert word == Arrived(bytes_per_second=min(rate, MOST_RATE))
    await stream.close()
    await near_end.close()
    await far_end.close()
