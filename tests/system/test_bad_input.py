"""What is wrong is said in a sentence with a next step, and nothing is lost or left hanging."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from program import Start
from superbloom.control.address import CONTROL_FILE, read_address
from superbloom.domain.invite import Invite, encode_invite

pytestmark = [pytest.mark.starter, pytest.mark.timeout(200)]

STARTER = "smollm2-135m-instruct"
PATIENCE = 60.0


def refused(start: Start, *words: str, timeout: float = PATIENCE) -> str:
    """Run a command that must fail with exit code 1; its sentence and next step."""
    program = start(*words)
    assert program.wait(timeout) == 1, program.said
    lines = program.errors.splitlines()
    assert lines, "nothing was said"
    assert not any("Traceback" in line for line in lines), program.said
    at = next(i for i, line in enumerate(lines) if line.startswith("superbloom: "))
    assert lines[at + 1].startswith("  "), f"no next step:\n{program.errors}"
    return "\n".join(lines[at : at + 2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A port on which something else listens."""
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        yield other.getsockname()[1]


def invite(*, hours: float, port: int = 1) -> str:
    """A well-formed code of a swarm in which nobody is."""
    nobody = "12D3KooWGRUaVPtYqXEU4QVXR2BoyGz6ZbU1VBaKBCPDzU7nCTvT"
    return encode_invite(
        Invite(
            name="gone",
            secret=b"s" * 32,
            addresses=(f"/ip4/127.0.0.1/tcp/{port}/p2p/{nobody}",),
            expires_at=time.time() + hours * 3600,
        )
    )


@pytest.fixture
def node(start: Start, data: Path):
    """A running node that shares nothing."""
    program = start("node", "--no-share", "--data-dir", str(data))
    program.heard("The node is running")
    return program


# --- models ---------------------------------------------------------------------------------


def test_an_unknown_model_cannot_be_served(start: Start, data: Path) -> None:
    said = refused(start, "serve", "--model", "no-such-model", "--data-dir", str(data))
    assert "no-such-model" in said
    assert "superbloom model list" in said


def test_an_unknown_model_cannot_be_fetched(start: Start, data: Path, node) -> None:
    said = refused(start, "model", "fetch", "no-such-model", "--data-dir", str(data))
    assert "no-such-model" in said


