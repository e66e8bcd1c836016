"""`superbloom` without a word: checks that a window can be opened, and opens it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence

from superbloom.domain.errors import InputRejected, NodeRunning, SuperbloomError
from superbloom.machine.lock import FolderLock
from superbloom.storage.paths import DataFolder
from superbloom.window.display import check_display, libraries_missing

LOG_BYTES = 1_000_000
"""A longer log makes room for a new one."""

SILENT_SECONDS = 5.0
"""How long a window that has the folder may stay silent: it may be starting or just ended."""

ENDING_SECONDS = 30.0
"""How long it is waited for a window that is quitting; it ends its node first."""

LOOK_SECONDS = 0.1


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
    lock = _take_folder(folder)
    if lock is None:
        return 0
    with lock:
        _write_log(folder)
        try:
            from superbloom.window.application import run  # noqa: PLC0415 (Qt may be missing)
        except ImportError as error:
            raise libraries_missing(str(error).split(":")[0]) from error
        return run(folder)


def _take_folder(folder: DataFolder) -> FolderLock | None:
    """The folder for a window of ours; None when another one has it and has shown itself.

    Raises NodeRunning when another one has it and neither answers nor ends.
    """
    began = time.monotonic()
    patience = SILENT_SECONDS
    while True:
        try:
            return FolderLock.acquire(folder.window_lock_file)
        except NodeRunning:
            from superbloom.window.single_instance import (  # noqa: PLC0415 (Qt may be missing)
                Answer,
                raise_first,
            )

            answer = raise_first(folder.root)
            if answer is Answer.SHOWN:
                return None
            if answer is Answer.ENDING:
                patience = ENDING_SECONDS
            if time.monotonic() - began > patience:
                raise NodeRunning(
                    f"Superbloom's window is open on {folder.root} and does not answer.",
                    "End it and start again.",
                ) from None
            time.sleep(LOOK_SECONDS)


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
    given = parser.parse_args(argv)
    try:
        DataFolder.at(given.data_dir)
    except InputRejected as error:
        parser.error(error.message)
    return given
