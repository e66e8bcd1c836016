"""Processes that are killed: what is started again, what is said, and that nothing is left."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from program import Program, Start

pytestmark = [pytest.mark.starter, pytest.mark.timeout(200)]


def share(start: Start, data: Path) -> dict:
    program = start("status", "--json", "--data-dir", str(data))
    assert program.wait(30) == 0, program.said
    return json.loads(program.output)["share"]


def until(start: Start, data: Path, *states: str, timeout: float = 100) -> dict:
    """Wait until the share is in one of `states`."""
    deadline = time.monotonic() + timeout
    while (found := share(start, data))["state"] not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.3)
    return found


def server_of(node: Program) -> psutil.Process:
    return next(process for process in node.family() if "serve" in process.cmdline())


def gone(processes: list[psutil.Process], timeout: float) -> bool:
    """True once all have ended; one that nobody has waited for yet counts as ended."""
    _, left = psutil.wait_procs(processes, timeout=timeout)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in left)


@pytest.fixture
def node(start: Start, data: Path) -> Program:
    program = start("node", "--data-dir", str(data))
    program.heard("The node is running")
    until(start, data, "serving")
    return program


def test_a_killed_server_is_started_again_and_said_why(
    node: Program, start: Start, data: Path
) -> None:
    server = server_of(node)
    its_daemon = server.children(recursive=True)
    assert its_daemon
    server.kill()
    found = until(start, data, "restarting", "starting", "loading", timeout=20)
    assert gone(its_daemon, 10)
    until(start, data, "serving")
    assert server_of(node).pid != server.pid
    assert "SIGKILL" in (data / "logs" / "node.log").read_text()
    if found["state"] == "restarting":
        assert "SIGKILL" in found["reason"]


def test_a_killed_node_leaves_nothing_running(node: Program) -> None:
    family = node.family()
    node.kill()
    assert gone(family[1:], 20)


def test_sigterm_ends_everything(node: Program) -> None:
    family = node.family()
    node.terminate()
    assert node.wait(20) == 0, node.said
    assert gone(family[1:], 5)
