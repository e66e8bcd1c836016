import asyncio
import errno
import json

import pytest
from transformers import CONFIG_MAPPING

from superbloom.control.messages import ModelProgress, ModelsChanged, ModelState
from superbloom.domain.catalogue import Catalogue
from superbloom.domain.errors import (
    DiskFull,
    DownloadFailed,
    InputRejected,
    ModelDamaged,
    ModelError,
    ModelNotHere,
    ModelUnsupported,
    UnknownModel,
)
from superbloom.domain.model_card import HubSource, ModelCard, ModelShape, Precision
from superbloom.domain.span import Span
from superbloom.node.models.service import ModelService
from superbloom.storage import hub as hub_module
from superbloom.storage.download import Patience
from superbloom.storage.fetching import FetchWatch
from superbloom.storage.model_files import ModelFolder
from superbloom.storage.paths import DataFolder

CARD = ModelCard(
    id="tiny-3b",
    name="Tiny",
    licence="MIT",
    sources=(HubSource("maker/gone"), HubSource("maker/model")),
    config={"model_type": "llama", "n": 3},
)
SHAPE = ModelShape(
    family="llama",
    blocks=3,
    hidden_size=8,
    vocabulary=16,
    context_tokens=128,
    parameters=1000,
    block_bytes={Precision.BF16: 100},
    client_bytes=10,
    cache_bytes_per_token=4,
)


class Tools:
    """Stands for inference: no torch."""

    def __init__(self):
        self.shapes = 0

    def shape_of(self, config):
        self.shapes += 1
        if config.get("model_type") != "llama":
            raise ModelUnsupported("No such family.")
        return SHAPE

    def import_gguf(self, gguf, folder, progress):
        if not gguf.read_bytes().startswith(b"GGUF"):
            raise ModelDamaged("no GGUF")
        (folder / "config.json").write_text(json.dumps(CARD.config))
        (folder / "model.safetensors").write_bytes(b"w")
        progress(1, 1)

    def shards(self, weight_map, span):
        wanted = {f"b{block}.safetensors" for block in span or ()}
        return frozenset(set(weight_map.values()) & {"ends.safetensors", *wanted})


class Events(list):
    def finished(self):
        return [event for event in self if isinstance(event, ModelProgress) and event.finished]


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def data(tmp_path):
    folder = DataFolder(tmp_path / "data")
    folder.ensure()
    return folder


@pytest.fixture
async def models(hub, make_weights, data, events):
    hub.repositories["maker/model"] = make_weights(3)
    service = ModelService(
        data,
        events.append,
        chosen=lambda: CARD.id,
        catalogue=Catalogue((CARD,)),
        tools=Tools(),
        patience=Patience(connect=2, silent=2, pauses=(0.01,)),
    )
    await service.start()
    yield service
    hub.release.set()
    await service.close()


async def settled(models, model=CARD.id):
    """Wait until the work on a model ends; its failure is raised."""
    task = models._jobs.running(model)
    if task is not None:
        await asyncio.wait([task], timeout=20)
        task.result()


async def test_a_fetch_takes_everything_and_tells_how_it_goes(models, events):
    begun = await models.fetch(CARD.id)
    assert begun.state is ModelState.FETCHING
    await settled(models)
    info = await models.info(CARD.id)
    assert info.state is ModelState.READY
    assert info.disk_bytes > 20_000
    assert info.parameters == SHAPE.parameters
    assert info.source == "huggingface.co/maker/gone"
    (end,) = events.finished()
    assert not end.error
    changed = [event for event in events if isinstance(event, ModelsChanged)]
    assert changed[-1].models[0].state is ModelState.READY
    assert changed[-1].model == CARD.id


async def test_ensure_takes_the_ends_then_a_span_and_never_twice(models, hub):
    path = await models.ensure(CARD.id)
    assert hub.times("ends.safetensors") == 1
    assert hub.times("b0.safetensors") == 0
    assert (await models.info(CARD.id)).state is ModelState.PARTIAL
    await asyncio.gather(models.ensure(CARD.id, Span(0, 2)), models.ensure(CARD.id, Span(0, 2)))
    assert sorted(item.name for item in path.glob("b*")) == ["b0.safetensors", "b1.safetensors"]
    assert hub.times("b0.safetensors") == hub.times("ends.safetensors") == 1
    before = len(hub.transfers)
    assert await models.ensure(CARD.id, Span(1, 2)) == path
    assert len(hub.transfers) == before


