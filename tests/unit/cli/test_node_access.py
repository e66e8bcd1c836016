"""Nodes that commands start for themselves; a small script stands in for `superbloom node`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import superbloom
from superbloom.cli import node_access
from superbloom.cli.node_access import Absent, node
from superbloom.control.address import read_address
from superbloom.control.launch import console_log, find_node
from superbloom.control.messages import Done, GetStatus
from superbloom.domain.errors import NodeUnreachable
from superbloom.machine.lock import is_locked
from superbloom.storage.paths import DataFolder

NODE = """
import asyncio, os, sys
from pathlib import Path
from superbloom.control.address import NodeAddress, write_address
from superbloom.control.messages import Done, StopNode
from superbloom.control.server import ControlServer
from superbloom.domain.errors import SuperbloomError
from superbloom.machine.lock import FolderLock

async def main(folder):
    stop = asyncio.Event()
    async def answer(request, caller):
        if isinstance(request, StopNode) and "--deaf" not in sys.argv:
            stop.set()
        return Done()
    server = ControlServer("t", answer)
    port = await server.start()
    address = NodeAddress(port=port, token="t", pid=os.getpid(), version="1")
    write_address(folder / "control.json", address)
    await stop.wait()
    await server.close()
    (folder / "ended").touch()

folder = Path(sys.argv[1])
try:
    with FolderLock.acquire(folder / "node.lock"):
        asyncio.run(main(folder))
except SuperbloomError as error:
    raise SystemExit(f"superbloom: {error.message}\\n  {error.next_step}")
"""


class Launched:
    """Stands in for `launch_node`, and knows what it started."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.extra: list[tuple[str, ...]] = []
        self.script = NODE

    def __call__(self, data_dir: Path, *, extra: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        self.extra.append(tuple(extra))
        surroundings = {**os.environ, "PYTHONPATH": str(Path(superbloom.__file__).parent.parent)}
        with console_log(data_dir).open("wb") as output:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", self.script, str(data_dir), *extra],
                    stdout=output,
                    stderr=output,
                    env=surroundings,
                )
            )
        return self.processes[-1]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launched]:
    made = Launched()
    monkeypatch.setattr(node_access, "launch_node", made)
    yield made
    for process in made.processes:
        process.returncode = None
        process.kill()
        process.wait()


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


def test_a_borrowed_node_ends_with_the_command(data: DataFolder, launched: Launched) -> None:
    with node(data, Absent.BORROW, share=False) as link:
        assert link.ask(GetStatus(), Done) == Done()
        assert is_locked(data.lock_file)
    assert launched.extra == [("--no-share",)]
    assert launched.processes[0].returncode == 0
    assert (data.root / "ended").exists()
    assert not is_locked(data.lock_file)


def test_a_borrowed_node_ends_when_the_command_fails(data: DataFolder, launched: Launched) -> None:
    with pytest.raises(KeyboardInterrupt), node(data, Absent.BORROW):
        raise KeyboardInterrupt
    assert launched.processes[0].returncode == 0
    assert (data.root / "ended").exists()


def test_ctrl_c_as_the_node_is_launched_leaves_none_behind(
    data: DataFolder, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(data_dir: Path, *, extra: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        process = launched(data_dir, extra=extra)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return process

    monkeypatch.setattr(node_access, "launch_node", launch)
    with pytest.raises(KeyboardInterrupt), node(data, Absent.BORROW):
        pytest.fail("the signal was lost")
    assert launched.processes[0].returncode is not None


def test_a_started_node_stays_and_serves_the_next_command(
    data: DataFolder, launched: Launched, capsys: pytest.CaptureFixture[str]
) -> None:
    with node(data, Absent.START) as link:
        link.ask(GetStatus(), Done)
    assert "superbloom stop" in capsys.readouterr().err
    assert find_node(data.root) is not None
    with node(data, Absent.BORROW) as link:
        link.ask(GetStatus(), Done)
    assert find_node(data.root) is not None
    assert len(launched.processes) == 1


def test_a_node_that_does_not_listen_is_ended_all_the_same(
    data: DataFolder, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_access, "STOP_SECONDS", 0.2)
    launched.script = NODE.replace('"--deaf" not in sys.argv', "False")
    with node(data, Absent.BORROW):
        pass
    assert launched.processes[0].returncode not in (None, 0)
    assert find_node(data.root) is None


def test_a_node_that_cannot_start_says_why(data: DataFolder, launched: Launched) -> None:
    launched.script = "raise SystemExit('superbloom: The disk is gone.\\n  Bring it back.')"
    with pytest.raises(NodeUnreachable, match="The disk is gone"), node(data, Absent.BORROW):
        pass
    assert launched.processes[0].returncode == 1


def test_another_commands_node_is_used_and_left_alone(
    data: DataFolder, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node(data, Absent.BORROW):
        monkeypatch.setattr(node_access, "find_node", lambda _root: None)  # seen too early
        with node(data, Absent.BORROW) as second:
            second.ask(GetStatus(), Done)
        address = read_address(data.control_file)
        assert address is not None
        assert address.pid == launched.processes[0].pid
        assert launched.processes[1].returncode == 1
        assert launched.processes[0].poll() is None
