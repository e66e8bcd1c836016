import json

import pytest

from superbloom.domain.errors import InputRejected, ModelDamaged, ModelUnsupported
from superbloom.storage import folder_import
from superbloom.storage.fetching import FetchCancelled, FetchWatch
from superbloom.storage.folder_import import import_folder


@pytest.fixture
def watch():
    return FetchWatch(lambda *_: None)


@pytest.fixture
def given(tmp_path, make_weights):
    folder = tmp_path / "given"
    folder.mkdir()
    for name, content in make_weights(2).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("links", [True, False])
def test_a_model_is_linked_or_copied_and_nothing_else(given, target, watch, monkeypatch, links):
    if not links:

        def refuse(*_):
            raise OSError("no links here")

        monkeypatch.setattr(folder_import.os, "link", refuse)
    import_folder(given, target, watch)
    names = {item.name for item in target.iterdir()}
    assert names == {
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "ends.safetensors",
        "b0.safetensors",
        "b1.safetensors",
    }
    assert (target / "b1.safetensors").read_bytes() == b"\2" * 5000
    assert (target / "b1.safetensors").samefile(given / "b1.safetensors") is links


def test_a_folder_without_a_model_is_refused(tmp_path, target, watch):
    with pytest.raises(InputRejected):
        import_folder(tmp_path, target, watch)


def test_pickles_are_refused(given, target, watch):
    (given / "model.safetensors.index.json").unlink()
    (given / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelUnsupported, match="pickles"):
        import_folder(given, target, watch)


def test_a_missing_shard_is_named(given, target, watch):
    (given / "b1.safetensors").unlink()
    with pytest.raises(ModelDamaged, match=r"b1\.safetensors"):
        import_folder(given, target, watch)


def test_an_index_that_leads_out_of_the_folder_is_refused(given, target, watch):
    index = {"weight_map": {"w": "../given/b0.safetensors"}}
    (given / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelDamaged):
        import_folder(given, target, watch)


def test_it_can_be_cancelled(given, target, watch):
    watch.cancelled.set()
    with pytest.raises(FetchCancelled):
        import_folder(given, target, watch)
