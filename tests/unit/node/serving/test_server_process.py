"""How a supervised server enters the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbloom.domain.errors import PortTaken
from superbloom.node.serving import server_process
from superbloom.node.serving.server_process import enter
from superbloom.node.serving.server_wire import EnterSwarm
from superbloom.node.swarm import Entry
from superbloom.storage.paths import DataFolder
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Transport

SWARM = EnterSwarm(name="ours", secret="5eed", bootstrap=(), listen="0.0.0.0:4002")


async def test_a_server_whose_port_is_taken_listens_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []

    async def connect(_data: DataFolder, entry: Entry) -> Transport:
        ports.append(entry.port)
        if entry.port:
            raise PortTaken(f"Port {entry.port} is taken by another program.")
        return MemoryNetwork().join()

    monkeypatch.setattr(server_process, "connect", connect)
    transport = await enter(DataFolder(tmp_path), SWARM)
    assert ports == [4002, 0]
    await transport.close()
