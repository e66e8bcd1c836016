"""The announcer goes on whatever goes wrong with one announcement."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from announced import server_info
from superbloom.domain.swarm_map import ServerInfo
from superbloom.node.serving import announcer as announcer_module
from superbloom.node.serving.announcer import Announcer
from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryNetwork

MEMBERSHIP = Membership("ours", b"k" * 32)


def info(peer: str) -> ServerInfo:
    return server_info(peer, name="a\tserver")


async def test_a_description_that_fails_is_logged_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = MemoryNetwork()
    server, client = network.join("server"), network.join("client")
    seen = Directory(client, MEMBERSHIP)
    failing = iter([True, True])

    def describe() -> ServerInfo:
        if next(failing, False):
            raise ZeroDivisionError("no figures yet")
        return info("server")

    announcer = Announcer(Directory(server, MEMBERSHIP), describe)
    async with asyncio.timeout(5):
        while not seen.servers("toy"):
            announcer.soon()
            await asyncio.sleep(0.01)
            await seen.refresh("toy")
    assert "announcing failed" in caplog.text
    assert seen.servers("toy")[0].name == "a server"
    await announcer.close()


async def test_a_load_that_changes_is_told_before_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcer_module, "LOAD_SECONDS", 0.01)
    network = MemoryNetwork()
    seen = Directory(network.join("client"), MEMBERSHIP)
    now, asked = [info("server")], 0

    def describe() -> ServerInfo:
        nonlocal asked
        asked += 1
        return replace(now[0], announced_at=time.time())

    stored: list[int] = []
    transport = network.join("server")
    directory = Directory(transport, MEMBERSHIP)
    announce = directory.announce

    async def counted(described: ServerInfo) -> bool:
        stored.append(described.sessions)
        return await announce(described)

    monkeypatch.setattr(directory, "announce", counted)
    announcer = Announcer(directory, describe)
    async with asyncio.timeout(5):
        while asked < 10:  # the same load is told once
            await asyncio.sleep(0.01)
        assert stored == [0]
        now[0] = replace(now[0], sessions=1)
        while not any(server.sessions for server in seen.servers("toy")):
            await asyncio.sleep(0.01)
            await seen.refresh("toy")
    assert stored == [0, 1]
    await announcer.close()
