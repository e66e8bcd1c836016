"""Entering, opening, joining and leaving swarms, over the in-memory network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from superbloom.control.messages import SwarmChanged
from superbloom.domain.errors import (
    DiskFull,
    InputRejected,
    InviteInvalid,
    NetworkFailed,
    NoPeersReachable,
    PortTaken,
    SecretsUnavailable,
)
from superbloom.domain.invite import decode_invite
from superbloom.domain.settings import Reach
from superbloom.node import swarm_changes
from superbloom.node.kept_settings import KeptSettings
from superbloom.node.swarm import CLOCKS, NOBODY, Entry, Place, SwarmService
from superbloom.storage.paths import DataFolder
from superbloom.storage.secrets import Secrets
from superbloom.swarm.directory import Directory
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Transport


class Computer:
    """One computer's swarm service on a shared network."""

    def __init__(self, network: MemoryNetwork, folder: Path) -> None:
        data = DataFolder(folder)
        data.ensure()
        self.network = network
        self.settings = KeptSettings(data.settings_file)
        self.entries: list[Entry] = []
        self.places: list[Place] = []
        self.told: list[SwarmChanged] = []
        self.failure: Exception | None = None
        self.failing_identity = ""
        self.taken_port = 0
        self.name = folder.name
        self.service = SwarmService(
            self.settings,
            Secrets(data, in_file=True),
            connect=self._connect,
            models=lambda: ("toy",),
            entered=self._entered,
            notify=self.told.append,
        )

    async def _connect(self, entry: Entry) -> Transport:
        self.entries.append(entry)
        if self.failure is not None:
            raise self.failure
        if entry.identity == self.failing_identity:
            raise NetworkFailed("The daemon did not start.")
        if entry.port and entry.port == self.taken_port:
            raise PortTaken(f"Port {entry.port} is taken by another program.")
        transport = self.network.join(f"{self.name}-{entry.identity}")
        if entry.bootstrap and not await transport.meet(entry.bootstrap):
            await transport.close()
            raise NoPeersReachable("Nobody answers.")
        return transport

    async def _entered(self, place: Place) -> None:
        self.places.append(place)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Computer, Computer]]:
    network = MemoryNetwork(seed=1)
    one, two = Computer(network, tmp_path / "one"), Computer(network, tmp_path / "two")
    await one.service.start()
    await two.service.start()
    yield one, two
    await one.service.close()
    await two.service.close()


async def test_the_first_start_begins_a_swarm_of_this_computer_alone(
    pair: tuple[Computer, Computer],
) -> None:
    one, two = pair
    status = one.service.status()
    assert status.reach is Reach.LOCAL
    assert status.connected
    assert one.entries[0].host == "127.0.0.1"
    assert status.name != two.service.status().name


async def test_a_swarm_is_the_same_after_a_restart(tmp_path: Path) -> None:
    network = MemoryNetwork(seed=1)
    first = Computer(network, tmp_path / "one")
    await first.service.start()
    name = first.service.status().name
    await first.service.close()
    again = Computer(network, tmp_path / "one")
    await again.service.start()
    assert again.service.status().name == name
    assert again.places[0].membership == first.places[0].membership
    await again.service.close()


async def test_an_invite_opens_the_swarm_and_lets_another_computer_in(
    pair: tuple[Computer, Computer],
) -> None:
    one, two = pair
    invitation = await one.service.create_invite(1, "")
    assert one.service.status().reach is Reach.OPEN
    assert one.entries[-1].host == "0.0.0.0"
    status = await two.service.join(invitation.code)
    assert status.name == one.service.status().name
    assert status.connected
    assert two.places[-1].membership == one.places[-1].membership
    assert two.settings.value.swarm.bootstrap


async def test_the_address_given_with_an_invite_is_kept_for_the_server(
    pair: tuple[Computer, Computer],
) -> None:
    one, _ = pair
    await one.service.create_invite(1, "")
    places = len(one.places)
    await one.service.create_invite(1, "example.org")
    assert one.settings.value.swarm.address == "example.org"
    assert one.places[places:] == one.places[-1:]  # its server hears of it
    await one.service.create_invite(1, "")
    await one.service.create_invite(1, "127.0.0.1")
    assert one.settings.value.swarm.address == "example.org"
    assert len(one.places) == places + 1


