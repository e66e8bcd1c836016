"""What the system says when a file cannot be written or read, in our words."""

from __future__ import annotations

import errno
from pathlib import Path

from superbloom.domain.errors import DiskFull, StorageFailed, SuperbloomError

_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


def storage_error(path: Path, error: OSError) -> SuperbloomError:
    """An operating system's refusal to write or read `path`, in our words."""
    if error.errno in _FULL:
        return DiskFull(f"There is no space left to write {path}.")
    return StorageFailed(f"{path} cannot be used: {error.strerror or error}.")
