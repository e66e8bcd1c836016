"""One process a data folder: a lock that the system takes back when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from types import TracebackType

from superbloom.domain.disk_errors import storage_error
from superbloom.domain.errors import NodeRunning

_HELD = {errno.EWOULDBLOCK, errno.EACCES}
"""What the system says of a lock that another process has; all else is a fault of the disk."""

PROBE_SECONDS = 0.2
"""How long a taker tries: whoever looks at the lock (`is_locked`) has it for an instant."""

POLL_SECONDS = 0.01

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 30
    """Far behind the content, which others must be able to read while the byte is locked."""

    def _lock(descriptor: int, *, shared: bool = False) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int, *, shared: bool = False) -> None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)


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

        Raises NodeRunning, naming the holder's process, if another process has it; DiskFull or
        StorageFailed if the file cannot be opened, locked or written.
        """
        with contextlib.ExitStack() as undo:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                undo.callback(os.close, descriptor)
                if not _take(descriptor):
                    who = f" (process {pid})" if (pid := holder(path)) else ""
                    raise NodeRunning(f"Superbloom already runs on {path.parent}{who}.")
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            except OSError as error:
                raise storage_error(path, error) from error
            undo.pop_all()
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
    """True if some process holds the lock at `path`. Leaves the file as it is.

    Raises StorageFailed if the file is there and cannot be opened or locked.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        return not _try(descriptor, shared=True)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """The process that took the lock at `path` last, None if it left no number."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _take(descriptor: int) -> bool:
    """Whether the lock is ours now."""
    deadline = time.monotonic() + PROBE_SECONDS
    while not _try(descriptor):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _try(descriptor: int, *, shared: bool = False) -> bool:
    """Try to lock once. Raises OSError if the system cannot say who holds it."""
    try:
        _lock(descriptor, shared=shared)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True
