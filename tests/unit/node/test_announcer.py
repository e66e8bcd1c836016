"""The announcer goes on whatever goes wrong with one announcement."""

from __future__ import annotations

import asyncio
import time

import pytest

from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState
from superbloom.node.announcer import Announcer
from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryNetwork

MEMBERSHIP = Membership("ours", b"k" * 32)


def info(peer: str) -> ServerInfo:
    return ServerInfo(
        peer=peer,
        name="a\tserver",
        model="toy",
        fingerprint="f",
        blocks=8,
        span=Span(0, 4),
        state=ServerState.ONLINE,
        precision=Precision.BF16,
        device="cpu",
        version="1",
        step_seconds=0.01,
        prefill_tokens_per_second=100.0,
        free_cache_tokens=1000,
        sessions=0,
        addresses=(),
        announced_at=time.time(),
    )


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
