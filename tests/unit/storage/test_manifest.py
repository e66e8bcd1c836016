import pytest

from superbloom.domain.model_card import GgufSource, HubSource, WheelSource
from superbloom.storage.manifest import (
    MANIFEST,
    Manifest,
    StoredFile,
    damaged_files,
    read_manifest,
    source_name,
    whole_files,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"12")
    (tmp_path / "foreign").write_bytes(b"1")
    files = {"a": StoredFile(2, ""), "b": StoredFile(2, ""), "gone": StoredFile(3, "")}
    write_manifest(tmp_path, Manifest(model="m", source="s", files=files, damaged=("b",)))
    return tmp_path


def test_what_was_written_is_read(folder):
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (manifest.model, manifest.source, manifest.damaged) == ("m", "s", ("b",))
    assert manifest.files["gone"] == StoredFile(3, "")


def test_only_files_of_the_right_size_that_no_check_refused_are_whole(folder):
    assert damaged_files(folder) == ("gone", "b")
    assert whole_files(folder) == {"a"}


def test_without_a_manifest_every_file_counts(folder):
    (folder / MANIFEST).unlink()
    assert read_manifest(folder) is None
    assert damaged_files(folder) == ()
    assert whole_files(folder) == {"a", "b", "foreign"}
    assert whole_files(folder / "nowhere") == frozenset()


def test_sources_have_names():
    assert source_name(HubSource("maker/model")) == "hub:maker/model"
    assert source_name(GgufSource("/x.gguf")) == "/x.gguf"
    assert source_name(WheelSource("p", "1", "", "m")) == "p 1 on the Python package index"
