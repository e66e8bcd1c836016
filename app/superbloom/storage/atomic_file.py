"""Files that are replaced as a whole or not at all, and damaged ones that are set aside."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from superbloom.domain.disk_errors import storage_error

__all__ = ("set_aside", "storage_error", "write_file")


def write_file(path: Path, content: bytes) -> None:
    """Replace `path`, readable by this user alone (0600), so that a crash leaves old or new.

    Raises DiskFull or StorageFailed; the old file is untouched then.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file so that a new one can take its place; gives the new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    kept = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.stem}.damaged-{stamp}-{number}{path.suffix}")
    try:
        return path.replace(kept)
    except OSError as error:
        raise storage_error(path, error) from error
