"""Finding the running node, or starting one and waiting until it answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from superbloom.control.address import CONTROL_FILE, NodeAddress, read_address
from superbloom.control.codec import decode, encode
from superbloom.control.messages import Hello, Welcome
from superbloom.domain.errors import ControlRefused, NodeUnreachable, OtherVersion

POLL_SECONDS = 0.01
LAST_WORDS_BYTES = 4000


def console_log(data_dir: Path) -> Path:
    """Where a node started here writes what it would write to a terminal."""
    return data_dir / "logs" / "node-console.log"


def find_node(data_dir: Path, timeout: float = 2.0) -> NodeAddress | None:
    """The address of the node that runs on `data_dir`, or None; waits at most `timeout` seconds.

    A file left by a node that was killed is not taken for one. Raises OtherVersion if such a
    node runs there.
    """
    address = read_address(data_dir / CONTROL_FILE)
    if address is None or not _answers(address, timeout):
        return None
    return address


def launch_node(data_dir: Path, *, extra: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a node on `data_dir` (which exists) that outlives this program unless it is stopped.

    It gets a process group of its own, so that Ctrl-C here does not reach it.
    """
    log = console_log(data_dir)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, "-m", "superbloom", "node"]
    command += ["--data-dir", str(data_dir), "--quiet", *extra]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                creationflags=flags,
            )
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for_node(
    data_dir: Path, process: subprocess.Popen[bytes], timeout: float = 30.0
) -> NodeAddress:
    """Wait until the node of `data_dir` answers: `process`, or one that was quicker.

    Raises NodeUnreachable, with the node's last words if it has ended.
    """
    deadline = time.monotonic() + timeout
    while True:
        ended = process.poll() is not None
        address = read_address(data_dir / CONTROL_FILE)
        if address is not None and _answers(address, timeout=2.0):
            return address
        if ended:
            raise _last_words(data_dir)
        if time.monotonic() > deadline:
            raise NodeUnreachable(
                f"The node did not open its control port within {timeout:g} s.",
                f"Look at {console_log(data_dir)}.",
            )
        time.sleep(POLL_SECONDS)


def _answers(address: NodeAddress, timeout: float) -> bool:
    """True if a node with this token listens there; OtherVersion if it speaks another wire."""
    try:
        with socket.create_connection(("127.0.0.1", address.port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(encode(Hello(token=address.token, client="finder"), 0))
            with connection.makefile("rb") as lines:
                answer = decode(lines.readline(65536)).message
    except (OSError, ControlRefused):
        return False
    if isinstance(answer, OtherVersion):
        raise answer
    return isinstance(answer, Welcome)


def _last_words(data_dir: Path) -> NodeUnreachable:
    """Why the node ended, as it wrote it: `superbloom: <message>` and an indented next step."""
    log = console_log(data_dir)
    try:
        text = log.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace")
    except OSError:
        text = ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith("superbloom: "):
            step = lines[number + 1].strip() if number + 1 < len(lines) else None
            return NodeUnreachable(line.removeprefix("superbloom: "), step)
    said = f": {lines[-1].strip()}" if lines else "."
    return NodeUnreachable(f"The node ended as it started{said}", f"Look at {log}.")