async def test_an_address_that_is_none_opens_nothing(pair: tuple[Computer, Computer]) -> None:
    one, _ = pair
    with pytest.raises(InputRejected):
        await one.service.create_invite(1, "two words")
    assert one.service.status().reach is Reach.LOCAL


async def test_an_invite_for_this_computer_keeps_the_swarm_local(
    pair: tuple[Computer, Computer],
) -> None:
    one, _ = pair
    await one.service.create_invite(1, "127.0.0.1")
    assert one.service.status().reach is Reach.LOCAL


async def test_a_join_that_reaches_nobody_changes_nothing(
    pair: tuple[Computer, Computer],
) -> None:
    one, two = pair
    before = two.service.status()
    invitation = await one.service.create_invite(1, "")
    await one.service.close()
    with pytest.raises(NoPeersReachable):
        await two.service.join(invitation.code)
    assert two.service.status() == before
    assert len(two.places) == 1


async def test_nonsense_is_refused(pair: tuple[Computer, Computer]) -> None:
    one, _ = pair
    with pytest.raises(InviteInvalid):
        await one.service.join("hello")
    with pytest.raises(InputRejected):
        await one.service.create_invite(-1, "")


async def test_joining_the_same_swarm_again_does_nothing(pair: tuple[Computer, Computer]) -> None:
    one, _ = pair
    invitation = await one.service.create_invite(1, "127.0.0.1")
    entries = len(one.entries)
    await one.service.join(invitation.code)
    assert len(one.entries) == entries


async def test_leaving_begins_a_new_swarm(pair: tuple[Computer, Computer]) -> None:
    one, two = pair
    await two.service.join((await one.service.create_invite(1, "")).code)
    status = await two.service.leave()
    assert status.reach is Reach.LOCAL
    assert status.name != one.service.status().name
    assert two.settings.value.swarm.bootstrap == ()


