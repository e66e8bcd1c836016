import pytest

from superbloom.domain.errors import InputRejected
from superbloom.storage.fetching import FetchWatch
from superbloom.storage.model_places import ModelPlaces


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
