"""The root of the node process: arguments, folder, lock, log, event loop, exit code."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence

from superbloom.control.launch import ALREADY_RUNS, BORROWED
from superbloom.domain.errors import NodeRunning, SuperbloomError
from superbloom.machine.lock import FolderLock
from superbloom.machine.processor import share_cores_politely
from superbloom.node.node import Node
from superbloom.node.options import NodeOptions
from superbloom.node.typed_values import data_folder, port
from superbloom.storage.logs import start_logging
from superbloom.storage.paths import DataFolder

logger = logging.getLogger(__name__)

FAILED = 1


def main(arguments: Sequence[str]) -> int:
    """Run a node until it is told to stop; the exit code. `arguments` without the word `node`."""
    given = _parser().parse_args(arguments)
    data = DataFolder.at(given.data_dir)
    share_cores_politely()
    try:
        data.ensure()
        with FolderLock.acquire(data.lock_file):
            start_logging(data.node_log, stderr=given.verbose)
            options = NodeOptions(
                model=given.model,
                port=given.port,
                exact=given.exact,
                share=given.share,
                borrowed=given.borrowed,
            )
            ready = _say_nothing if given.quiet else _say_ready
            asyncio.run(Node(data, options).run(ready))
    except SuperbloomError as error:
        logger.error("the node ends: %s", error)
        with contextlib.suppress(OSError):  # the disk that the words go to may be full
            sys.stderr.write(f"superbloom: {error.message}\n  {error.next_step}\n")
        return ALREADY_RUNS if given.quiet and isinstance(error, NodeRunning) else FAILED
    logger.info("the node has ended")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)  # a thread that still loads a model must not hold up the end


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="superbloom node",
        description="Run the node: swarm, chats, models and the share of this computer, without a "
        "window. Views (the window, `superbloom chat`) connect to it.",
    )
    parser.add_argument(
        "--data-dir", type=data_folder, metavar="DIR", help="keep everything in this folder"
    )
    parser.add_argument("--model", default="", metavar="MODEL", help="use this model from now on")
    parser.add_argument(
        "--port", type=port, metavar="PORT", help="listen for peers on this port from now on"
    )
    parser.add_argument(
        "--exact",
        action=argparse.BooleanOptionalAction,
        help="from now on send prompts to other computers unrounded, even where a slow line makes "
        "answers begin later",
    )
    parser.add_argument(
        "--no-share",
        dest="share",
        action="store_false",
        help="do not share this computer this time, whatever was wanted last",
    )
    parser.add_argument(BORROWED, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.add_argument("--verbose", action="store_true", help="print the log")
    return parser


def _say_ready(data_dir: str) -> None:
    sys.stdout.write(f"The node is running on {data_dir}. Ctrl-C ends it.\n")
    sys.stdout.flush()


def _say_nothing(_data_dir: str) -> None:
    """For programs that start a node."""
