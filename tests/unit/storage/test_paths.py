"""The data folder."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from superbloom.domain.errors import InputRejected
from superbloom.storage.paths import DataFolder, default_data_dir


def test_every_name_lies_inside(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    names = [
        getattr(data, name)
        for name in dir(DataFolder)
        if isinstance(getattr(DataFolder, name), property) and name != "is_default"
    ]
    assert len(names) > 8
    assert len(set(names)) == len(names)
    assert all(path.is_relative_to(tmp_path) for path in [*names, data.identity("node")])


def test_the_folders_are_for_the_user_alone(tmp_path: Path) -> None:
    data = DataFolder.at(tmp_path / "a" / "b")
    data.ensure()
    data.ensure()
    for folder in (data.root, data.models, data.logs, data.identities, data.cache):
        assert folder.is_dir()
        assert sys.platform == "win32" or stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputRejected) as caught:
        DataFolder.at(tmp_path / "file" / "data").ensure()
    assert "--data-dir" in caught.value.next_step


@pytest.mark.parametrize("name", ["", " ", "~nobody-of-this-name/x"])
def test_a_name_that_is_no_folder(name: str) -> None:
    with pytest.raises(InputRejected):
        DataFolder.at(name)


def test_the_folder_given_and_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DataFolder.at(None).root == default_data_dir()
    assert DataFolder.at(None).is_default
    monkeypatch.chdir(tmp_path)
    assert DataFolder.at("data").root == tmp_path / "data"
    assert not DataFolder.at("data").is_default