async def test_a_start_without_the_others_says_so_and_finds_them_later(
    pair: tuple[Computer, Computer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    monkeypatch.setattr("superbloom.node.swarm.TOUCH_SECONDS", 0.05)
    await two.service.join((await one.service.create_invite(1, "")).code)
    await two.service.close()
    await one.service.close()
    again = Computer(two.network, tmp_path / "two")
    await again.service.start()
    assert again.service.status().problem == NOBODY
    back = Computer(one.network, tmp_path / "one")
    await back.service.start()
    async with asyncio.timeout(5):
        while again.service.status().problem:
            await asyncio.sleep(0.01)
    assert again.told[-1].status.connected
    await again.service.close()
    await back.service.close()


async def test_a_network_that_does_not_start_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.node.swarm.TOUCH_SECONDS", 0.05)
    one = Computer(MemoryNetwork(seed=1), tmp_path / "one")
    one.failure = PortTaken("Port 31330 is taken.")
    await one.service.start()
    assert "31330" in one.service.status().problem
    one.failure = None
    async with asyncio.timeout(5):
        while one.service.place is None:
            await asyncio.sleep(0.01)
    assert one.service.status().connected
    await one.service.close()


async def test_a_dead_network_daemon_is_replaced(
    pair: tuple[Computer, Computer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.node.swarm.FAILURE_SECONDS", 0.01)
    one, _ = pair
    await one.service.leave()  # whose watch looks as often as patched
    alive = one.service.place
    assert alive is not None
    one.network.kill(alive.transport.peer_id)
    async with asyncio.timeout(5):
        while one.service.place in (None, alive):
            await asyncio.sleep(0.01)
    assert one.service.status().connected
    assert one.service.place is not None
    assert one.service.place.membership == alive.membership
    assert one.places[-1] is one.service.place


async def test_a_taken_port_is_told_and_another_one_used(
    pair: tuple[Computer, Computer], tmp_path: Path
) -> None:
    one, _ = pair
    three = Computer(one.network, tmp_path / "three")
    three.settings.change(
        lambda settings: replace(settings, swarm=replace(settings.swarm, port=31330))
    )
    three.taken_port = 31330
    await three.service.start()
    assert three.service.place is not None
    assert "31330" in three.service.status().problem
    assert three.settings.value.swarm.port == 31330
    await three.service.close()


async def test_a_join_that_fails_at_the_last_leaves_all_as_it_was(
    pair: tuple[Computer, Computer],
) -> None:
    one, two = pair
    code = (await one.service.create_invite(1, "")).code
    before = two.places[-1].membership
    two.failing_identity = "node"
    with pytest.raises(NetworkFailed):
        await two.service.join(code)
    two.failing_identity = ""
    await two.service.close()
    await two.service.start()
    assert two.service.place is not None
    assert two.service.place.membership == before


async def test_without_a_swarm_there_is_no_invite_and_no_joining(
    pair: tuple[Computer, Computer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_changes, "BEGIN_SECONDS", 0.05)
    one, _ = pair
    code = (await one.service.create_invite(1, "")).code
    three = Computer(one.network, tmp_path / "three")
    for asking in (three.service.create_invite(1, ""), three.service.join(code)):
        with pytest.raises(NetworkFailed, match="not begun") as caught:
            await asking
        assert caught.value.next_step
    assert three.entries == []
    assert three.settings.value.swarm.reach is Reach.LOCAL


async def test_an_invite_waits_for_the_swarm_that_is_beginning(tmp_path: Path) -> None:
    one = Computer(MemoryNetwork(seed=1), tmp_path / "one")
    asking = asyncio.create_task(one.service.create_invite(1, "127.0.0.1"))
    await asyncio.sleep(0.01)
    await one.service.start()
    invite = decode_invite((await asking).code, time.time())
    assert invite.name == one.service.status().name != ""
    assert invite.secret
    await one.service.close()


async def test_after_the_end_nothing_changes(pair: tuple[Computer, Computer]) -> None:
    one, two = pair
    code = (await one.service.create_invite(1, "")).code
    await two.service.close()
    entries = len(two.entries)
    for asking in (two.service.join(code), two.service.create_invite(1, ""), two.service.leave()):
        with pytest.raises(NetworkFailed, match="ending"):
            await asking
    assert len(two.entries) == entries


async def test_a_swarm_that_cannot_be_kept_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_changes, "BEGIN_SECONDS", 0.05)
    one = Computer(MemoryNetwork(seed=1), tmp_path / "one")

    def full(_update: object) -> None:
        raise DiskFull("There is no space left.")

    monkeypatch.setattr(one.settings, "change", full)
    with pytest.raises(DiskFull):
        await one.service.start()
    with pytest.raises(NetworkFailed, match="not begun"):
        await one.service.create_invite(1, "127.0.0.1")


async def test_a_directory_that_fails_is_started_again(
    pair: tuple[Computer, Computer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, _ = pair
    monkeypatch.setattr("superbloom.node.swarm.DIRECTORY_SECONDS", 0.01)
    runs: list[Directory] = []
    running = asyncio.Event()

    async def run(directory: Directory, models: object) -> None:
        runs.append(directory)
        if len(runs) < 3:
            raise ExceptionGroup("in its tasks", [TypeError("what a peer wrote")])
        running.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Directory, "run", run)
    await one.service.leave()
    async with asyncio.timeout(5):
        await running.wait()
    assert len(set(runs)) == 1
    assert "The directory failed" in caplog.text


async def test_clocks_that_part_after_the_start_are_told(
    pair: tuple[Computer, Computer], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = pair
    monkeypatch.setattr("superbloom.node.swarm.TOUCH_SECONDS", 0.01)
    differ = True
    monkeypatch.setattr(Directory, "clocks_differ", property(lambda _: differ))
    await one.service.leave()
    async with asyncio.timeout(5):
        while one.service.status().problem != CLOCKS:
            await asyncio.sleep(0.01)
        differ = False
        while one.service.status().problem:
            await asyncio.sleep(0.01)


async def test_without_a_keyring_an_invite_wants_consent_to_a_file(
    pair: tuple[Computer, Computer], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair

    def refuse(name: str, secret: str, *, file_will_do: bool = False) -> None:
        if not file_will_do:
            raise SecretsUnavailable("There is no keyring to keep secrets in.")

    for computer in pair:
        monkeypatch.setattr(computer.service._secrets, "set", refuse)
    with pytest.raises(SecretsUnavailable):
        await one.service.create_invite(1.0, "")
    assert one.service.status().reach is Reach.LOCAL
    invitation = await one.service.create_invite(1.0, "", keep_in_file=True)
    with pytest.raises(SecretsUnavailable):
        await two.service.join(invitation.code)
    joined = await two.service.join(invitation.code, keep_in_file=True)
    assert joined.name == one.service.status().name
