"""Peers that lie, babble or say nothing harm neither the answer nor the other users of a server."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
import torch

from by_hand import opening, pushing, step
from superbloom.domain.errors import PeerLost, SessionRefused
from superbloom.domain.generation import ChatPhase
from superbloom.pipeline import session as session_module
from superbloom.pipeline import stall
from superbloom.pipeline.messages import (
    PUSH_SERVICE,
    SESSION_SERVICE,
    Close,
    EpochBegun,
    NewEpoch,
    Open,
    Opened,
    Probe,
    Progress,
    Refused,
    Result,
    Step,
    decode_frame,
    encode_frame,
)
from superbloom.pipeline.server import FIRST_FRAME_BYTES
from superbloom.pipeline.step_room import SESSION_STEPS, PeerRoom
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryTransport
from superbloom.swarm.transport import Stream
from toy_model import HIDDEN, toy_continuation
from toy_swarm import BLOCKS, GREEDY, Asked, ToySwarm

PROMPT = [5, 17, 3, 44, 9]


@pytest.fixture
async def swarm() -> AsyncIterator[ToySwarm]:
    toys = ToySwarm()
    yield toys
    await toys.close()


def whole() -> list[int]:
    return toy_continuation(PROMPT, GREEDY.max_tokens, BLOCKS)


async def talk(
    client: MemoryTransport, server: str, *frames: bytes, linger: float = 2
) -> list[object]:
    """Say `frames` to a server; what it says until it ends the stream or `linger` s pass."""
    stream = LiveStream(await client.open_stream(server, SESSION_SERVICE, timeout=2))
    heard: list[object] = []
    try:
        async with asyncio.timeout(linger):
            for frame in frames:
                await stream.send(frame)
            while (data := await stream.receive()) is not None:
                heard.append(decode_frame(data, hidden_size=HIDDEN))
    except (TimeoutError, PeerLost):
        pass
    finally:
        await stream.close()
    return heard


NAN_STEP = step(hidden=torch.tensor([[1.0, float("nan"), 0.0]]))
HUGE_STEP = struct.pack("<BIIIIB", 1, 0, 0, 2**31, 0, 0) + struct.pack("<BII", 0, 2**31, HIDDEN)

BAD_STEPS = {
    "wrong width": step(hidden=torch.ones(2, HIDDEN + 1)),
    "not finite": NAN_STEP,
    "huge size": HUGE_STEP,
    "unknown dtype": step()[:18] + b"\x07" + step()[19:],
    "cut short": step()[:-3],
    "random bytes": bytes(range(256)),
    "a gap": step(position=5),
    "past the announced end": step(hidden=torch.ones(51, HIDDEN)),
    "an empty control frame": bytes([16]),
    "a server's message": encode_frame(Opened()),
    "a second Open": b"open",
}


@pytest.mark.parametrize("name", BAD_STEPS)
async def test_a_client_that_sends_nonsense_loses_only_its_own_session(
    swarm: ToySwarm, name: str
) -> None:
    server = swarm.add("a", 0, BLOCKS, step_seconds=0.002)
    honest = Asked(swarm.model, PROMPT)
    await honest.until(tokens=3)
    mallory = swarm.network.join("mallory")
    opened = encode_frame(opening(swarm, mallory.peer_id, server.peer))
    bad = opened if BAD_STEPS[name] == b"open" else BAD_STEPS[name]
    heard = await talk(mallory, server.peer, opened, bad)
    assert isinstance(heard[0], Opened)
    assert isinstance(heard[-1], Refused)
    assert heard[-1].code == "protocol_violation"
    assert list((await honest.end()).token_ids) == whole()
    async with asyncio.timeout(5):
        while server.server.sessions:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tag": "00" * 32}, "session_refused"),
        ({"tag": "not hex"}, "session_refused"),
        ({"model": "other"}, "session_refused"),
        ({"fingerprint": "other"}, "session_refused"),
        ({"end": BLOCKS + 1}, "session_refused"),
        ({"start": 4, "end": 2}, "session_refused"),
        ({"session": "xyz"}, "protocol_violation"),
        ({"max_tokens": 0}, "protocol_violation"),
        ({"protocol": 99}, "protocol_violation"),
    ],
)
async def test_a_session_that_may_not_be_opened_is_refused(
    swarm: ToySwarm, changes: dict[str, object], code: str
) -> None:
    server = swarm.add("a", 0, BLOCKS)
    mallory = swarm.network.join("mallory")
    heard = await talk(
        mallory, server.peer, encode_frame(opening(swarm, mallory.peer_id, server.peer, **changes))
    )
    assert [type(frame) for frame in heard] == [Refused]
    assert isinstance(heard[0], Refused)
    assert heard[0].code == code
    assert heard[0].next_step


async def test_a_stranger_cannot_push_into_a_session(swarm: ToySwarm) -> None:
    swarm.add("a", 0, 3, step_seconds=0.002)
    other = swarm.add("b", 3, 6, step_seconds=0.002)
    asked = Asked(swarm.model, PROMPT)
    await asked.until(tokens=3)
    mallory = swarm.network.join("mallory")
    (session_id,) = other.executor._inputs
    stream = LiveStream(await mallory.open_stream(other.peer, PUSH_SERVICE, timeout=2))
    push = pushing(swarm, mallory.peer_id, other.peer, session_id.hex())
    await stream.send(encode_frame(push))
    with pytest.raises(PeerLost):
        async with asyncio.timeout(3):
            while True:
                await stream.send(step())
                if await stream.receive() is None:
                    raise PeerLost("closed")
    await stream.close()
    assert list((await asked.end()).token_ids) == whole()


@pytest.mark.parametrize("service", [SESSION_SERVICE, PUSH_SERVICE])
async def test_a_stranger_says_little_before_it_is_known(swarm: ToySwarm, service: str) -> None:
    server = swarm.add("a", 0, BLOCKS)
    mallory = swarm.network.join("mallory")
    stream = LiveStream(await mallory.open_stream(server.peer, service, timeout=2))
    with pytest.raises(PeerLost, match="too long"):
        async with asyncio.timeout(3):
            await stream.send(bytes(FIRST_FRAME_BYTES + 1))
            await stream.receive()
    await stream.close()


async def test_what_waits_in_a_session_is_bounded(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.ones(1, HIDDEN).nbytes
    monkeypatch.setattr(PeerRoom.__init__, "__defaults__", (10 * weight,))
    server = swarm.add("a", 0, BLOCKS)
    server.executor.hold.clear()
    mallory = swarm.network.join("mallory")
    opened = encode_frame(opening(swarm, mallory.peer_id, server.peer))
    heard = await talk(mallory, server.peer, opened, *[step() for _ in range(40)], linger=0.3)
    assert [type(frame) for frame in heard] == [Opened]
    assert max(server.executor.most_queued.values()) <= 10
    server.executor.hold.set()


async def test_a_session_listens_to_one_stream_of_the_previous_server(swarm: ToySwarm) -> None:
    server = swarm.add("b", 0, BLOCKS)
    client, mallory = swarm.network.join("accomplice"), swarm.network.join("mallory")
    opened = encode_frame(
        opening(swarm, client.peer_id, server.peer, previous=mallory.peer_id, max_tokens=1000)
    )
    session = LiveStream(await client.open_stream(server.peer, SESSION_SERVICE, timeout=2))
    await session.send(opened)
    await session.receive()
    server.executor.hold.clear()
    pushes = []
    for _ in range(20):
        pushes.append(LiveStream(await mallory.open_stream(server.peer, PUSH_SERVICE, timeout=2)))
        await pushes[-1].send(encode_frame(pushing(swarm, mallory.peer_id, server.peer)))
        for _ in range(SESSION_STEPS + 1):  # one more than may be queued
            await pushes[-1].send(step())
    async with asyncio.timeout(3):
        for stream in pushes[:-1]:
            refused = decode_frame(await stream.receive() or b"", hidden_size=HIDDEN)
            assert isinstance(refused, Refused)
            assert "later stream" in refused.message
            assert await stream.receive() is None
    async with asyncio.timeout(3):
        while max(server.executor.most_queued.values()) < SESSION_STEPS:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert max(server.executor.most_queued.values()) == SESSION_STEPS
    server.executor.hold.set()
    async with asyncio.timeout(3):
        for _ in range(SESSION_STEPS):  # the session goes on
            assert isinstance(
                decode_frame(await session.receive() or b"", hidden_size=HIDDEN), Result
            )
    for stream in (*pushes, session):
        await stream.close()


async def test_another_swarm_is_refused_in_words(swarm: ToySwarm) -> None:
    swarm.add("a", 0, BLOCKS)
    stranger = swarm.client(swarm.network.join("stranger"), Membership("others", b"x" * 32))
    with pytest.raises(SessionRefused, match="does not belong to this swarm"):
        await Asked(stranger, PROMPT).end()
    await stranger.close()


# --- servers --------------------------------------------------------------------------------


class LyingServer:
    """Accepts sessions like a server and answers each step with `lie(step)`, or not at all."""

    def __init__(self, swarm: ToySwarm, lie: object, *, honest_steps: int = 0) -> None:
        toy = swarm.add("liar", 3, 6, announced_step_seconds=0.0001, listed=True)
        self._lie = lie
        toy.transport.handle_stream(SESSION_SERVICE, self._serve)
        toy.transport.handle_stream(PUSH_SERVICE, self._pushed)
        self._client: LiveStream | None = None

    async def _serve(self, raw: Stream) -> None:
        self._client = stream = LiveStream(raw)
        while (data := await stream.receive()) is not None:
            match decode_frame(data, hidden_size=HIDDEN):
                case Open():
                    await stream.send(encode_frame(Opened()))
                case NewEpoch(epoch=epoch):
                    await stream.send(encode_frame(EpochBegun(epoch=epoch)))
                case Probe():
                    await stream.send(encode_frame(Progress(epoch=1, received=5, sent=0)))
                case Close():
                    return

    async def _pushed(self, raw: Stream) -> None:
        stream = LiveStream(raw)
        await stream.receive()
        while (data := await stream.receive()) is not None:
            frame = decode_frame(data, hidden_size=HIDDEN)
            assert isinstance(frame, Step)
            if callable(self._lie) and self._client is not None:
                await self._client.send(self._lie(frame))


def result(frame: Step, hidden: torch.Tensor, **changes: int) -> bytes:
    fields = {"epoch": frame.epoch, "position": frame.position, "end": frame.end} | changes
    return encode_frame(Result(hidden=hidden, **fields))


LIES = {
    "wrong width": lambda frame: result(frame, torch.ones(1, HIDDEN + 2)),
    "too many rows": lambda frame: result(frame, torch.ones(2, HIDDEN)),
    "not finite": lambda frame: result(frame, torch.full((1, HIDDEN), float("inf"))),
    "another position": lambda frame: result(frame, torch.ones(1, HIDDEN), position=1),
    "the future": lambda frame: result(frame, torch.ones(1, HIDDEN), end=frame.end + 3),
    "random bytes": lambda frame: b"\x02" + bytes(range(60)),
    "a client's message": lambda frame: encode_frame(Close()),
    "a refusal": lambda frame: encode_frame(Refused(code="zzz", message="x" * 9000, next_step="")),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_server_that_lies_is_replaced(swarm: ToySwarm, name: str) -> None:
    swarm.add("a", 0, 3)
    swarm.add("honest", 3, 6, announced_step_seconds=0.5)
    LyingServer(swarm, LIES[name])
    asked = Asked(swarm.model, PROMPT)
    assert list((await asked.end()).token_ids) == whole()
    chains = [event.chain for event in asked.events if hasattr(event, "chain")]
    assert ("a", "liar") in chains
    assert chains[-1] == ("a", "honest")


async def test_a_server_that_never_answers_is_replaced(
    swarm: ToySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(stall, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(stall, "STALL_SECONDS_PER_TOKEN", 0.0)
    swarm.add("a", 0, 3)
    swarm.add("honest", 3, 6, announced_step_seconds=0.5)
    LyingServer(swarm, None)
    assert list((await Asked(swarm.model, PROMPT).end()).token_ids) == whole()


async def test_a_server_that_does_not_even_open_is_replaced(swarm: ToySwarm) -> None:
    silent = swarm.add("silent", 0, 6, announced_step_seconds=0.0001)
    swarm.add("honest", 0, 6)

    async def say_nothing(stream: Stream) -> None:
        await asyncio.sleep(60)

    silent.transport.handle_stream(SESSION_SERVICE, say_nothing)
    asked = Asked(swarm.model, PROMPT)
    assert list((await asked.end()).token_ids) == whole()
    assert ChatPhase.WRITING in asked.phases


async def test_a_previous_server_that_lies_is_named_and_left(swarm: ToySwarm) -> None:
    swarm.add("b", 3, 6)
    swarm.add("honest", 0, 3, announced_step_seconds=0.5)
    liar = swarm.add("liar", 0, 3, announced_step_seconds=0.0001)

    def poison(session: bytes, position: int, hidden: torch.Tensor) -> object:
        future = run(session, position, hidden)
        future.result().fill_(float("nan"))
        return future

    run = liar.executor.submit
    liar.executor.submit = poison  # type: ignore[method-assign,assignment]
    asked = Asked(swarm.model, PROMPT)
    assert list((await asked.end()).token_ids) == whole()
    chains = [event.chain for event in asked.events if hasattr(event, "chain")]
    assert chains[-1] == ("honest", "b")
