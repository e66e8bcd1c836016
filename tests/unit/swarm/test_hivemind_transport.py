"""The real network on loopback: calls, streams, the table, and each way it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import pytest
from hivemind.dht.protocol import ValidationError
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.proto.dht_pb2 import StoreRequest
from hivemind.proto.runtime_pb2 import ExpertRequest

from superbloom.domain.errors import (
    ClocksDiffer,
    NetworkFailed,
    NoPeersReachable,
    PeerLost,
    PortTaken,
    SessionRefused,
)
from superbloom.swarm import hivemind_transport
from superbloom.swarm.hivemind_daemon import Daemon
from superbloom.swarm.hivemind_transport import CALL_PROTOCOL, HivemindTransport
from superbloom.swarm.transport import MAX_CALL_BYTES, MAX_FRAME_BYTES, Stream

APP = Path(__file__).resolve().parents[3] / "app"

Start = Callable[..., Awaitable[HivemindTransport]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts transports, each with a key of its own, and closes them."""
    opened: list[HivemindTransport] = []

    async def start_one(name: str, **options: object) -> HivemindTransport:
        transport = await HivemindTransport.start(
            identity_file=tmp_path / f"{name}.key",
            **options,  # type: ignore[arg-type]
        )
        opened.append(transport)
        return transport

    yield start_one
    for transport in reversed(opened):
        await transport.close()


async def echo(stream: Stream) -> None:
    while (frame := await stream.receive()) is not None:
        await stream.send(frame)


