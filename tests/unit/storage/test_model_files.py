import json
from pathlib import Path

import pytest

from superbloom.domain.errors import InputRejected, ModelDamaged, ModelNotHere, StorageFailed
from superbloom.storage.fetching import FetchCancelled, FetchWatch
from superbloom.storage.manifest import MANIFEST
from superbloom.storage.model_files import FolderState, ModelFolder, check_id


@pytest.fixture
def watch():
    return FetchWatch(lambda *_: None)


@pytest.fixture
def folder(tmp_path, watch):
    made = ModelFolder("m", tmp_path / "m")
    made.path.mkdir()
    (made.path / "config.json").write_text("{}")
    (made.path / "model.safetensors").write_bytes(b"w" * 1000)
    made.seal("somewhere", watch)
    return made


def test_a_sealed_folder_is_ready_and_says_what_it_holds(folder):
    assert folder.state() is FolderState.READY
    manifest = folder.require_manifest()
    assert manifest.complete
    assert {name: file.bytes for name, file in manifest.files.items()} == {
        "config.json": 2,
        "model.safetensors": 1000,
    }
    assert folder.holds({"config.json"})
    assert not folder.holds({"other"})
    assert folder.disk_bytes() > 1000


def test_nothing_is_absent_and_a_partial_file_is_partial(tmp_path):
    folder = ModelFolder("m", tmp_path / "m")
    assert folder.state() is FolderState.ABSENT
    assert folder.disk_bytes() == 0
    with pytest.raises(ModelNotHere):
        folder.require_manifest()
    folder.path.mkdir()
    (folder.path / "x.part").write_bytes(b"1")
    assert folder.state() is FolderState.PARTIAL


def test_a_file_cut_short_is_damage_without_hashing(folder):
    (folder.path / "model.safetensors").write_bytes(b"w" * 999)
    assert folder.state() is FolderState.DAMAGED
    assert not folder.holds({"model.safetensors"})


def test_a_changed_byte_is_found_by_verify_and_dropped_for_a_new_fetch(folder):
    seen = []
    (folder.path / "model.safetensors").write_bytes(b"x" + b"w" * 999)
    assert folder.state() is FolderState.READY
    assert folder.verify(FetchWatch(lambda *told: seen.append(told))) == ("model.safetensors",)
    assert seen[-1][:2] == (1002, 1002)
    assert folder.state() is FolderState.DAMAGED
    folder.drop_damaged()
    assert folder.state() is FolderState.PARTIAL
    assert not (folder.path / "model.safetensors").exists()
    assert folder.holds({"config.json"})


def test_a_missing_file_is_found_by_verify(folder, watch):
    (folder.path / "config.json").unlink()
    assert folder.verify(watch) == ("config.json",)


def test_verify_can_be_cancelled(folder, watch):
    watch.cancelled.set()
    with pytest.raises(FetchCancelled):
        folder.verify(watch)
    assert folder.state() is FolderState.READY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"model": "m"}',
        json.dumps({"model": "m", "source": "", "files": {"../../x": {"bytes": 1, "sha256": ""}}}),
    ],
)
def test_a_damaged_manifest_is_damage_and_can_be_started_over(folder, text):
    (folder.path / MANIFEST).write_text(text)
    assert folder.state() is FolderState.DAMAGED
    with pytest.raises(ModelDamaged):
        folder.manifest()
    folder.drop_damaged()
    assert folder.state() is FolderState.ABSENT


def test_removing_is_complete_and_may_be_repeated(folder):
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a..b", "-a", "x" * 65, "a\n"])
def test_ids_that_are_no_plain_names_are_refused(name):
    with pytest.raises(InputRejected):
        check_id(name)


def test_removing_leaves_what_is_not_the_models(folder):
    (folder.path / "thesis.txt").write_text("mine")
    (folder.path / "notes").mkdir()
    (folder.path / "model.safetensors.part").write_bytes(b"1")
    (folder.path / ".DS_Store").write_bytes(b"1")
    folder.remove()
    assert sorted(item.name for item in folder.path.iterdir()) == ["notes", "thesis.txt"]
    assert folder.state() is FolderState.ABSENT


def test_a_finished_folder_takes_the_place_and_foreign_files_stay(folder, tmp_path, watch):
    (folder.path / "thesis.txt").write_text("mine")
    fresh = ModelFolder("m", tmp_path / "work" / "model")
    fresh.path.mkdir(parents=True)
    (fresh.path / "config.json").write_text("{ }")
    fresh.seal("elsewhere", watch)
    folder.replace_with(fresh.path)
    assert folder.state() is FolderState.READY
    assert folder.require_manifest().source == "elsewhere"
    assert sorted(item.name for item in folder.path.iterdir()) == [
        "config.json",
        MANIFEST,
        "thesis.txt",
    ]
    assert not fresh.path.exists()


def test_a_damaged_manifest_does_not_cost_the_user_files(folder):
    (folder.path / "thesis.txt").write_text("mine")
    (folder.path / MANIFEST).write_text("{")
    folder.drop_damaged()
    assert [item.name for item in folder.path.iterdir()] == ["thesis.txt"]


def test_a_removal_that_is_cut_off_can_be_done_again(folder, monkeypatch):
    real = Path.unlink

    def refused(self, missing_ok=False):
        if self.name == "model.safetensors":
            raise PermissionError(13, "Permission denied", str(self))
        real(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        with pytest.raises(StorageFailed):
            folder.remove()
    assert folder.state() is FolderState.DAMAGED
    folder.remove()
    assert not folder.path.exists()
