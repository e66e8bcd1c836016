"""Finding and starting a node; a small script stands in for it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import superbloom
from superbloom.control import launch
from superbloom.control.address import CONTROL_FILE, NodeAddress, write_address
from superbloom.control.launch import console_log, find_node, launch_node, wait_for_node
from superbloom.domain.errors import NodeRunning, NodeUnreachable, OtherVersion
from superbloom.storage.paths import DataFolder

NODE = """
import asyncio, os, sys
from pathlib import Path
from superbloom.control.address import NodeAddress, write_address
from superbloom.control.messages import Done
from superbloom.control.server import ControlServer

async def main():
    async def answer(request, caller):
        asyncio.get_running_loop().call_soon(stop.set)
        return Done()
    stop = asyncio.Event()
    server = ControlServer("t", answer)
    port = await server.start()
    file = Path(sys.argv[1]) / "control.json"
    write_address(file, NodeAddress(port=port, token="t", pid=os.getpid(), version="1"))
    await stop.wait()
    await server.close()
asyncio.run(main())
"""

SURROUNDINGS = {**os.environ, "PYTHONPATH": str(Path(superbloom.__file__).parent.parent)}

Play = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Starts a script in the place of a node."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> subprocess.Popen[bytes]:
        log = console_log(tmp_path)
        log.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-c", script, str(tmp_path)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=SURROUNDINGS)
        started.append(process)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_node_is_waited_for_and_found(tmp_path: Path, play: Play) -> None:
    assert find_node(tmp_path) is None
    process = play(NODE)
    address = wait_for_node(tmp_path, process)
    assert address.pid == process.pid
    assert find_node(tmp_path) == address


def test_what_a_killed_node_left_is_not_a_node(tmp_path: Path, play: Play) -> None:
    process = play(NODE)
    wait_for_node(tmp_path, process)
    process.kill()
    process.wait()
    assert (tmp_path / CONTROL_FILE).exists()
    assert find_node(tmp_path) is None
    fresh = play(NODE)
    assert wait_for_node(tmp_path, fresh).pid == fresh.pid


def test_another_token_on_the_port_is_not_our_node(tmp_path: Path, play: Play) -> None:
    address = wait_for_node(tmp_path, play(NODE))
    other = NodeAddress(port=address.port, token="other", pid=1, version="1")
    write_address(tmp_path / CONTROL_FILE, other)
    assert find_node(tmp_path) is None


def test_another_version_says_so(tmp_path: Path, play: Play) -> None:
    play(
        NODE.replace(
            "asyncio.run", "import superbloom.control.server as s; s.PROTOCOL = 99\nasyncio.run"
        )
    )
    with pytest.raises(OtherVersion, match="another version"):
        for _ in range(10_000):
            find_node(tmp_path)
            threading.Event().wait(0.01)


def test_a_node_that_was_quicker_is_taken(tmp_path: Path, play: Play) -> None:
    first = play(NODE)
    address = wait_for_node(tmp_path, first)
    second = play("raise SystemExit(1)")
    second.wait()
    assert wait_for_node(tmp_path, second) == address


def test_the_last_words_of_a_node_that_could_not_start(tmp_path: Path, play: Play) -> None:
    process = play("raise SystemExit('superbloom: The disk is gone.\\n  Bring it back.')")
    with pytest.raises(NodeUnreachable) as caught:
        wait_for_node(tmp_path, process)
    assert caught.value.message == "The disk is gone."
    assert caught.value.next_step == "Bring it back."


def test_the_last_line_of_a_node_that_crashed(tmp_path: Path, play: Play) -> None:
    with pytest.raises(NodeUnreachable, match="KeyError: 'x'") as caught:
        wait_for_node(tmp_path, play("{}['x']"))
    assert str(console_log(tmp_path)) in caught.value.next_step


def test_a_node_that_never_answers(tmp_path: Path, play: Play) -> None:
    with pytest.raises(NodeUnreachable, match=r"within 0\.1 s"):
        wait_for_node(tmp_path, play("import time; time.sleep(60)"), 0.1)


def test_the_command_line_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    stdins: list[object] = []

    class Process:
        def __init__(self, command: list[str], **options: object) -> None:
            calls.append(command)
            stdins.append(options["stdin"])

    monkeypatch.setattr(launch.subprocess, "Popen", Process)
    launch_node(tmp_path, extra=("--no-share",))
    launch_node(tmp_path, extra=(launch.BORROWED,))
    command = [
        sys.executable, "-P", "-m", "superbloom", "node", "--data-dir", str(tmp_path), "--quiet"
    ]  # fmt: skip
    assert calls == [[*command, "--no-share"], [*command, launch.BORROWED]]
    assert stdins == [subprocess.DEVNULL, subprocess.PIPE]
    assert DataFolder(tmp_path).console_log == console_log(tmp_path)


def test_a_log_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(NodeUnreachable, match="could not be started") as caught:
        launch_node(tmp_path)
    assert caught.value.next_step


def test_a_system_that_starts_nothing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def popen(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(launch.subprocess, "Popen", popen)
    with pytest.raises(NodeUnreachable, match="temporarily unavailable"):
        launch_node(tmp_path)


def test_a_full_disk_is_named_though_it_takes_no_last_words(
    tmp_path: Path, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, *_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    process = play("raise SystemExit(1)")
    process.wait()
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(NodeUnreachable, match="no space left") as caught:
        wait_for_node(tmp_path, process)
    assert "Free some space" in caught.value.next_step


def test_an_end_without_a_word(tmp_path: Path, play: Play) -> None:
    with pytest.raises(NodeUnreachable, match="ended as it started"):
        wait_for_node(tmp_path, play("raise SystemExit(1)"))
    assert console_log(tmp_path).read_bytes() == b""


def test_one_that_found_another_node_on_its_folder(tmp_path: Path, play: Play) -> None:
    with pytest.raises(NodeRunning):
        wait_for_node(tmp_path, play(f"raise SystemExit({launch.ALREADY_RUNS})"))