async def test_calls_and_their_errors(start: Start) -> None:
    async def reverse(peer: str, request: bytes) -> bytes:
        assert peer == b.peer_id
        return request[::-1]

    async def refuse(peer: str, request: bytes) -> bytes:
        raise SessionRefused("No room.", "Come back later.")

    async def fail(peer: str, request: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    for service, handler in (("reverse", reverse), ("refuse", refuse), ("fail", fail)):
        a.handle_call(service, handler)
    assert await b.call(a.peer_id, "reverse", b"abc", timeout=5) == b"cba"
    largest = bytes(MAX_CALL_BYTES)
    assert await b.call(a.peer_id, "reverse", largest, timeout=10) == largest
    with pytest.raises(SessionRefused) as refused:
        await b.call(a.peer_id, "refuse", b"", timeout=5)
    assert (refused.value.message, refused.value.next_step) == ("No room.", "Come back later.")
    with pytest.raises(PeerLost, match="in time") as late:
        await b.call(a.peer_id, "fail", b"", timeout=0.2)
    assert late.value.peer == a.peer_id
    with pytest.raises(PeerLost, match="offer"):
        await b.call(a.peer_id, "unknown", b"", timeout=5)


async def test_streams_carry_frames_of_every_size(start: Start) -> None:
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    a.handle_stream("echo", echo)
    stream = await b.open_stream(a.peer_id, "echo", timeout=5)
    for size in (0, 1, 65535, 65536, 65537, 1_000_000, MAX_FRAME_BYTES):
        frame = os.urandom(min(size, 100_000)) * (size // 100_000 or 1)
        sending = asyncio.create_task(stream.send(frame))
        assert await stream.receive() == frame
        await sending
    with pytest.raises(ValueError, match="more than"):
        await stream.send(bytes(MAX_FRAME_BYTES + 1))
    await stream.close()
    await stream.close()
    with pytest.raises(PeerLost):
        await stream.receive()
    with pytest.raises(PeerLost):
        await stream.send(b"too late")


async def test_everything_sent_before_a_close_arrives(start: Start) -> None:
    received: list[int] = []
    ended = asyncio.Event()

    async def collect(stream: Stream) -> None:
        while (frame := await stream.receive()) is not None:
            received.append(len(frame))
        ended.set()

    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    a.handle_stream("collect", collect)
    stream = await b.open_stream(a.peer_id, "collect", timeout=5)
    for _ in range(10):
        await stream.send(bytes(500_000))
    await stream.close()
    async with asyncio.timeout(10):
        await ended.wait()
    assert received == [500_000] * 10


@pytest.mark.parametrize(
    ("reason", "joins"),
    [("failed to negotiate security protocol", True), ("connect: connection refused", False)],
)
async def test_a_handshake_that_broke_off_is_tried_once_more(
    start: Start, monkeypatch: pytest.MonkeyPatch, reason: str, joins: bool
) -> None:
    monkeypatch.setattr(hivemind_transport, "REDIAL_SECONDS", 0.05)
    a = await start("a")
    connect, dialled = Daemon.connect, 0

    async def broken_at_first(self: Daemon, peer: str, addresses: Sequence[str]) -> None:
        nonlocal dialled
        dialled += 1
        if dialled == 1:
            raise PeerLost("Not reached.", peer=peer) from ConnectionError(reason)
        await connect(self, peer, addresses)

    monkeypatch.setattr(Daemon, "connect", broken_at_first)
    if joins:
        await start("b", initial_peers=a.addresses)
    else:
        with pytest.raises(NoPeersReachable):
            await start("b", initial_peers=a.addresses)
    assert dialled == 1 + joins


async def test_servers_that_met_only_through_a_third_reach_each_other(start: Start) -> None:
    middle = await start("middle")
    b = await start("b", initial_peers=middle.addresses)
    c = await start("c", initial_peers=middle.addresses)
    c.handle_stream("echo", echo)
    b.learn_addresses(c.peer_id, c.addresses)
    await middle.close()
    stream = await b.open_stream(c.peer_id, "echo", timeout=5)
    await stream.send(b"hello")
    assert await stream.receive() == b"hello"
    await stream.close()


async def test_the_shared_table(start: Start) -> None:
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    assert await b.store("key", b.peer_id, b"b's", lifetime=20)
    assert await a.store("key", a.peer_id, b"a's", lifetime=20)
    assert await a.find("key") == {a.peer_id: b"a's", b.peer_id: b"b's"}
    assert await b.find("key") == {a.peer_id: b"a's", b.peer_id: b"b's"}
    assert await b.find("no such key") == {}


GARBAGE: dict[str, tuple[bytes, bytes | None, float]] = {
    "not msgpack": (b"\xc1", b"\xa1x", 20.0),
    "not msgpack, for ever": (b"\xc1", b"\xa1x", float("inf")),
    "a plain value": (b"\xc4\x01x", None, 1000.0),
    "a plain value, not msgpack": (b"\xc1", None, 20.0),
    "for ever": (b"\xc4\x01x", b"\xa1x", float("inf")),
    "no number": (b"\xc4\x01x", b"\xa1x", float("nan")),
    "text": (b"\xa1x", b"\xa1x", 20.0),
    "an odd subkey": (b"\xc4\x01x", b"\x01", 20.0),
    "long": (b"\xc5\xff\xff" + bytes(65535), b"\xa1x", 20.0),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_in_the_table_hides_nobody(start: Start, name: str) -> None:
    value, subkey, lifetime = GARBAGE[name]
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    hostile = await start("hostile", initial_peers=a.addresses)
    protocol, key = hostile._table._node.protocol, DHTID.generate(source="key")
    protocol.record_validator = None
    tag = protocol.IS_REGULAR_VALUE if subkey is None else subkey
    await asyncio.sleep(0.2)
    for peer in (a, b):
        stub = protocol.get_stub(PeerID.from_base58(peer.peer_id))
        answer = await stub.rpc_store(
            StoreRequest(
                keys=[key.to_bytes()],
                subkeys=[tag],
                values=[value],
                expiration_time=[time.time() + lifetime],
                in_cache=[False],
                peer=protocol.node_info,
            ),
            timeout=5,
        )
        assert list(answer.store_ok) == [False]
    async with asyncio.timeout(20):
        assert await b.store("key", b.peer_id, b"b's", lifetime=20)
        assert await a.find("key") == {b.peer_id: b"b's"}


@pytest.mark.parametrize("lifetime", [20.0, float("inf")])
async def test_a_peer_that_answers_with_garbage_hides_nobody(start: Start, lifetime: float) -> None:
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    hostile = await start("hostile", initial_peers=a.addresses)
    assert await hostile.meet(b.addresses)
    node = hostile._table._node
    held = node.protocol.storage
    expires_at = time.time() + lifetime
    held.store(DHTID.generate(source="key"), b"\xc1", expires_at, subkey="someone")
    held.store(DHTID.generate(source="key"), b"\xc4\x01x", time.time() + 20, subkey="x")
    async with asyncio.timeout(20):
        assert await b.store("key", b.peer_id, b"b's", lifetime=20)
        found = await a.find("key")
    assert found[b.peer_id] == b"b's"
    assert "someone" not in found
    if lifetime == 20.0:
        assert found["x"] == b"x"  # what is good beside it is used


async def test_records_that_are_not_what_they_should_be_are_refused(start: Start) -> None:
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    a.check_records(lambda subkey, value, expires_at: value == b"good")
    assert await b.store("key", "one", b"good", lifetime=20)
    await b.store("key", "two", b"bad", lifetime=20)
    assert await a.find("key") == {"one": b"good"}


async def test_what_only_oneself_holds_is_not_taken(start: Start) -> None:
    a = await start("a")
    assert await a.store("key", a.peer_id, b"alone", lifetime=20)
    b = await start("b", initial_peers=a.addresses)
    assert await b.store("key", b.peer_id, b"first", lifetime=20)
    await a.close()
    assert not await b.store("key", b.peer_id, b"second", lifetime=30)


async def test_a_reply_that_cannot_be_read_is_a_lost_peer(start: Start) -> None:
    async def babble(request: ExpertRequest, context: object) -> Babble:
        return Babble()

    class Babble:
        def SerializeToString(self) -> bytes:
            return b"\xff\xff\xff"

    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    hostile = a._daemon.p2p
    await hostile.remove_protobuf_handler(CALL_PROTOCOL)
    await hostile.add_protobuf_handler(CALL_PROTOCOL, babble, ExpertRequest)
    with pytest.raises(PeerLost, match="no proper reply") as lost:
        await b.call(a.peer_id, "ping", b"", timeout=5)
    assert lost.value.peer == a.peer_id


async def test_an_identity_is_kept_and_signs(start: Start, tmp_path: Path) -> None:
    a = await start("a")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    signature = a.sign(b"payload")
    await a.close()
    again = await start("a")
    b = await start("b", initial_peers=again.addresses)
    assert again.peer_id == a.peer_id
    assert b.verify(a.peer_id, b"payload", signature)
    assert not b.verify(a.peer_id, b"other", signature)
    assert not b.verify(b.peer_id, b"payload", signature)
    assert not b.verify("nonsense", b"payload", b"")


async def test_a_port_in_use(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            await start("a", listen=f"127.0.0.1:{port}")


async def test_bootstrap_addresses_that_nobody_answers(start: Start, tmp_path: Path) -> None:
    gone = await start("gone")
    addresses = gone.addresses
    await gone.close()
    with pytest.raises(NoPeersReachable):
        await start("a", initial_peers=addresses)
    with pytest.raises(NoPeersReachable):
        await start("a", initial_peers=("/ip4/127.0.0.1/tcp/1/p2p/nonsense", "garbage"))


async def test_a_damaged_key_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a.key").write_bytes(b"not a key")
    with pytest.raises(NetworkFailed, match="key file"):
        await start("a")


async def test_a_peer_that_was_away_is_met_again(start: Start) -> None:
    a = await start("a")
    port = a.addresses[0].split("/")[4]
    b = await start("b", initial_peers=a.addresses)
    await a.close()
    assert not await b.meet(a.addresses)
    again = await start("a", listen=f"127.0.0.1:{port}")
    async with asyncio.timeout(30):  # the daemon does not dial at once again what has failed
        while not await b.meet(a.addresses):
            await asyncio.sleep(0.5)
    assert await b.store("key", b.peer_id, b"value", lifetime=20)
    assert await again.find("key") == {b.peer_id: b"value"}


PEER = """
import asyncio, sys
from pathlib import Path
from superbloom.swarm.hivemind_transport import HivemindTransport

async def main():
    transport = await HivemindTransport.start(
        identity_file=Path(sys.argv[1]), initial_peers=sys.argv[2:])
    async def echo(stream):
        while (frame := await stream.receive()) is not None:
            await stream.send(frame)
    async def late(peer, request):
        await asyncio.sleep(0.2)
        return request
    transport.handle_stream("echo", echo)
    transport.handle_call("late", late)
    print(transport.peer_id, *transport.addresses, flush=True)
    await asyncio.sleep(60)
"""

CLOCK = """
import hivemind.utils.timed_storage as clock
right = clock.get_dht_time
clock.get_dht_time = lambda: right() + 30
import hivemind.dht.protocol, hivemind.dht.node
hivemind.dht.protocol.get_dht_time = hivemind.dht.node.get_dht_time = clock.get_dht_time
"""


def start_process(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"{script}\nasyncio.run(main())", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(APP)},
    )


async def first_words(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await asyncio.to_thread(process.stdout.readline)).split()


async def test_a_killed_process_takes_its_daemon_along(start: Start, tmp_path: Path) -> None:
    process = start_process(PEER, tmp_path / "other.key")
    try:
        peer, *addresses = await first_words(process)
        daemons = psutil.Process(process.pid).children(recursive=True)
        assert daemons
        b = await start("b", initial_peers=addresses)
        stream = await b.open_stream(peer, "echo", timeout=5)
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        process.send_signal(signal.SIGKILL)
        with pytest.raises(PeerLost):
            async with asyncio.timeout(10):
                await stream.receive()
        with pytest.raises(PeerLost):
            await b.call(peer, "ping", b"", timeout=5)
        _gone, alive = await asyncio.to_thread(psutil.wait_procs, daemons, 10)
        assert not alive
    finally:
        process.kill()
        process.communicate()


async def test_an_answer_that_comes_together_with_its_timeout_harms_nothing(
    start: Start, tmp_path: Path
) -> None:
    """So it goes where the computer was too busy for both: hivemind then heard nothing any more."""
    process = start_process(PEER, tmp_path / "other.key")
    try:
        peer, *addresses = await first_words(process)
        b = await start("b", initial_peers=addresses)
        assert await b.call(peer, "late", b"1", timeout=5) == b"1"
        asyncio.get_running_loop().call_later(0.1, time.sleep, 0.5)
        with pytest.raises((PeerLost, TimeoutError)):
            await b.call(peer, "late", b"2", timeout=0.3)
        assert await b.call(peer, "late", b"3", timeout=5) == b"3"
        assert b.failure is None
    finally:
        process.kill()
        process.communicate()


async def test_a_lost_connection_to_the_daemon_is_told(start: Start) -> None:
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    assert b.failure is None
    b._daemon.p2p._client.control._read_task.cancel()
    async with asyncio.timeout(10):
        await asyncio.shield(b._daemon.died)
    assert isinstance(b.failure, NetworkFailed)


async def test_a_clock_that_is_off(start: Start, tmp_path: Path) -> None:
    process = start_process(CLOCK + PEER, tmp_path / "other.key")
    try:
        _peer, *addresses = await first_words(process)
        with pytest.raises(ClocksDiffer):
            await start("b", initial_peers=addresses)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (ValidationError("local time must be within 3 seconds of others"), ClocksDiffer),
        (ValidationError("something else"), NoPeersReachable),
        (AssertionError("DHTID must be in [0, 2**160)"), NoPeersReachable),
        (RuntimeError("none of the initial_peers responded"), NoPeersReachable),
    ],
)
async def test_what_is_wrong_behind_a_firewall(
    start: Start, monkeypatch: pytest.MonkeyPatch, second: Exception, kind: type[Exception]
) -> None:
    errors = [ValidationError("Peer can't access this node"), second]

    async def create(**_: object) -> None:
        raise errors.pop(0)

    a = await start("a")
    monkeypatch.setattr("superbloom.swarm.hivemind_table.DHTNode.create", create)
    with pytest.raises(kind):
        await start("b", initial_peers=a.addresses)
    assert not errors


async def test_a_peer_with_an_impossible_id_is_not_met(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    a._table._node.protocol.node_info.node_id = bytes([255]) * 30
    assert not await b.meet(a.addresses)


async def test_a_dead_daemon_is_told(start: Start) -> None:
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    a.handle_stream("echo", echo)
    stream = await b.open_stream(a.peer_id, "echo", timeout=5)
    await stream.send(b"hello")
    assert await stream.receive() == b"hello"
    daemon = b._daemon._process
    daemon.kill()
    with pytest.raises(PeerLost):
        async with asyncio.timeout(10):
            await stream.receive()
    async with asyncio.timeout(10):
        await asyncio.shield(b._daemon.died)
    assert isinstance(b.failure, NetworkFailed)
    with pytest.raises(NetworkFailed):
        await b.call(a.peer_id, "x", b"", timeout=5)
    with pytest.raises(NetworkFailed):
        await b.open_stream(a.peer_id, "echo", timeout=5)


async def test_nothing_is_left_after_close_or_for_long(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("superbloom.swarm.hivemind_daemon.STALE_SECONDS", 0.0)
    stale = tmp_path / "superbloom-p2pd-stale"
    stale.mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(stale / "control"))
    left.close()
    a = await start("a")
    b = await start("b", initial_peers=a.addresses)
    assert len([f for f in os.scandir(tmp_path) if "p2pd" in f.name]) == 2
    assert not stale.exists()
    pids = [transport._daemon._process.pid for transport in (a, b)]
    await a.close()
    await b.close()
    assert not any(map(psutil.pid_exists, pids))
    assert not [f for f in os.scandir(tmp_path) if "p2pd" in f.name]
