"""The directory believes what servers signed, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from announced import server_info
from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo
from superbloom.swarm import announcement
from superbloom.swarm import directory as directory_module
from superbloom.swarm.announcement import decode_announcement, encode_announcement
from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryNetwork, MemoryTransport

MEMBERSHIP = Membership("ours", b"k" * 32)


def info(peer: str, **changes: object) -> ServerInfo:
    usual: dict[str, object] = {"name": "a server", "addresses": ("/memory/p2p/x",)}
    return server_info(peer, **usual | changes)


class Pair:
    """A server's and a client's directory."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(seed=1)
        self.server_transport = self.network.join("server")
        self.client_transport = self.network.join("client")
        self.server = Directory(self.server_transport, MEMBERSHIP)
        self.client = Directory(self.client_transport, MEMBERSHIP)

    async def put(self, value: bytes, peer: str = "server") -> None:
        await self.server_transport.store(MEMBERSHIP.key_of("toy"), peer, value, lifetime=30)


@pytest.fixture
def pair() -> Pair:
    return Pair()


async def test_an_announced_server_is_seen_by_all(pair: Pair) -> None:
    announced = info("server")
    assert await pair.server.announce(announced)
    await pair.client.refresh("toy")
    assert pair.client.servers("toy") == (announced,)
    assert pair.client.servers("other") == ()
    assert pair.client.all_servers() == (announced,)


async def test_a_goodbye_is_seen(pair: Pair) -> None:
    await pair.server.announce(info("server"))
    await pair.server.goodbye(info("server"))
    await pair.client.refresh("toy")
    assert pair.client.servers("toy") == ()


async def test_a_lost_server_is_back_when_it_announces_itself_anew(pair: Pair) -> None:
    first = info("server")
    await pair.server.announce(first)
    await pair.client.refresh("toy")
    pair.client.mark_lost("server")
    await pair.client.refresh("toy")
    assert pair.client.servers("toy") == ()
    await pair.server.announce(replace(first, announced_at=first.announced_at + 1))
    await pair.client.refresh("toy")
    assert len(pair.client.servers("toy")) == 1


async def test_a_server_that_stops_announcing_is_forgotten(pair: Pair) -> None:
    await pair.server.announce(info("server", announced_at=time.time() - 40))
    await pair.client.refresh("toy")
    assert pair.client.servers("toy") == ()


async def test_a_record_from_the_future_does_not_live_for_ever(pair: Pair) -> None:
    await pair.server.announce(info("server", announced_at=time.time() + 10_000))
    await pair.client.refresh("toy")
    assert pair.client.servers("toy") == ()
    assert pair.client.refused == 1


async def test_an_older_record_does_not_replace_a_newer_one(pair: Pair) -> None:
    now = time.time()
    await pair.server.announce(info("server", sessions=2, announced_at=now))
    await pair.client.refresh("toy")
    old = info("server", sessions=1, announced_at=now - 5)
    await pair.put(encode_announcement(old, pair.server_transport, MEMBERSHIP))
    await pair.client.refresh("toy")
    assert pair.client.servers("toy")[0].sessions == 2


FORGED: dict[str, dict[str, object]] = {
    "a span outside": {"span": Span(6, 12)},
    "not a number": {"step_seconds": float("nan")},
    "endless": {"prefill_tokens_per_second": float("inf")},
    "negative": {"step_seconds": -1.0},
    "a negative wait": {"waiting_seconds": -0.1},
    "an endless wait": {"waiting_seconds": float("inf")},
    "a wait of days": {"waiting_seconds": 1e6},
    "too many blocks": {"blocks": 10**9},
    "a huge count": {"free_cache_tokens": 2**60},
    "a long text": {"version": "x" * 1000},
    "control characters": {"fingerprint": "a\x1b[2Jb"},
    "another peer": {"peer": "client"},
}


@pytest.mark.parametrize("name", FORGED)
async def test_what_no_server_would_say_is_refused(pair: Pair, name: str) -> None:
    forged = replace(info("server"), **FORGED[name])  # type: ignore[arg-type]
    await pair.put(announcement._seal(forged, pair.server_transport, MEMBERSHIP))
    await pair.client.refresh("toy")
    assert pair.client.servers("toy") == ()
    assert pair.client.refused == 1


