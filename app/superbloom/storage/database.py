"""SQLite files of ours: opening, upgrading with a copy before, setting damaged ones aside."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from superbloom.domain.errors import DiskFull, InputRejected, StorageFailed, SuperbloomError
from superbloom.storage.atomic_file import set_aside, storage_error

logger = logging.getLogger(__name__)

LOCK_SECONDS = 10.0
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def open_database(path: Path, upgrades: Sequence[str]) -> tuple[sqlite3.Connection, str]:
    """Open `path` at the newest schema; also a sentence for the user if it was damaged (else "").

    `upgrades[n]` is the SQL that leads from schema version n to n + 1. Before an upgrade of what
    is there the file is copied to `<name>.v<n>`; a damaged one is set aside and a new one begun.
    Raises DiskFull, StorageFailed, or InputRejected for a file of a newer program.
    """
    with sqlite_errors(path):
        try:
            return _open(path, upgrades), ""
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _DAMAGED:
                raise
        for leftover in (f"{path.name}-wal", f"{path.name}-shm"):
            companion = path.with_name(leftover)
            if companion.exists():
                set_aside(companion)
        kept = set_aside(path)
        logger.error("the database %s is damaged and kept as %s", path, kept)
        sentence = f"The conversations could not be read; the damaged file is kept as {kept.name}."
        return _open(path, upgrades), sentence


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turns SQLite's errors inside the block into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _in_words(path, error) from error


def _in_words(path: Path, error: sqlite3.Error) -> SuperbloomError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _FULL:
        return DiskFull(f"There is no space left to write {path}.")
    return StorageFailed(f"{path} cannot be used: {error}.")


def _open(path: Path, upgrades: Sequence[str]) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            damage = sqlite3.DatabaseError(verdict)
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
        _upgrade(connection, path, upgrades)
    except BaseException:
        connection.close()
        raise
    return connection


def _upgrade(connection: sqlite3.Connection, path: Path, upgrades: Sequence[str]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(upgrades):
        raise InputRejected(
            f"{path.name} was written by a newer version of Superbloom.",
            "Update Superbloom, or choose another folder with --data-dir.",
        )
    if 0 < version < len(upgrades):
        with contextlib.closing(sqlite3.connect(path.with_name(f"{path.name}.v{version}"))) as copy:
            connection.backup(copy)
    for number in range(version, len(upgrades)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {upgrades[number]}; PRAGMA user_version = {number + 1}; COMMIT;"
        )
