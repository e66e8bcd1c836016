import pytest

from superbloom.domain.errors import InputRejected
from superbloom.storage.fetching import FetchWatch
from superbloom.storage.model_places import WHEEL, ModelPlaces


@pytest.fixture
def watch():
    return FetchWatch(lambda *_: None)


def test_a_model_lies_where_the_user_wants_it(tmp_path, watch):
    places = ModelPlaces(tmp_path / "models")
    assert places.models() == ()
    chosen = places.choose("a", tmp_path / "big disk")
    assert places.folder("a").path == chosen.path == tmp_path / "big disk" / "a"
    chosen.path.mkdir(parents=True)
    (chosen.path / "config.json").write_text("{}")
    chosen.seal("x", watch)
    assert places.models() == ("a",)
    assert places.choose("a", tmp_path / "big disk").path == chosen.path
    with pytest.raises(InputRejected):
        places.choose("a", tmp_path / "elsewhere")
    chosen.remove()
    places.forget("a")
    assert places.folder("a").path == tmp_path / "models" / "a"
    assert places.models() == ()


def test_a_damaged_list_of_places_counts_as_none(tmp_path):
    places = ModelPlaces(tmp_path)
    (tmp_path / "places.json").write_text("no")
    assert places.folder("a").path == tmp_path / "a"


def test_a_folder_with_files_of_the_user_is_not_chosen(tmp_path):
    places = ModelPlaces(tmp_path / "models")
    mine = tmp_path / "mine" / "a"
    mine.mkdir(parents=True)
    places.choose("a", tmp_path / "mine")  # an empty folder is as good as none
    places.forget("a")
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(InputRejected, match=r"thesis\.txt"):
        places.choose("a", tmp_path / "mine")
    assert places.folder("a").path == tmp_path / "models" / "a"
    (tmp_path / "mine" / "b").write_text("a file")
    with pytest.raises(InputRejected):
        places.choose("b", tmp_path / "mine")


def test_a_list_of_places_that_is_no_map_counts_as_none(tmp_path):
    (tmp_path / "places.json").write_text("[]")
    assert ModelPlaces(tmp_path).folder("a").path == tmp_path / "a"


def lay(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)


def test_of_unfinished_work_only_downloads_stay(tmp_path):
    places = ModelPlaces(tmp_path)
    lay(
        places.work("a"), "model/b0.safetensors", "tiny.gguf", "pip/x.whl", WHEEL, "hub/config.json"
    )
    assert places.work_bytes("a") == 50
    places.tidy_work("a")
    assert {item.name for item in places.work("a").iterdir()} == {WHEEL, "hub"}
    lay(places.work("b"), "model/b0.safetensors")
    places.tidy_work("b")
    assert not places.work("b").exists()


def test_what_was_left_when_work_was_cut_off_is_deleted(tmp_path):
    places = ModelPlaces(tmp_path / "models")
    places.choose("far", tmp_path / "disk")
    for model in ("known", "far", "imported"):
        lay(places.work(model), "model/b0.safetensors", WHEEL + ".part")
    assert places.work("far").parent.parent == tmp_path / "disk"
    places.set_orphans_aside(["known", "far"])
    for model in ("known", "far"):
        assert [item.name for item in places.work(model).iterdir()] == [WHEEL + ".part"]
    assert not places.work("imported").exists()
    places.empty_bins()
    left = [item.name for item in tmp_path.rglob("*") if item.is_file()]
    assert sorted(left) == [WHEEL + ".part"] * 2 + ["places.json"]
