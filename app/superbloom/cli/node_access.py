"""How a command comes to a node: the one that runs, or one started for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from superbloom.cli.interrupts import held_back
from superbloom.control.address import NodeAddress
from superbloom.control.launch import find_node, launch_node, wait_for_node
from superbloom.control.messages import Done, StopNode
from superbloom.domain.errors import NodeUnreachable, SuperbloomError
from superbloom.storage.paths import DataFolder

if TYPE_CHECKING:
    from superbloom.cli.node_link import NodeLink

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class Absent(Enum):
    """What to do where no node runs."""

    REFUSE = "refuse"
    BORROW = "borrow"
    """Start one and stop it when the command is done."""
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
    address = find_node(data.root)
    if address is not None:
        with _link(address) as link:
            yield link
        return
    if absent is Absent.REFUSE:
        raise NodeUnreachable(f"No node is running on {data.root}.")
    data.ensure()
    process = None
    stays = ends = False
    try:
        with held_back():  # else a node could begin of which nobody knows
            process = launch_node(data.root, extra=() if share else ("--no-share",))
        _import_link()  # takes about as long as the node needs to start
        address = wait_for_node(data.root, process, START_SECONDS)
        ours = _is_ours(address, process)
        with _link(address) as link:
            try:
                yield link
                stays = absent is Absent.START and ours
            finally:
                ends = not stays and (_ask_to_stop(link) if ours else True)
    finally:
        if process is not None and stays:
            process.returncode = 0  # it is meant to outlive this program
        elif process is not None:
            _end(process, asked=ends)
    if stays:
        sys.stderr.write("The node keeps running; `superbloom stop` ends it.\n")


def _link(address: NodeAddress) -> NodeLink:
    return _import_link()(address)


def _import_link() -> type[NodeLink]:
    from superbloom.cli.node_link import NodeLink  # noqa: PLC0415 (asyncio takes its time)

    return NodeLink


def _is_ours(address: NodeAddress, process: subprocess.Popen[bytes]) -> bool:
    """False if another program's node was quicker. On Windows a venv's Python is a launcher with a
    process of its own, so there the ids tell nothing."""
    return sys.platform == "win32" or address.pid == process.pid


def _ask_to_stop(link: NodeLink) -> bool:
    with held_back(), contextlib.suppress(SuperbloomError):
        link.ask(StopNode(), Done, timeout=5.0)
        return True
    return False


def _end(process: subprocess.Popen[bytes], *, asked: bool) -> None:
    """Wait until a node that was `asked` to end, or ends by itself, has ended; else make it."""
    with held_back():
        if not asked:
            process.terminate()
        for force in (process.terminate, process.kill):
            try:
                process.wait(STOP_SECONDS)
                return
            except subprocess.TimeoutExpired:
                force()
        process.wait()
