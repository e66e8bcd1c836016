"""The file of settings."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from superbloom.domain.errors import DiskFull, StorageFailed
from superbloom.domain.model_card import Precision
from superbloom.domain.settings import Reach, Settings, ShareSettings, SwarmSettings
from superbloom.storage.settings_file import load_settings, save_settings

CHOSEN = Settings(
    display_name="Ada",
    model="m",
    share=ShareSettings(wanted=False, first_block=0, end_block=4, precision=Precision.NF4),
    swarm=SwarmSettings(name="s", reach=Reach.OPEN, port=31330, bootstrap=("/ip4/127.0.0.1",)),
)


def test_no_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "settings.json") == (Settings(), "")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    save_settings(path, Settings())
    save_settings(path, CHOSEN)
    assert load_settings(path) == (CHOSEN, "")
    assert [file.name for file in tmp_path.iterdir()] == ["settings.json"]
    assert sys.platform == "win32" or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_settings_of_an_older_version_take_new_defaults(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"model": "m"}))
    assert load_settings(path) == (Settings(model="m"), "")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b'{"model": 1}', b'{"colour": "red"}',
     b'{"swarm": {"port": -1}}', b"[" * 100_000],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
def test_a_damaged_file_is_kept_aside_and_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.json"
    for _ in range(2):
        path.write_bytes(content)
        settings, problem = load_settings(path)
        assert settings == Settings()
        assert not path.exists()
    kept = list(tmp_path.iterdir())
    assert len(kept) == 2
    assert all(file.read_bytes() == content for file in kept)
    assert any(file.name in problem for file in kept)
    assert load_settings(path) == (Settings(), "")


def test_a_full_disk_leaves_the_old_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.json"
    save_settings(path, CHOSEN)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        save_settings(path, Settings())
    assert load_settings(path) == (CHOSEN, "")
    assert [file.name for file in tmp_path.iterdir()] == ["settings.json"]


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "settings.json").mkdir()
    with pytest.raises(StorageFailed):
        load_settings(tmp_path / "settings.json")
    with pytest.raises(StorageFailed):
        save_settings(tmp_path / "none" / "settings.json", Settings())
