"""Nodes that commands start for themselves; a small script stands in for `superbloom node`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import superbloom
from superbloom.cli import node_access
from superbloom.cli.node_access import Absent, node, running_node
from superbloom.control.address import NodeAddress, read_address
from superbloom.control.launch import console_log, find_node
from superbloom.control.messages import Done, GetStatus
from superbloom.domain.errors import NodeUnreachable
from superbloom.machine.lock import FolderLock, is_locked
from superbloom.storage.paths import DataFolder

NODE = """
import asyncio, os, sys
from pathlib import Path
from superbloom.control.address import NodeAddress, write_address
from superbloom.control.launch import ALREADY_RUNS
from superbloom.control.messages import Done, StopNode
from superbloom.control.server import ControlServer
from superbloom.domain.errors import NodeInUse, SuperbloomError
from superbloom.machine.lock import FolderLock

async def main(folder):
    stop = asyncio.Event()
    async def answer(request, caller):
        if isinstance(request, StopNode) and "--deaf" not in sys.argv:
            if request.only_if_unused and server.views != {caller.name}:
                raise NodeInUse("Others.")
            server.begin_close()
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
    sys.stderr.write(f"superbloom: {error.message}\\n  {error.next_step}\\n")
    raise SystemExit(ALREADY_RUNS)
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
    assert launched.extra == [("--borrowed", "--no-share")]
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
        looks: list[int] = []

        def too_early(folder: DataFolder) -> NodeAddress | None:
            looks.append(1)
            return None if len(looks) == 1 else running_node(folder)

        monkeypatch.setattr(node_access, "running_node", too_early)
        with node(data, Absent.BORROW) as second:
            second.ask(GetStatus(), Done)
        address = read_address(data.control_file)
        assert address is not None
        assert address.pid == launched.processes[0].pid
        assert launched.processes[1].returncode is not None
        assert launched.processes[0].poll() is None


def test_a_borrowed_node_that_others_need_stays(
    data: DataFolder, launched: Launched, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.ExitStack() as other:
        with node(data, Absent.BORROW):
            link = other.enter_context(node(data, Absent.BORROW))
        said = capsys.readouterr().err
        assert said == "The node keeps running, for others need it; `superbloom stop` ends it.\n"
        assert link.ask(GetStatus(), Done) == Done()
    assert find_node(data.root) is not None


def test_commands_that_come_at_once_all_succeed(
    data: DataFolder, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_access, "held_back", contextlib.nullcontext)  # threads get no signals
    together = threading.Barrier(4)

    def command(_number: int) -> Done:
        together.wait()
        with node(data, Absent.BORROW) as link:
            return link.ask(GetStatus(), Done)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(command, range(4))) == [Done()] * 4


def test_a_node_that_is_ending_is_waited_for_and_replaced(
    data: DataFolder, launched: Launched
) -> None:
    ending = FolderLock.acquire(data.lock_file)
    timer = threading.Timer(0.3, ending.release)
    timer.start()
    with node(data, Absent.BORROW) as link:
        assert link.ask(GetStatus(), Done) == Done()
    timer.join()
    assert len(launched.processes) == 1


def test_a_node_that_holds_the_folder_and_is_silent_is_named(
    data: DataFolder, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_access, "SILENT_SECONDS", 0.2)
    with FolderLock.acquire(data.lock_file):
        for absent in Absent:
            with pytest.raises(NodeUnreachable, match=f"process {os.getpid()}") as caught:
                node(data, absent).__enter__()
            assert f"end process {os.getpid()}" in caught.value.next_step
    assert launched.processes == []


def test_a_node_that_ends_as_it_is_found_is_replaced(
    data: DataFolder, launched: Launched, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    gone = NodeAddress(port=unused_tcp_port, token="t", pid=1, version="1")
    found: list[NodeAddress | None] = [gone, None]
    monkeypatch.setattr(node_access, "running_node", lambda _data: found.pop(0))
    with node(data, Absent.BORROW) as link:
        assert link.ask(GetStatus(), Done) == Done()
    assert len(launched.processes) == 1
