"""The in-memory network keeps the real one's promises and failures."""

from __future__ import annotations

import asyncio
import math

import pytest

from superbloom.domain.errors import NetworkFailed, PeerLost, SessionRefused
from superbloom.swarm.memory import MemoryNetwork, MemoryTransport
from superbloom.swarm.transport import MAX_CALL_BYTES, MAX_FRAME_BYTES, Stream


class Two:
    """Peers `a` and `b`; `b` keeps the ends of the streams that `a` opens."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(seed=1)
        self.a: MemoryTransport = self.network.join("a")
        self.b: MemoryTransport = self.network.join("b")
        self.accepted: asyncio.Queue[Stream] = asyncio.Queue()
        self.b.handle_stream("x", self._keep)

    async def _keep(self, stream: Stream) -> None:
        self.accepted.put_nowait(stream)
        await asyncio.Event().wait()

    async def streams(self) -> tuple[Stream, Stream]:
        near = await self.a.open_stream("b", "x", timeout=1)
        return near, await self.accepted.get()


@pytest.fixture
def two() -> Two:
    return Two()


async def test_frames_arrive_in_order_and_the_end_after_them(two: Two) -> None:
    near, far = await two.streams()
    for n in range(50):
        await near.send(bytes([n]))
    await near.close()
    assert [await far.receive() for _ in range(50)] == [bytes([n]) for n in range(50)]
    assert await far.receive() is None
    assert await far.receive() is None
    with pytest.raises(PeerLost):
        await far.send(b"to nobody")
    with pytest.raises(PeerLost):
        await near.receive()


async def test_a_narrow_link_carries_one_frame_after_the_other(two: Two) -> None:
    near, far = await two.streams()
    assert far.arrival_rate == math.inf
    two.network.limit(1000.0, "a", "b")
    loop = asyncio.get_running_loop()
    began = loop.time()
    for size in (100, 50):
        await near.send(bytes(size))
    assert loop.time() - began < 0.05  # a sender does not notice
    await far.receive()
    assert loop.time() - began >= 0.1
    await far.receive()
    assert 0.15 <= loop.time() - began < 0.3
    assert far.arrival_rate == 1000.0


async def test_a_delay_keeps_the_order(two: Two) -> None:
    near, far = await two.streams()
    loop = asyncio.get_running_loop()
    began = loop.time()
    two.network.delay(0.05, "a", "b")
    await near.send(b"slow")
    two.network.delay(0.0, "a", "b")
    await near.send(b"fast")
    assert [await far.receive(), await far.receive()] == [b"slow", b"fast"]
    assert loop.time() - began >= 0.05


@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_a_broken_link_resets_both_ends(two: Two, how: str) -> None:
    near, far = await two.streams()
    waiting = asyncio.create_task(far.receive())
    await asyncio.sleep(0)
    getattr(two.network, how)("a", "b")
    with pytest.raises(PeerLost) as lost:
        await waiting
    assert lost.value.peer == "a"
    with pytest.raises(PeerLost):
        await near.send(b"x")
    assert two.network.stream_count() == 0


async def test_a_cut_link_refuses_until_it_heals(two: Two) -> None:
    two.network.cut("a", "b")
    with pytest.raises(PeerLost):
        await two.a.open_stream("b", "x", timeout=1)
    with pytest.raises(PeerLost):
        await two.a.call("b", "y", b"", timeout=1)
    two.network.heal("a", "b")
    await two.streams()


async def test_a_partition_is_silent_and_what_was_sent_comes_when_it_heals(two: Two) -> None:
    near, far = await two.streams()
    two.network.partition("b")
    await near.send(b"late")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await far.receive()
    with pytest.raises(PeerLost):
        await two.a.open_stream("b", "x", timeout=0.02)
    assert not await two.b.store("k", "b", b"v", lifetime=9)
    two.network.heal()
    assert await far.receive() == b"late"


async def test_a_killed_peer_is_gone_for_all(two: Two) -> None:
    near, _far = await two.streams()
    two.network.kill("b")
    with pytest.raises(PeerLost):
        await near.receive()
    with pytest.raises(PeerLost):
        await two.a.open_stream("b", "x", timeout=1)
    assert isinstance(two.b.failure, NetworkFailed)
    assert two.a.failure is None
    assert two.network.join("b").failure is None


async def test_calls_carry_replies_and_errors(two: Two) -> None:
    async def reverse(peer: str, request: bytes) -> bytes:
        return peer.encode() + request[::-1]

    async def refuse(peer: str, request: bytes) -> bytes:
        raise SessionRefused("No room.", "Later.")

    async def hang(peer: str, request: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    for service, handler in (("reverse", reverse), ("refuse", refuse), ("hang", hang)):
        two.b.handle_call(service, handler)
    assert await two.a.call("b", "reverse", b"12", timeout=1) == b"a21"
    with pytest.raises(SessionRefused, match="No room"):
        await two.a.call("b", "refuse", b"", timeout=1)
    with pytest.raises(PeerLost):
        await two.a.call("b", "hang", b"", timeout=0.02)
    with pytest.raises(PeerLost):
        await two.a.call("b", "unknown", b"", timeout=1)
    with pytest.raises(PeerLost):
        await two.a.call("a", "reverse", b"", timeout=1)
    await two.b.close()


async def test_sizes_are_limited(two: Two) -> None:
    near, _far = await two.streams()
    with pytest.raises(ValueError, match="bytes"):
        await near.send(bytes(MAX_FRAME_BYTES + 1))
    with pytest.raises(ValueError, match="bytes"):
        await two.a.call("b", "y", bytes(MAX_CALL_BYTES + 1), timeout=1)


async def test_the_table_forgets(two: Two) -> None:
    assert await two.a.store("k", "a", b"v", lifetime=60)
    assert await two.b.store("k", "b", b"w", lifetime=0)
    assert await two.b.find("k") == {"a": b"v"}
    assert await two.b.find("other") == {}


def test_signatures_prove_the_peer(two: Two) -> None:
    signature = two.a.sign(b"payload")
    assert two.b.verify("a", b"payload", signature)
    assert not two.b.verify("b", b"payload", signature)
    assert not two.b.verify("a", b"other", signature)
    assert not two.b.verify("a", b"payload", b"")


def test_the_same_seed_gives_the_same_network() -> None:
    names = [[MemoryNetwork(seed=n).join().peer_id for _ in range(1)] for n in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
