"""The system's words about files become ours."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from superbloom.domain.disk_errors import storage_error
from superbloom.domain.errors import DiskFull, StorageFailed, SuperbloomError


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EACCES, StorageFailed),
        (errno.EROFS, StorageFailed),
    ],
)
def test_a_full_disk_and_another_fault(number: int, kind: type[SuperbloomError]) -> None:
    error = storage_error(Path("file"), OSError(number, "Reason"))
    assert type(error) is kind
    assert "file" in error.message
    assert error.next_step
