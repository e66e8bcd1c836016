"""Finding the running node, or starting one and waiting until it answers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from superbloom.control.address import CONTROL_FILE, NodeAddress, read_address
from superbloom.control.codec import decode, encode
from superbloom.control.messages import FINDER, Hello, Welcome
from superbloom.domain.disk_errors import storage_error
from superbloom.domain.errors import (
    ControlRefused,
    NodeRunning,
    NodeUnreachable,
    OtherVersion,
)

POLL_SECONDS = 0.01
LAST_WORDS_BYTES = 4000
SAMPLE_BYTES = 4096
"""What a disk with any space left takes."""

BORROWED = "--borrowed"
"""Ends the node when its stdin does, so that it does not outlive the program that borrowed it,
unless others need it by then."""

ALREADY_RUNS = 3
"""The exit code of a node started by a program (--quiet) that found another one on its folder."""


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

    With BORROWED in `extra` it ends by itself once the process's `stdin` is closed. It gets a
    process group of its own, so that Ctrl-C here does not reach it. Raises NodeUnreachable if the
    system or the disk does not let it start.
    """
    command = [sys.executable, "-P", "-m", "superbloom", "node"]
    command += ["--data-dir", str(data_dir), "--quiet", *extra]
    stdin = subprocess.PIPE if BORROWED in extra else subprocess.DEVNULL
    with _open_console(console_log(data_dir)) as output, _failures_told():
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                creationflags=flags,
            )
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _open_console(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise _unwritable(log, error) from error
    return os.fdopen(descriptor, "wb")


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NodeUnreachable(
            f"The node could not be started: {error.strerror or error}.",
            "Free some memory or disk and try again.",
        ) from error


def _unwritable(log: Path, error: OSError) -> NodeUnreachable:
    failure = storage_error(log, error)
    return NodeUnreachable(f"The node could not be started: {failure.message}", failure.next_step)


def wait_for_node(
    data_dir: Path, process: subprocess.Popen[bytes], timeout: float = 30.0
) -> NodeAddress:
    """Wait until the node of `data_dir` answers: `process`, or one that was quicker.

    Raises NodeUnreachable, with the node's last words if it has ended, and NodeRunning if it ended
    because of another one, which does not answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        ended = process.poll() is not None
        address = read_address(data_dir / CONTROL_FILE)
        if address is not None and _answers(address, timeout=2.0):
            return address
        if ended and process.returncode == ALREADY_RUNS:
            raise NodeRunning(f"Superbloom already runs on {data_dir}.")
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
            connection.sendall(encode(Hello(token=address.token, client=FINDER), 0))
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
    if not lines and (failure := _why_silent(log)) is not None:
        return failure
    said = f": {lines[-1].strip()}" if lines else "."
    return NodeUnreachable(f"The node ended as it started{said}", f"Look at {log}.")


def _why_silent(log: Path) -> NodeUnreachable | None:
    """A full disk takes the node's last words too: see whether the log can be written at all."""
    try:
        with log.open("ab", buffering=0) as file:
            file.write(bytes(SAMPLE_BYTES))
        os.truncate(log, 0)
    except OSError as error:
        return _unwritable(log, error)
    return None