async def test_a_chosen_folder_keeps_the_model(models, tmp_path):
    await models.fetch(CARD.id, folder=str(tmp_path / "big"))
    await settled(models)
    assert models.folder(CARD.id) == tmp_path / "big" / CARD.id
    assert (await models.info(CARD.id)).folder == str(tmp_path / "big" / CARD.id)
    await models.remove(CARD.id)
    assert not (tmp_path / "big" / CARD.id).exists()
    assert (await models.info(CARD.id)).state is ModelState.ABSENT


async def test_cancelling_keeps_what_is_here_and_a_later_fetch_goes_on(models, hub, events):
    hub.stalls.add("b1.safetensors")
    await models.fetch(CARD.id)
    await asyncio.to_thread(hub.stalled.wait, 10)
    assert (await models.fetch(CARD.id)).state is ModelState.FETCHING
    with pytest.raises(InputRejected):
        await models.fetch(CARD.id, folder="/elsewhere")
    with pytest.raises(InputRejected):
        await models.verify(CARD.id)
    cancelling = asyncio.create_task(models.cancel(CARD.id))
    await asyncio.sleep(0)
    hub.release.set()
    await cancelling
    assert events.finished()[-1].error == "Cancelled."
    assert events.finished()[-1].cancelled
    assert (await models.info(CARD.id)).state is ModelState.PARTIAL
    hub.stalls.clear()
    await models.fetch(CARD.id)
    await settled(models)
    assert hub.times("b0.safetensors") == 1
    assert (await models.info(CARD.id)).state is ModelState.READY


async def test_a_damaged_shard_is_found_and_mended(models):
    await models.fetch(CARD.id)
    await settled(models)
    assert (await models.verify(CARD.id)).state is ModelState.READY
    (models.folder(CARD.id) / "b2.safetensors").write_bytes(b"?" * 5000)
    with pytest.raises(ModelDamaged) as caught:
        await models.verify(CARD.id)
    assert "b2.safetensors" in caught.value.message
    assert "model fetch" in caught.value.next_step
    assert (await models.info(CARD.id)).state is ModelState.DAMAGED
    await models.ensure(CARD.id, Span(2, 3))
    await models.fetch(CARD.id)
    await settled(models)
    assert (await models.verify(CARD.id)).state is ModelState.READY


async def test_an_unknown_model_is_refused_with_what_may_be_meant(models):
    for attempt in (
        models.info("tiny-3"),
        models.fetch("tiny-3"),
        models.ensure("tiny-3"),
        models.remove("tiny-3"),
        models.verify("tiny-3"),
        models.shape("tiny-3"),
    ):
        with pytest.raises(UnknownModel) as caught:
            await attempt
        assert "tiny-3b" in caught.value.next_step


async def test_what_is_not_here_cannot_be_verified(models):
    with pytest.raises(ModelNotHere):
        await models.verify(CARD.id)


async def test_no_network_is_told_to_the_waiting_and_to_the_views(models, events, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed):
        await models.ensure(CARD.id)
    (end,) = events.finished()
    assert "cannot be reached" in end.error
    assert end.next_step


async def test_a_full_disk_is_told_and_logged(models, events, monkeypatch, caplog):
    def full(folder, needed):
        raise DiskFull("No room.")

    monkeypatch.setattr(hub_module, "require_room", full)
    with pytest.raises(DiskFull):
        await models.ensure(CARD.id)
    assert events.finished()[-1].error == "No room."
    assert "No room." in caplog.text


async def test_a_write_that_the_system_refuses_is_a_full_disk_too(models, events, monkeypatch):
    def full(folder, needed):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(hub_module, "require_room", full)
    with pytest.raises(DiskFull):
        await models.ensure(CARD.id)
    assert "no space left" in events.finished()[-1].error


async def test_the_end_of_work_is_heard_before_a_list_without_it(models, events, monkeypatch):
    def full(folder, needed):
        raise DiskFull("No room.")

    monkeypatch.setattr(hub_module, "require_room", full)
    await models.fetch(CARD.id)
    with pytest.raises(DiskFull):
        await settled(models)
    end = events.index(events.finished()[-1])
    lists = [
        (number, event.models[0].state)
        for number, event in enumerate(events)
        if isinstance(event, ModelsChanged) and number > 0
    ]
    assert lists
    assert all(number > end for number, state in lists if state is not ModelState.FETCHING)


