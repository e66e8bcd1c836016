"""The lock on the data folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import superbloom
from superbloom.domain.errors import DiskFull, NodeRunning, StorageFailed
from superbloom.machine import lock as lock_module
from superbloom.machine.lock import FolderLock, holder, is_locked

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


def test_looking_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    path.write_text("4711\n")
    before = path.stat()
    assert not is_locked(path)
    assert path.read_text() == "4711\n"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with FolderLock.acquire(path):
        assert is_locked(path)
        assert holder(path) == os.getpid()


def test_one_who_looks_turns_nobody_away(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    path.touch()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            is_locked(path)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            FolderLock.acquire(path).release()
    finally:
        done.set()
        for looker in lookers:
            looker.join()


def test_a_full_disk_is_said_and_leaves_the_lock_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(DiskFull, match="no space left"):
            FolderLock.acquire(tmp_path / "node.lock")
    assert not is_locked(tmp_path / "node.lock")
    FolderLock.acquire(tmp_path / "node.lock").release()


def test_a_disk_without_locks_is_not_taken_for_another_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_descriptor: int, *, shared: bool = False) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module, "_lock", no_locks)
    with pytest.raises(StorageFailed, match="No locks available"):
        FolderLock.acquire(tmp_path / "node.lock")
    with pytest.raises(StorageFailed):
        is_locked(tmp_path / "node.lock")
