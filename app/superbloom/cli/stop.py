"""`superbloom stop`: end the node and its server."""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import Any

from superbloom.cli.node_access import link_to, running_node
from superbloom.control.messages import Done, StopNode
from superbloom.domain.errors import NodeUnreachable
from superbloom.machine.lock import holder, is_locked
from superbloom.storage.paths import DataFolder

STOP_SECONDS = 60.0


def add_words(words: Any, folder: argparse.ArgumentParser) -> None:
    """Declare `stop`."""
    parser = words.add_parser(
        "stop",
        parents=[folder],
        help="end the running node and its server",
        description="End the running node and its server. Open answers are stopped and kept.",
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """The command; gives the exit code. Done as well where no node runs."""
    data = DataFolder.at(given.data_dir)
    address = running_node(data)
    if address is None:
        print("No node is running.")
        return 0
    with contextlib.suppress(NodeUnreachable), link_to(address) as link:  # it may be ending already
        link.ask(StopNode(), Done)
    deadline = time.monotonic() + STOP_SECONDS
    while is_locked(data.lock_file):
        if time.monotonic() > deadline:
            raise NodeUnreachable(
                f"The node has not ended within {STOP_SECONDS:g} s.",
                f"Look at its log; if it hangs, end process {holder(data.lock_file)}.",
            )
        time.sleep(0.05)
    print("The node has ended.")
    return 0
