"""The file that says how to reach the node."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from superbloom.control.address import (
    CONTROL_FILE,
    NodeAddress,
    new_token,
    read_address,
    write_address,
)
from superbloom.domain.errors import DiskFull, StorageFailed
from superbloom.storage.paths import DataFolder

ADDRESS = NodeAddress(port=5000, token="secret", pid=7, version="1")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / CONTROL_FILE
    write_address(file, ADDRESS)
    write_address(file, ADDRESS)
    assert read_address(file) == ADDRESS
    assert [path.name for path in tmp_path.iterdir()] == [CONTROL_FILE]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits")
def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / CONTROL_FILE
    file.touch(mode=0o644)
    write_address(file, ADDRESS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


GOOD = {"port": 1, "token": "t", "pid": 1, "version": "1"}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "\udcff", *(json.dumps(GOOD | wrong) for wrong in (
        {"port": 0}, {"port": 70000}, {"port": "1"}, {"token": None}, {"more": 1}
    ))],
)  # fmt: skip
def test_nonsense_is_no_address(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_bytes(text.encode(errors="surrogateescape"))
    assert read_address(tmp_path / "file") is None


def test_no_file_is_no_address(tmp_path: Path) -> None:
    assert read_address(tmp_path / "none") is None


def test_the_token_does_not_show() -> None:
    assert "secret" not in repr(ADDRESS)
    assert len(new_token()) == 64
    assert new_token() != new_token()


def test_the_data_folder_knows_the_file(tmp_path: Path) -> None:
    assert DataFolder(tmp_path).control_file == tmp_path / CONTROL_FILE


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="cannot be used"):
        write_address(tmp_path / "none" / CONTROL_FILE, ADDRESS)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, *_arguments: object, **_options: object) -> None:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(DiskFull):
        write_address(tmp_path / CONTROL_FILE, ADDRESS)
    assert list(tmp_path.iterdir()) == []
