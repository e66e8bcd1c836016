"""What every download, copy and check shares: progress, cancelling, room on the disk, hashes."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from superbloom.domain.errors import DiskFull, ModelDamaged
from superbloom.storage.atomic_file import storage_error

SPARE_BYTES = 64 * 2**20
"""What a download leaves free on the disk."""

PARTIAL = ".part"
"""Ends the name of a file that has not arrived as a whole."""

_CHUNK = 2**20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


class FetchCancelled(Exception):
    """The user ended the work; what is here stays for a later time."""


@dataclass(slots=True)
class FetchWatch:
    """Who watches a piece of work in a thread: hears its progress and may end it.

    `tell(done, total, words)` gets bytes; `total` is 0 while it is not known.
    """

    tell: Callable[[int, int, str], None]
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raises FetchCancelled once the user has cancelled."""
        if self.cancelled.is_set():
            raise FetchCancelled


def plain_name(name: str) -> str:
    """`name` if it is a file's name and no path; what others name may not leave the folder.

    Raises ModelDamaged.
    """
    if not _PLAIN_NAME.fullmatch(name) or name.endswith("."):
        raise ModelDamaged(
            f"The model names a file {name[:80]!r}, which is no plain file name.",
            "Do not use this model: its files may be meant to do harm.",
        )
    return name


def require_room(folder: Path, needed: int) -> None:
    """Raises DiskFull if `needed` bytes do not fit where `folder` is or will be."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed + SPARE_BYTES > free:
        raise DiskFull(
            f"{in_words(needed)} are needed in {folder}, and {in_words(free)} are free there."
        )


def sha256_of(path: Path, watch: FetchWatch, advance: Callable[[int], None]) -> str:
    """A file's hash; `advance(bytes)` hears of every piece. Raises FetchCancelled, OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            watch.check()
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def git_hash_of(path: Path) -> str:
    """The hash under which git keeps a file; the hub gives it for small ones."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def make_folder(folder: Path) -> Path:
    """Make `folder` and what is above it. Raises DiskFull, StorageFailed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    return folder


def in_words(count: int) -> str:
    """A number of bytes as people write it."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
