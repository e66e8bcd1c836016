"""One computer, then two: a node with its own server, an invite, a chat through both."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from program import MakeData, Program, Start

pytestmark = [pytest.mark.starter, pytest.mark.timeout(200)]

STARTER = "smollm2-135m-instruct"
QUESTION = "Why is the sky blue?"
MEMORY_BAR = 450e6
"""Bytes of RSS that half of the starter's blocks in bf16 may take beyond torch and transformers."""


@pytest.fixture(scope="module")
def first(start_for_all: Start, data_for_all: MakeData) -> tuple[Program, Path]:
    """A node that shares the whole starter."""
    data = data_for_all("first")
    node = start_for_all("node", "--data-dir", str(data))
    node.heard("The node is running")
    return node, data


def succeeds(start: Start, *words: str, timeout: float = 100) -> str:
    """Run a command that must succeed; what it printed."""
    program = start(*words)
    assert program.wait(timeout) == 0, program.said
    return program.output


def status(start: Start, data: Path) -> dict:
    return json.loads(succeeds(start, "status", "--json", "--data-dir", str(data)))


def until_share(start: Start, data: Path, state: str, timeout: float = 100) -> dict:
    """Wait until the share is in `state`; the whole status then."""
    deadline = time.monotonic() + timeout
    while (found := status(start, data))["share"]["state"] != state:
        assert time.monotonic() < deadline, found["share"]
        time.sleep(0.5)
    return found


def ask(start: Start, data: Path, *more: str) -> str:
    return succeeds(
        start,
        *("chat", "--once", QUESTION, "--temperature", "0", "--max-tokens", "30"),
        *("--data-dir", str(data), *more),
    )


def test_a_question_is_answered_by_the_own_server(first, start: Start) -> None:
    _, data = first
    answer = ask(start, data)
    assert "sky" in answer.lower()
    assert ask(start, data) == answer


def test_the_processes_are_node_server_and_their_daemons(first, start: Start) -> None:
    node, data = first
    until_share(start, data, "serving")
    kinds = sorted(kind_of(process) for process in node.family())
    assert kinds == ["node", "p2pd", "p2pd", "serve"]


def kind_of(process: psutil.Process) -> str:
    words = process.cmdline()
    if "p2pd" in Path(words[0]).name:
        return "p2pd"
    return next((word for word in words if word in {"node", "serve"}), " ".join(words))


def test_a_second_computer_joins_and_takes_half(
    first, start: Start, start_for_all: Start, data_for_all: MakeData
) -> None:
    _, data = first
    whole = ask(start, data)
    code = succeeds(start, "invite", "--address", "127.0.0.1", "--data-dir", str(data)).split()
    invite = next(word for word in code if word.startswith("superbloom:"))
    second = data_for_all("second")
    start_for_all("node", "--no-share", "--data-dir", str(second)).heard("The node is running")
    succeeds(start, "join", invite, "--data-dir", str(second))
    succeeds(start, "share", "on", "--blocks", "15:30", "--data-dir", str(second))
    until_share(start, second, "serving")
    succeeds(start, "share", "on", "--blocks", "0:15", "--data-dir", str(data))
    until_share(start, data, "serving")
    spans = {(s["span"]["start"], s["span"]["end"]) for s in online_servers(start, data)}
    assert spans == {(0, 15), (15, 30)}
    assert ask(start, data) == whole
    assert ask(start, second) == whole


def online_servers(start: Start, data: Path) -> list[dict]:
    deadline = time.monotonic() + 30
    while True:
        servers = [s for s in status(start, data)["swarm"]["servers"] if s["state"] == "online"]
        if len(servers) == 2 or time.monotonic() > deadline:
            return servers
        time.sleep(0.5)


def test_half_of_the_blocks_take_little_memory(first, start: Start) -> None:
    node, data = first
    succeeds(
        start, "share", "on", "--blocks", "0:15", "--precision", "bf16", "--data-dir", str(data)
    )
    until_share(start, data, "serving")
    ask_alone = "import os, psutil, torch, transformers; print(psutil.Process().memory_info().rss)"
    alone = subprocess.run(
        [sys.executable, "-c", ask_alone], capture_output=True, text=True, check=True, timeout=100
    )
    server = next(process for process in node.family() if kind_of(process) == "serve")
    assert server.memory_info().rss - int(alone.stdout) < MEMORY_BAR


def test_everything_ends_with_stop(start: Start, data: Path) -> None:
    node = start("node", "--data-dir", str(data))
    node.heard("The node is running")
    until_share(start, data, "serving")
    family = node.family()
    succeeds(start, "stop", "--data-dir", str(data))
    assert node.wait(20) == 0, node.said
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert len(gone) == 4


def test_a_chat_without_a_node_leaves_nothing_running(start: Start, data: Path) -> None:
    program = start(
        *("chat", "--once", QUESTION, "--temperature", "0", "--max-tokens", "5"),
        *("--data-dir", str(data)),
    )
    assert program.wait(100) == 0, program.said
    assert program.output.strip()
    assert not [p for p in psutil.process_iter() if str(data) in words_of(p)]


def words_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