@pytest.mark.parametrize("name", [name for name in FORGED if name != "another peer"])
def test_nobody_announces_what_others_refuse(pair: Pair, name: str) -> None:
    forged = replace(info("server"), **FORGED[name])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out of range"):
        encode_announcement(forged, pair.server_transport, MEMBERSHIP)


async def test_older_versions_say_nothing_of_waiting_and_newer_ones_more(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_plain = announcement.to_plain

    def older(value: object) -> object:
        plain = to_plain(value)
        assert isinstance(plain, dict)
        del plain["waiting_seconds"]
        return plain | {"what_comes_later": 3}

    monkeypatch.setattr(announcement, "to_plain", older)
    await pair.server.announce(info("server", waiting_seconds=0.5))
    await pair.client.refresh("toy")
    assert pair.client.servers("toy")[0].waiting_seconds == 0


async def test_what_a_computer_is_called_never_hides_it(pair: Pair) -> None:
    loopback = tuple(f"/ip4/127.0.0.{n}/tcp/1/p2p/x" for n in range(1, 15))
    useful = (
        "/ip4/192.168.1.2/tcp/1/p2p/x",
        "/ip4/8.8.8.8/tcp/1/p2p/x",
        "/ip6/2001:4860::1/tcp/1/p2p/x",
        "/dns4/home.example/tcp/1/p2p/x",
    )
    odd = info(
        "server",
        name="my\tcomputer\x1b " + "n" * 100,
        device="x" * 200,
        addresses=(*loopback, *useful, "/ip4/" + "9" * 400),
    )
    assert await pair.server.announce(odd)
    await pair.client.refresh("toy")
    (seen,) = pair.client.servers("toy")
    assert seen.name.startswith("my computer nnn")
    assert len(seen.addresses) == 16
    assert set(useful) < set(seen.addresses)


async def test_a_table_that_fails_does_not_blind_the_directory(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = pair.client_transport.find
    failing = iter([True, True, True])

    async def fail_at_first(key: str) -> object:
        if next(failing, False):
            raise TypeError("what a peer wrote")
        return await find(key)

    async def fail(*_: object, **__: object) -> bool:
        raise TypeError("what a peer wrote")

    monkeypatch.setattr(pair.client_transport, "find", fail_at_first)
    async with running(pair.client), asyncio.timeout(20):
        await pair.server.announce(info("server"))
        while not pair.client.servers("toy"):
            await pair.client.changed(5)
    monkeypatch.setattr(pair.server_transport, "store", fail)
    assert not await pair.server.announce(info("server"))
    assert "reading the shared table failed" in caplog.text
    assert "writing to the shared table failed" in caplog.text


async def test_servers_from_another_time_are_told_apart_from_a_forger(pair: Pair) -> None:
    assert not pair.client.clocks_differ
    await pair.server.announce(info("server", announced_at=time.time() - 60))
    await pair.client.refresh("toy")
    assert not pair.client.clocks_differ  # anybody can show an old one again
    await pair.server.announce(info("server", announced_at=time.time() + 20))
    await pair.client.refresh("toy")
    assert pair.client.clocks_differ
    await pair.server.announce(info("server"))
    await pair.client.refresh("toy")
    assert not pair.client.clocks_differ


def test_only_what_a_server_signed_may_lie_in_the_table(pair: Pair) -> None:
    now = time.time()
    value = encode_announcement(info("server", announced_at=now), pair.server_transport, MEMBERSHIP)
    check = pair.client._is_announcement
    assert check("server", value, now + 30)
    assert check("server", value, now + 30)  # remembered
    assert not check("client", value, now + 30)
    assert not check("server", value, now + 3)  # nobody ends it early
    assert not check("server", value, float("inf"))
    assert not check("server", value, float("nan"))
    assert not check("server", b"garbage", now + 30)


async def test_nobody_can_announce_another_peer(pair: Pair) -> None:
    value = encode_announcement(info("client"), pair.server_transport, MEMBERSHIP)
    await pair.put(value, peer="client")
    await pair.client.refresh("toy")
    assert pair.client.servers("toy") == ()


async def test_strangers_are_not_heard(pair: Pair) -> None:
    strangers = Membership("ours", b"other secret" * 3)
    await pair.put(encode_announcement(info("server"), pair.server_transport, strangers))
    await pair.client.refresh("toy")
    assert pair.client.servers("toy") == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    transport: MemoryTransport = MemoryNetwork(seed=1).join("client")
    with pytest.raises(ProtocolViolation):
        decode_announcement(data, "server", transport, MEMBERSHIP, time.time())


@given(st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    network = MemoryNetwork(seed=1)
    server, client = network.join("server"), network.join("client")
    announced = info("server", announced_at=1e9)
    value = bytearray(encode_announcement(announced, server, MEMBERSHIP))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolViolation):
        decode_announcement(bytes(value), "server", client, MEMBERSHIP, now=1e9)


@contextlib.asynccontextmanager
async def running(directory: Directory) -> AsyncIterator[None]:
    task = asyncio.create_task(directory.run(lambda: ["toy"]))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_waits_for_a_change_hears_of_it(pair: Pair) -> None:
    async with running(pair.client):
        waiting = asyncio.create_task(pair.client.changed(10))
        await asyncio.sleep(0)
        await pair.server.announce(info("server"))
        assert await waiting
        assert len(pair.client.servers("toy")) == 1
        assert not await pair.client.changed(0.01)


async def test_a_look_soon_does_not_wait_for_the_next_round(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "POLL_SECONDS", 60.0)
    monkeypatch.setattr(directory_module, "HURRIED_POLL_SECONDS", 0.01)
    async with running(pair.client):
        await asyncio.sleep(0.05)
        await pair.server.announce(info("server"))
        pair.client.look_soon()
        assert await pair.client.changed(2, hurry=False)


async def test_round_trips_are_measured(pair: Pair) -> None:
    pair.network.delay(0.02, "server", "client")
    await pair.server.announce(info("server"))
    assert pair.client.round_trip("server") is None
    async with running(pair.client), asyncio.timeout(10):
        while (seconds := pair.client.round_trip("server")) is None:
            await asyncio.sleep(0.01)
    assert 0.04 <= seconds < 2


async def test_a_server_that_does_not_answer_pings_does_no_harm(pair: Pair) -> None:
    await pair.server.announce(info("server"))
    pair.network.cut("server", "client")
    async with running(pair.client):
        await pair.client.changed(5)
        assert len(pair.client.servers("toy")) == 1
    assert pair.client.round_trip("server") is None


# --- clocks that are set ---------------------------------------------------------------------

HOUR = 3600.0


@contextlib.asynccontextmanager
async def listening(pair: Pair) -> AsyncIterator[None]:
    """The client knows the server, and the server tells it its news."""
    await pair.server.announce(info("server"))
    async with running(pair.client), asyncio.timeout(10):
        while pair.client.round_trip("server") is None:
            await asyncio.sleep(0.01)
        yield


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_set_clock_here_loses_no_server_that_is_known(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    true_time = time.time
    async with listening(pair):
        monkeypatch.setattr(time, "time", lambda: true_time() + jump)
        for _ in range(3):  # the present entry ends by the monotonic clock
            (entry,) = pair.client._entries.values()
            entry.expires = time.monotonic() + 0.05
            await pair.server.announce(info("server", announced_at=true_time()))
            await asyncio.sleep(0.1)
            assert len(pair.client.servers("toy")) == 1
        assert pair.client.clocks_differ  # others cannot be found: the user hears why


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_server_whose_clock_is_set_stays_known(pair: Pair, jump: float) -> None:
    async with listening(pair):
        for sessions in (1, 2):
            await pair.server.announce(
                info("server", sessions=sessions, announced_at=time.time() + jump)
            )
            assert pair.client.servers("toy")[0].sessions == sessions


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_set_clock_does_not_hide_a_server_that_comes_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    true_time = time.time
    await pair.server.announce(info("server"))
    await pair.client.refresh("toy")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: true_time() + jump)
        pair.client.mark_lost("server")
        pair.client.mark_lost("server")
    await pair.server.announce(info("server", announced_at=true_time() + 31))
    patched = true_time() + 31
    monkeypatch.setattr(time, "time", lambda: patched)
    await pair.client.refresh("toy")
    assert len(pair.client.servers("toy")) == 1


async def test_a_stranger_of_another_time_is_not_let_in(pair: Pair) -> None:
    value = encode_announcement(
        info("server", announced_at=time.time() - HOUR), pair.server_transport, MEMBERSHIP
    )
    await pair.client._hear_news("server", value)
    assert pair.client.servers("toy") == ()
    assert pair.client.refused == 1
    assert pair.client.clocks_differ
