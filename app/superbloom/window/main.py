"""`superbloom` without a word: checks that a window can be opened, and opens it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from superbloom.domain.errors import NodeRunning, SuperbloomError
from superbloom.machine.lock import FolderLock
from superbloom.storage.paths import DataFolder
from superbloom.window.display import check_display, libraries_missing

LOG_BYTES = 1_000_000
"""A longer log makes room for a new one."""


def main(argv: Sequence[str]) -> int:
    """Open the window, or raise the one that is open on this data folder; gives the exit code."""
    options = _parse(argv)
    try:
        return _open(DataFolder.at(options.data_dir))
    except SuperbloomError as error:
        sys.stderr.write(f"superbloom: {error.message}\n  {error.next_step}\n")
        return 1


def _open(folder: DataFolder) -> int:
    check_display(os.environ)
    folder.ensure()
    try:
        lock = FolderLock.acquire(folder.window_lock_file)
    except NodeRunning:
        return _raise_first(folder)
    with lock:
        _write_log(folder)
        try:
            from superbloom.window.application import run  # noqa: PLC0415 (Qt may be missing)
        except ImportError as error:
            raise libraries_missing(str(error).split(":")[0]) from error
        return run(folder)


def _raise_first(folder: DataFolder) -> int:
    from superbloom.window.single_instance import raise_first  # noqa: PLC0415 (Qt may be missing)

    if raise_first(folder.root):
        return 0
    raise NodeRunning(
        f"Superbloom's window is open on {folder.root} and does not answer.",
        "End it and start again.",
    )


def _write_log(folder: DataFolder) -> None:
    log = folder.window_log
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="superbloom", description="Opens the window. `superbloom --help` lists the commands."
    )
    parser.add_argument("--data-dir", metavar="FOLDER", help="keep everything in this folder")
    return parser.parse_args(argv)
