"""The lock on the data folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import superbloom
from superbloom.domain.errors import NodeRunning, StorageFailed
from superbloom.machine.lock import FolderLock, is_locked

HOLD = """
import sys
from pathlib import Path
from superbloom.machine.lock import FolderLock
lock = FolderLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_a_second_holder_is_turned_away_and_told_whom(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    with FolderLock.acquire(path):
        with pytest.raises(NodeRunning) as caught:
            FolderLock.acquire(path)
        assert str(os.getpid()) in caught.value.message
        assert "--data-dir" in caught.value.next_step
        assert is_locked(path)
    assert not is_locked(path)
    FolderLock.acquire(path).release()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(superbloom.__file__).parent.parent)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        with pytest.raises(NodeRunning, match=str(holder.pid)):
            FolderLock.acquire(path)
        holder.kill()
        holder.wait()
    assert path.exists()
    with FolderLock.acquire(path):
        assert int(path.read_text()) == os.getpid()


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    lock = FolderLock.acquire(path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE):
        lock.release()
        lock.release()
        assert not is_locked(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "none" / "node.lock")
    with pytest.raises(StorageFailed):
        FolderLock.acquire(tmp_path / "none" / "node.lock")
