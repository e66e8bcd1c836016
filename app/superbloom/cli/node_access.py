"""How a command comes to a node: the one that runs, or one started for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from superbloom.cli.interrupts import held_back
from superbloom.control.address import NodeAddress
from superbloom.control.launch import BORROWED, find_node, launch_node, wait_for_node
from superbloom.control.messages import BORROWER, Done, StopNode
from superbloom.domain.errors import NodeInUse, NodeRunning, NodeUnreachable, SuperbloomError
from superbloom.machine.lock import holder, is_locked
from superbloom.storage.paths import DataFolder

if TYPE_CHECKING:
    from superbloom.cli.node_link import NodeLink

START_SECONDS = 60.0
STOP_SECONDS = 20.0
SILENT_SECONDS = 20.0
"""How long a node that holds the folder may be silent: one that begins, ends or is very busy."""

POLL_SECONDS = 0.05
TRIES = 5
"""A node may end between being found and being used, when the command that borrowed it ends."""


class Absent(Enum):
    """What to do where no node runs."""

    REFUSE = "refuse"
    BORROW = "borrow"
    """Start one and stop it when the command is done, unless others need it by then."""
    START = "start"
    """Start one and leave it running."""


@contextmanager
def node(
    data: DataFolder, absent: Absent = Absent.REFUSE, *, share: bool = True
) -> Iterator[NodeLink]:
    """A connection to the node of `data`, for the length of the block.

    `share` False keeps a node that is started from sharing this time. A node that was started to
    last ends as well if the block fails. Raises NodeUnreachable, InputRejected for a folder that
    cannot be used.
    """
    own = _OwnNode(data, absent, share=share)
    try:
        with _reach(data, absent, own) as link:
            done = False
            try:
                yield link
                done = True
            finally:
                own.part(link, done=done)
    finally:
        own.see_off()


def running_node(data: DataFolder) -> NodeAddress | None:
    """The node that runs on `data`, None if there is none.

    Waits for one that holds the folder and does not answer: it begins, ends or is busy. Raises
    NodeUnreachable, naming its process, when that takes longer than SILENT_SECONDS.
    """
    deadline = time.monotonic() + SILENT_SECONDS
    while (address := find_node(data.root)) is None and is_locked(data.lock_file):
        if time.monotonic() > deadline:
            who = f"process {holder(data.lock_file) or 'unknown'}"
            raise NodeUnreachable(
                f"A node ({who}) has {data.root} and does not answer.",
                f"Wait a moment and try again; if it hangs, end {who}.",
            )
        time.sleep(POLL_SECONDS)
    return address


def link_to(address: NodeAddress, client: str = "terminal") -> NodeLink:
    """A connection to the node there. Raises NodeUnreachable, ControlRefused."""
    return _import_link()(address, client)


class _OwnNode:
    """The node that this command has started, if it had to, and what becomes of it."""

    def __init__(self, data: DataFolder, absent: Absent, *, share: bool) -> None:
        self._data = data
        self._absent = absent
        self._extra = (
            *((BORROWED,) if absent is Absent.BORROW else ()),
            *(() if share else ("--no-share",)),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False
        self._stays = ""

    @property
    def client(self) -> str:
        """How this command presents itself to the node."""
        return BORROWER if self._process is not None else "terminal"

    def start(self) -> NodeAddress | None:
        """Start one; the address of the node that answers then, None if it is already gone.

        Another command's may be quicker; ours is ended then. Raises NodeUnreachable.
        """
        self.see_off()
        self._data.ensure()
        with held_back():  # else a node could begin of which nobody knows
            self._process = launch_node(self._data.root, extra=self._extra)
        _import_link()  # takes about as long as the node needs to start
        address: NodeAddress | None
        try:
            address = wait_for_node(self._data.root, self._process, START_SECONDS)
        except NodeRunning:
            address = running_node(self._data)
        if address is None or not _is_ours(address, self._process):
            self.see_off()
        return address

    def part(self, link: NodeLink, *, done: bool) -> None:
        """Before the command leaves: tell a node of ours to end unless it is meant or needed."""
        if self._process is None:
            return
        if done and self._absent is Absent.START:
            self._stays = "The node keeps running; `superbloom stop` ends it.\n"
            return
        with held_back(), contextlib.suppress(SuperbloomError):
            try:
                link.ask(StopNode(only_if_unused=True), Done, timeout=5.0)
                self._asked = True
            except NodeInUse:
                words = "The node keeps running, for others need it; `superbloom stop` ends it.\n"
                self._stays = words

    def see_off(self) -> None:
        """Wait until a node of ours has ended, unless it stays."""
        process, self._process = self._process, None
        if process is None:
            return
        if not self._stays:
            _end(process, asked=self._asked)
            return
        if process.stdin is not None:
            process.stdin.close()
        process.returncode = 0  # it is meant to outlive this program
        sys.stderr.write(self._stays)


def _reach(data: DataFolder, absent: Absent, own: _OwnNode) -> NodeLink:
    """A link to the node that runs, or to one started now. Raises NodeUnreachable."""
    failure = NodeUnreachable(f"No node is running on {data.root}.")
    for _ in range(TRIES):
        address = running_node(data)
        if address is None and absent is Absent.REFUSE:
            break
        address = address or own.start()
        try:
            if address is not None:
                return link_to(address, own.client)
        except NodeUnreachable as error:  # it ended meanwhile
            failure = error
    raise failure


def _import_link() -> type[NodeLink]:
    from superbloom.cli.node_link import NodeLink  # noqa: PLC0415 (asyncio takes its time)

    return NodeLink


def _is_ours(address: NodeAddress, process: subprocess.Popen[bytes]) -> bool:
    """False if another program's node was quicker. On Windows a venv's Python is a launcher with a
    process of its own, so there the ids tell nothing."""
    return sys.platform == "win32" or address.pid == process.pid


def _end(process: subprocess.Popen[bytes], *, asked: bool) -> None:
    """Wait until a node that was `asked` to end, or ends by itself, has ended; else make it."""
    with held_back(), process.stdin or contextlib.nullcontext():
        if not asked:
            process.terminate()
        for force in (process.terminate, process.kill):
            try:
                process.wait(STOP_SECONDS)
                return
            except subprocess.TimeoutExpired:
                force()
        process.wait()
