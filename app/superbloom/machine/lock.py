"""One process a data folder: a lock that the system takes back when its holder dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from superbloom.domain.errors import NodeRunning, StorageFailed

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 30
    """Far behind the content, which others must be able to read while the byte is locked."""

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FolderLock:
    """Held from `acquire` until `release` or the end of the process, however it ends.

    The file stays where it is: only the lock on it counts, so what a killed process left behind
    blocks nobody.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path) -> FolderLock:
        """Take the lock at `path`, in a folder that exists.

        Raises NodeRunning, naming the holder's process, if another process has it; StorageFailed
        if the file cannot be opened.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageFailed(f"{path} cannot be used: {error.strerror or error}.") from error
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            holder = _holder(path)
            who = f" (process {holder})" if holder else ""
            raise NodeRunning(f"Superbloom already runs on {path.parent}{who}.") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """True if some process holds the lock at `path`. Holds it itself for an instant."""
    if not path.exists():
        return False
    try:
        FolderLock.acquire(path).release()
    except NodeRunning:
        return True
    return False


def _holder(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
