"""Which blocks are fetched for a share that leaves the choice to the program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from announced import server_info
from superbloom.domain.catalogue import Catalogue
from superbloom.domain.errors import BudgetTooSmall, DownloadFailed
from superbloom.domain.model_card import HubSource, ModelCard, ModelShape, Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo
from superbloom.node.models.service import ModelService
from superbloom.node.models.span_offer import Offer, runs_here
from superbloom.node.models.waits import ModelWaits
from superbloom.node.place import Place
from superbloom.storage.download import Patience
from superbloom.storage.paths import DataFolder

BLOCKS = 6
CARD = ModelCard(
    id="tiny",
    name="Tiny",
    licence="MIT",
    sources=(HubSource("maker/model"),),
    config={"model_type": "llama"},
)
SHAPE = ModelShape(
    family="llama",
    blocks=BLOCKS,
    hidden_size=8,
    vocabulary=16,
    context_tokens=128,
    parameters=1000,
    block_bytes={Precision.BF16: 100},
    client_bytes=10,
    cache_bytes_per_token=4,
)
REQUEST = ShareRequest(model="tiny")


class Tools:
    def shape_of(self, config: object) -> ModelShape:
        return SHAPE

    def import_gguf(self, *_: object) -> None:
        raise NotImplementedError

    def shards(self, weight_map: Any, span: Span | None) -> frozenset[str]:
        wanted = {f"b{block}.safetensors" for block in span or ()}
        return frozenset(set(weight_map.values()) & {"ends.safetensors", *wanted})


def server(span: Span) -> ServerInfo:
    return server_info("other", span, model="tiny", blocks=BLOCKS)


@dataclass
class Swarm:
    """A place whose directory knows these servers."""

    servers: tuple[ServerInfo, ...] = ()
    asked: int = 0

    async def place(self, _tell: Callable[[str], None]) -> Place:
        self.asked += 1

        async def refresh(_model: str) -> None:
            pass

        directory = SimpleNamespace(refresh=refresh, servers=lambda _model: self.servers)
        return cast("Place", SimpleNamespace(directory=directory))


@pytest.fixture
async def models(hub: Any, make_weights: Any, tmp_path: Path) -> AsyncIterator[ModelService]:
    hub.repositories["maker/model"] = make_weights(BLOCKS)
    data = DataFolder(tmp_path / "data")
    data.ensure()
    service = ModelService(
        data,
        lambda _: None,
        chosen=lambda: "tiny",
        catalogue=Catalogue((CARD,)),
        tools=Tools(),
        patience=Patience(connect=2, silent=2, pauses=()),
    )
    yield service
    await service.close()


def waits(models: ModelService, swarm: Swarm, capacity: int) -> ModelWaits:
    def offer(_request: ShareRequest, shape: ModelShape, folder: Path) -> Offer:
        return Offer(capacity, runs_here(folder, shape.blocks))

    return ModelWaits(models, swarm.place, offer)


def blocks_in(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.glob("b*.safetensors"))


def silent(_words: str) -> None:
    pass


async def test_only_the_blocks_that_the_swarm_lacks_are_fetched(models: ModelService) -> None:
    swarm = Swarm((server(Span(0, 3)),))
    folder = await waits(models, swarm, 2).share_folder(REQUEST, silent)
    assert blocks_in(folder) == ["b3.safetensors", "b4.safetensors"]


async def test_what_is_here_is_shared_without_fetching_more(models: ModelService, hub: Any) -> None:
    await models.ensure("tiny", Span(4, 6))
    before = len(hub.transfers)
    swarm = Swarm()
    folder = await waits(models, swarm, 3).share_folder(REQUEST, silent)
    assert blocks_in(folder) == ["b4.safetensors", "b5.safetensors"]
    assert (len(hub.transfers), swarm.asked) == (before, 0)


async def test_too_little_here_is_no_reason_to_share_only_that(models: ModelService) -> None:
    await models.ensure("tiny", Span(5, 6))
    folder = await waits(models, Swarm((server(Span(3, 6)),)), 3).share_folder(REQUEST, silent)
    assert blocks_in(folder) == [f"b{block}.safetensors" for block in (0, 1, 2, 5)]


async def test_a_whole_model_needs_neither_swarm_nor_budget(models: ModelService) -> None:
    await models.ensure("tiny", Span(0, BLOCKS))
    swarm = Swarm()
    await waits(models, swarm, 1).share_folder(REQUEST, silent)
    assert swarm.asked == 0


async def test_blocks_asked_for_are_fetched(models: ModelService) -> None:
    request = replace(REQUEST, span=Span(1, 2))
    folder = await waits(models, Swarm(), 1).share_folder(request, silent)
    assert blocks_in(folder) == ["b1.safetensors"]


async def test_what_stands_in_the_way_is_raised(
    models: ModelService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poor(*_: object) -> Offer:
        raise BudgetTooSmall("No block fits.")

    with pytest.raises(BudgetTooSmall):
        await ModelWaits(models, Swarm().place, poor).share_folder(REQUEST, silent)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed):
        await waits(models, Swarm(), 2).share_folder(REQUEST, silent)


async def test_how_much_fits_is_looked_up_where_nobody_says(models: ModelService) -> None:
    request = replace(REQUEST, memory_bytes=10**9, precision=Precision.BF16, device="cpu")
    folder = await ModelWaits(models, Swarm().place).share_folder(request, silent)
    assert len(blocks_in(folder)) == BLOCKS
    with pytest.raises(BudgetTooSmall):
        await models.remove("tiny")
        poor = replace(request, memory_bytes=1000)
        await ModelWaits(models, Swarm().place).share_folder(poor, silent)