async def test_a_gguf_and_a_folder_are_imported(models, tmp_path, make_weights):
    gguf = tmp_path / "My Model Q4_1.gguf"
    gguf.write_bytes(b"GGUF...")
    info = await models.import_path(str(gguf))
    assert info.id == "my-model-q4_1"
    await settled(models, info.id)
    assert (await models.info(info.id)).state is ModelState.READY
    assert await models.ensure(info.id, Span(0, 1)) == models.folder(info.id)
    with pytest.raises(InputRejected):
        await models.import_path(str(gguf))
    given = tmp_path / "given"
    given.mkdir()
    for name, content in make_weights(2).items():
        (given / name).write_bytes(content)
    info = await models.import_path(str(given), "mine")
    await settled(models, "mine")
    listed = {item.id: item for item in await models.list()}
    assert listed["mine"].state is ModelState.READY
    assert listed["mine"].source == str(given)
    assert set(listed) == {CARD.id, "mine", "my-model-q4_1"}
    await models.remove("mine")
    assert "mine" not in {item.id for item in await models.list()}
    assert (given / "b0.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "error"), [("x.gguf", None), ("x.bin", ModelError), ("x.txt", InputRejected)]
)
async def test_what_is_no_model_is_not_imported(models, tmp_path, name, error):
    path = tmp_path / name
    path.write_bytes(b"nothing")
    if error is not None:
        with pytest.raises(error):
            await models.import_path(str(path))
        return
    await models.import_path(str(path))
    with pytest.raises(ModelDamaged):
        await settled(models, "x")
    assert (await models.list())[-1].id == CARD.id


async def test_nothing_there_is_said(models, tmp_path):
    with pytest.raises(InputRejected, match="no file or folder"):
        await models.import_path(str(tmp_path / "nowhere.gguf"))


async def test_sizes_are_computed_once_and_kept(models, data, events):
    await models.info(CARD.id)
    tools = Tools()
    again = ModelService(
        data, events.append, chosen=lambda: "", catalogue=Catalogue((CARD,)), tools=tools
    )
    await again.start()
    assert (await again.list())[0].blocks == 3
    assert (await again.shape(CARD.id)).block_bytes == SHAPE.block_bytes
    assert tools.shapes == 0
    await again.close()


async def test_the_list_has_sizes_at_once(data, events):
    service = ModelService(data, events.append, chosen=lambda: "")
    listed = await service.list()
    assert len(listed) > 10
    assert {item.state for item in listed} == {ModelState.ABSENT}
    assert all(item.blocks and item.block_bytes for item in listed)


async def test_a_whole_model_needs_no_network(models, monkeypatch):
    await models.fetch(CARD.id)
    await settled(models)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    await models.fetch(CARD.id)
    await settled(models)
    assert (await models.info(CARD.id)).state is ModelState.READY


async def test_a_folder_with_files_of_the_user_is_refused_and_left(models, tmp_path):
    mine = tmp_path / "mine" / CARD.id / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputRejected, match="thesis"):
        await models.fetch(CARD.id, folder=str(tmp_path / "mine"))
    await models.remove(CARD.id)
    assert mine.read_text() == "mine"


async def test_what_a_crash_has_left_is_shown_and_deleted_at_the_next_start(data, events):
    work = data.models / ".work" / CARD.id
    (work / "model").mkdir(parents=True)
    (work / "model" / "b0.safetensors").write_bytes(bytes(1000))
    (work / "model.whl.part").write_bytes(bytes(100))
    service = ModelService(
        data, events.append, chosen=lambda: "", catalogue=Catalogue((CARD,)), tools=Tools()
    )
    assert (await service.info(CARD.id)).disk_bytes == 100
    await service.start()
    async with asyncio.timeout(10):
        while any(data.models.rglob("b0.safetensors")):
            await asyncio.sleep(0.01)
    await service.remove(CARD.id)
    assert (await service.info(CARD.id)).disk_bytes == 0
    await service.close()


async def test_families_that_cannot_be_served_do_not_end_the_computing_of_sizes(data, events):
    for model, family in (("one", "mamba"), ("two", "minimax"), ("xyz", "llama")):
        (data.models / model).mkdir(parents=True)
        config = CONFIG_MAPPING[family]().to_dict()
        (data.models / model / "config.json").write_text(json.dumps(config))
        ModelFolder(model, data.models / model).seal("elsewhere", FetchWatch(print))
    service = ModelService(data, events.append, chosen=lambda: "", catalogue=Catalogue((CARD,)))
    await service.start()
    await service._background
    blocks = {item.id: item.blocks for item in await service.list()}
    assert blocks["one"] == blocks["two"] == 0
    assert blocks["xyz"] == 32
    with pytest.raises(ModelUnsupported):
        await service.shape("one")
    await service.close()