def test_a_shard_cut_short_is_named_and_not_served(
    start: Start, data: Path, own_model: Path
) -> None:
    shard = sorted(own_model.glob("*.safetensors"))[3]
    os.truncate(shard, shard.stat().st_size // 2)
    said = refused(start, "serve", "--model", STARTER, "--data-dir", str(data))
    assert shard.name in said
    assert "model fetch" in said


def test_a_changed_shard_is_found_by_verify(start: Start, data: Path, own_model: Path) -> None:
    shard = sorted(own_model.glob("*.safetensors"))[3]
    content = bytearray(shard.read_bytes())
    content[-100] ^= 0xFF
    shard.write_bytes(content)
    node = start("node", "--no-share", "--data-dir", str(data))
    node.heard("The node is running")
    said = refused(start, "model", "verify", STARTER, "--data-dir", str(data))
    assert shard.name in said


def test_a_full_disk_stops_a_fetch_in_words(start: Start, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("a small file system cannot be mounted here")
    try:
        node = start("node", "--no-share", "--data-dir", str(small))
        node.heard("The node is running")
        said = refused(start, "model", "fetch", STARTER, "--data-dir", str(small))
        assert "free" in said
        node.terminate()
        assert node.wait(20) == 0, node.said
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


# --- invites and the network ------------------------------------------------------------------


def test_nonsense_is_no_invite(start: Start, data: Path, node) -> None:
    said = refused(start, "join", "superbloom:nonsense", "--data-dir", str(data))
    assert "invite" in said.lower()


def test_a_mistyped_invite_is_noticed(start: Start, data: Path, node) -> None:
    code = invite(hours=1)
    wrong = code[:-9] + ("A" if code[-9] != "A" else "B") + code[-8:]
    said = refused(start, "join", wrong, "--data-dir", str(data))
    assert "invite" in said.lower()


def test_an_expired_invite_says_so(start: Start, data: Path, node) -> None:
    said = refused(start, "join", invite(hours=-2), "--data-dir", str(data))
    assert "expired" in said
    assert "new one" in said


def test_an_invite_to_nobody_says_that_nobody_answers(start: Start, data: Path, node) -> None:
    code = invite(hours=1, port=free_port())
    said = refused(start, "join", code, "--data-dir", str(data))
    assert "reach" in said or "answer" in said
    status = start("status", "--json", "--data-dir", str(data))
    assert status.wait(PATIENCE) == 0, status.said  # the node is in its own swarm as before


def test_a_server_cannot_join_nobody(start: Start, data: Path) -> None:
    code = invite(hours=1, port=free_port())
    said = refused(
        start, "serve", "--model", STARTER, "--join", code, "--data-dir", str(data), timeout=120
    )
    assert "reach" in said or "answer" in said


def test_a_taken_port_is_named(start: Start, data: Path) -> None:
    with taken_port() as port:
        said = refused(
            start,
            *("serve", "--model", STARTER, "--blocks", "0:2", "--port", str(port)),
            *("--data-dir", str(data)),
        )
    assert str(port) in said
    assert "--port" in said


# --- the node ---------------------------------------------------------------------------------


def test_a_second_node_on_the_folder_is_turned_away(start: Start, data: Path, node) -> None:
    said = refused(start, "node", "--data-dir", str(data))
    assert "--data-dir" in said
    status = start("status", "--json", "--data-dir", str(data))
    assert status.wait(PATIENCE) == 0, status.said


def test_a_prompt_longer_than_the_context_is_refused(start: Start, data: Path) -> None:
    long = "word " * 12_000
    said = refused(start, "chat", "--once", long, "--data-dir", str(data), timeout=120)
    assert "tokens" in said


def test_sigterm_in_mid_answer_keeps_the_text(start: Start, data: Path) -> None:
    node = start("node", "--data-dir", str(data))
    node.heard("The node is running")
    asked = start(
        *("chat", "--once", "Count from one to five hundred in words.", "--temperature", "0"),
        *("--max-tokens", "900", "--data-dir", str(data)),
        feed=False,
    )
    kept = data / "conversations.sqlite3"
    deadline = time.monotonic() + 90
    while not (before := answer_text(kept)) and time.monotonic() < deadline:
        assert asked.running, asked.said
        time.sleep(0.2)
    assert before
    node.terminate()
    assert node.wait(20) == 0, node.said
    assert asked.wait(20) == 1, asked.said
    assert "superbloom: " in asked.errors
    assert answer_text(kept).startswith(before)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_no_node_outlives_the_chat_that_borrowed_it(
    start: Start, data: Path, number: signal.Signals, code: int
) -> None:
    if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("nohup has it ignored")
    chat = start("chat", "--data-dir", str(data), feed=True)
    deadline = time.monotonic() + PATIENCE
    while (address := read_address(data / CONTROL_FILE)) is None:
        assert time.monotonic() < deadline, chat.said
        time.sleep(0.05)
    node = psutil.Process(address.pid)
    chat.signal(number)
    assert chat.wait(PATIENCE) == code, chat.said
    assert "Traceback" not in chat.said
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(psutil.NoSuchProcess):
        while node.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the node lives on"
            time.sleep(0.1)


def answer_text(database: Path) -> str:
    """The stored text of the only answer, however far it is."""
    if not database.exists():
        return ""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            rows = connection.execute("SELECT text FROM messages WHERE role = 'assistant'")
            return "".join(text for (text,) in rows)
        except sqlite3.OperationalError:
            return ""


@pytest.mark.parametrize(
    "words",
    [
        ("chat", "--temperature", "hot"),
        ("share", "sideways"),
        ("frobnicate",),
        ("serve", "--peer", "foo"),
        ("node", "--port", "99999"),
    ],
)
def test_wrong_usage_is_exit_code_2(start: Start, data: Path, words: tuple[str, ...]) -> None:
    program = start(*words, "--data-dir", str(data))
    assert program.wait(PATIENCE) == 2, program.said
    assert "Traceback" not in program.said
