"""A server's whole life in a network in memory, with a tiny model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from superbloom.domain.budget import MIB, SCORE_BYTES
from superbloom.domain.errors import (
    BudgetTooSmall,
    InputRejected,
    ModelDamaged,
    ModelNotHere,
    NoPeersReachable,
    ServerCrashed,
)
from superbloom.domain.model_card import Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState
from superbloom.node.serving.server_life import ServerLife
from superbloom.node.serving.server_wire import (
    Alive,
    Draining,
    EnterSwarm,
    Loading,
    Report,
    Serving,
    StartServing,
)
from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Transport

from ..tiny_model import BLOCKS, MODEL, write_tiny_model, write_tiny_shards

SWARM = EnterSwarm(
    name="test", secret="5eed", bootstrap=(), listen="127.0.0.1:0", display_name="tester"
)
MEMBERSHIP = Membership("test", bytes.fromhex("5eed"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


class Life:
    """A server under test and what it reports."""

    def __init__(self, network: MemoryNetwork, folder: Path, **request: object) -> None:
        self.network = network
        self.reports: list[Report] = []
        self._news = asyncio.Event()
        self.entering: asyncio.Future[EnterSwarm] = asyncio.get_running_loop().create_future()
        self.connects = 0
        given: dict[str, object] = {"precision": Precision.FP32, **request}
        order = StartServing(
            request=ShareRequest(model=MODEL, **given),  # type: ignore[arg-type]
            folder=str(folder),
        )
        self.life = ServerLife(order, connect=self._connect, report=self._hear)
        self.task = asyncio.create_task(self.life.run(self.entering))

    async def _connect(self, swarm: EnterSwarm) -> Transport:
        assert swarm.name == SWARM.name
        self.connects += 1
        return self.network.join()

    def _hear(self, report: Report) -> None:
        self.reports.append(report)
        self._news.set()

    async def until(self, kind: type[Report]) -> Report:
        async with asyncio.timeout(60):
            while True:
                for report in self.reports:
                    if isinstance(report, kind):
                        return report
                if self.task.done():
                    await self.task
                    raise AssertionError("the server has left")
                self._news.clear()
                waiting = asyncio.create_task(self._news.wait())
                await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()

    async def serving(self, swarm: EnterSwarm = SWARM) -> Serving:
        self.entering.set_result(swarm)
        report = await self.until(Serving)
        assert isinstance(report, Serving)
        return report

    async def gone(self) -> None:
        async with asyncio.timeout(30):
            await self.task


Start = Callable[..., Life]


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[Start]:
    lives: list[Life] = []
    network = MemoryNetwork()

    def begin(where: Path = folder, **request: object) -> Life:
        lives.append(Life(network, where, **request))
        return lives[-1]

    yield begin
    for life in lives:
        life.life.leave()
        await asyncio.gather(life.task, return_exceptions=True)


async def seen(life: Life) -> tuple[ServerInfo, ...]:
    """The servers as another member of the swarm sees them."""
    observer = life.network.join()
    directory = Directory(observer, MEMBERSHIP)
    await directory.refresh(MODEL)
    await observer.close()
    return directory.servers(MODEL)


async def test_it_loads_announces_and_serves(start: Start) -> None:
    life = start()
    report = await life.serving()
    assert (report.span, report.precision) == (Span(0, BLOCKS), Precision.FP32)
    assert report.memory_bytes > 0
    (info,) = await seen(life)
    assert (info.peer, info.name, info.state) == (report.peer, "tester", ServerState.ONLINE)
    assert info.step_seconds > 0
    assert info.free_cache_tokens >= 256
    loadings = [said for said in life.reports if isinstance(said, Loading)]
    assert (loadings[0].done, loadings[-1].done) == (0, BLOCKS)
    assert any(isinstance(said, Alive) for said in life.reports)


async def test_the_outer_address_is_announced(start: Start) -> None:
    life = start(span=Span(0, 1))
    report = await life.serving(replace(SWARM, address="example.org"))
    (info,) = await seen(life)
    assert info.addresses == report.addresses
    assert info.addresses[0].startswith("/dns4/example.org/")
    assert len(info.addresses) == 2


async def test_loading_does_not_wait_for_the_swarm(start: Start) -> None:
    life = start(span=Span(1, 3))
    report = await life.until(Loading)
    assert isinstance(report, Loading)
    assert report.span == Span(1, 3)
    assert life.connects == 0
    assert (await life.serving()).span == Span(1, 3)


async def test_leaving_says_goodbye(start: Start) -> None:
    life = start()
    await life.serving()
    life.life.leave()
    await life.gone()
    assert await seen(life) == ()


async def test_draining_is_announced_and_ends_the_server(start: Start) -> None:
    life = start()
    await life.serving()
    await life.life.drain(5.0)
    assert any(isinstance(said, Draining) for said in life.reports)
    await life.gone()


async def test_leaving_before_the_swarm_is_known_works(start: Start) -> None:
    life = start()
    await life.until(Loading)
    life.life.leave()
    await life.gone()
    assert life.connects == 0


async def test_a_small_budget_takes_what_the_swarm_lacks(start: Start) -> None:
    first = start(span=Span(0, 2))
    await first.serving()
    budget = SCORE_BYTES + 2048 * 24 * 32 + 2 * (60_000 + 1024 * 256)
    second = start(memory_bytes=budget)
    report = await second.serving()
    assert report.span.covers(Span(2, BLOCKS))
    assert len(report.span) < BLOCKS
    assert report.memory_bytes <= budget


async def test_a_budget_for_nothing_is_said(start: Start) -> None:
    life = start(memory_bytes=MIB // 2)
    with pytest.raises(BudgetTooSmall, match="Not one block of tiny"):
        await life.serving()


async def test_blocks_that_the_model_does_not_have_are_refused(start: Start) -> None:
    life = start(span=Span(2, 9))
    with pytest.raises(InputRejected, match="has 4 blocks"):
        await life.serving()


async def test_a_damaged_model_is_said(start: Start, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    life = start(folder)
    with pytest.raises(ModelDamaged):
        await life.serving()


async def test_a_swarm_that_cannot_be_entered_is_said(start: Start) -> None:
    life = start()

    async def connect(swarm: EnterSwarm) -> Transport:
        raise NoPeersReachable("Nobody answers.")

    life.life._connect = connect
    with pytest.raises(NoPeersReachable):
        await life.serving()


async def test_a_server_whose_device_failed_ends(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.node.serving.server_life.ALIVE_EVERY", 0.05)
    life = start()
    await life.serving()
    host = life.life._host
    assert host is not None
    host.executor._fail(RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(ServerCrashed, match="computes nothing more"):
        await life.gone()
    assert await seen(life) == ()


async def test_a_server_finds_back_to_those_it_joined_by(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.node.serving.server_life.TOUCH_SECONDS", 0.02)
    life = start()
    inviter = life.network.join("inviter")
    swarm = replace(SWARM, bootstrap=inviter.addresses)
    met: list[bool] = []

    async def connect(_: EnterSwarm) -> Transport:
        transport = life.network.join()
        meet = transport.meet

        async def noted(addresses: Sequence[str]) -> bool:
            met.append(await meet(addresses))
            return met[-1]

        monkeypatch.setattr(transport, "meet", noted)
        return transport

    async def until(there: bool) -> None:
        met.clear()
        async with asyncio.timeout(5):
            while there not in met:
                await asyncio.sleep(0.01)

    life.life._connect = connect
    life.entering.set_result(swarm)
    await life.until(Serving)
    announcer = life.life._announcer
    assert announcer is not None
    soon: list[bool] = []
    monkeypatch.setattr(announcer, "soon", lambda: soon.append(True))
    await until(True)
    await inviter.close()
    await until(False)
    assert not soon
    life.network.join("inviter")
    await until(True)
    async with asyncio.timeout(5):
        while not soon:
            await asyncio.sleep(0.01)
    assert soon == [True]


@pytest.mark.parametrize(
    ("here", "chosen"), [((2, 3), Span(2, 4)), ((0, 1, 3), Span(0, 2)), ((1,), Span(1, 2))]
)
async def test_only_blocks_on_the_disk_are_chosen(
    start: Start, tmp_path: Path, here: tuple[int, ...], chosen: Span
) -> None:
    folder = write_tiny_shards(tmp_path)
    for block in set(range(BLOCKS)) - set(here):
        (folder / f"b{block}.safetensors").unlink()
    report = await start(folder).serving()
    assert report.span == chosen


async def test_blocks_that_are_not_on_the_disk_are_refused(start: Start, tmp_path: Path) -> None:
    folder = write_tiny_shards(tmp_path)
    (folder / "b1.safetensors").unlink()
    with pytest.raises(ModelNotHere, match="Blocks 0-2 of tiny are not on this computer"):
        await start(folder, span=Span(0, 3)).serving()
    for shard in folder.glob("b*.safetensors"):
        shard.unlink()
    with pytest.raises(ModelNotHere, match="The blocks of tiny"):
        await start(folder).serving()
