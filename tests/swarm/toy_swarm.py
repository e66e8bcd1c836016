"""Many servers of the toy model and a client in one process, over the in-memory network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from announced import server_info
from superbloom.domain.conversation import ChatTurn, Role
from superbloom.domain.generation import ChatPhase, GenerationEnd, GenerationEvent, PhaseChange
from superbloom.domain.observed import ObservedPace
from superbloom.domain.sampling import SamplingSettings
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo
from superbloom.pipeline.remote_model import RemoteModel
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.server import BlockServer
from superbloom.pipeline.swarm_access import SwarmAccess
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryNetwork, MemoryTransport
from toy_model import HIDDEN, ToyEnds, ToyExecutor, ToyTokenizer

BLOCKS = 6
SERVED = ServedModel(id="toy", fingerprint="f" * 16, blocks=BLOCKS, hidden_size=HIDDEN)
GREEDY = SamplingSettings(temperature=0, max_tokens=30)


class ListedServers:
    """A directory that tests write by hand."""

    def __init__(self) -> None:
        self.listed: dict[str, ServerInfo] = {}
        self.looks = 0
        self.observed = ObservedPace()
        self._changed = asyncio.Event()

    def list(self, info: ServerInfo) -> None:
        self.listed[info.peer] = info
        self._changed.set()

    def servers(self, model: str) -> tuple[ServerInfo, ...]:
        return tuple(info for info in self.listed.values() if info.model == model)

    async def refresh(self, model: str) -> None:
        self.looks += 1

    def round_trip(self, peer: str) -> float | None:
        return 0.001

    def mark_lost(self, peer: str) -> None:
        self.listed.pop(peer, None)

    async def changed(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


@dataclass
class ToyServer:
    transport: MemoryTransport
    executor: ToyExecutor
    server: BlockServer
    info: ServerInfo

    @property
    def peer(self) -> str:
        return self.transport.peer_id


class ToySwarm:
    """Servers by name, one client."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(seed=1)
        self.membership = Membership("toys", b"s" * 32)
        self.directory = ListedServers()
        self.servers: dict[str, ToyServer] = {}
        self.client_transport = self.network.join("client")
        self.access: dict[str, SwarmAccess | None] = {}
        self.model = self.client(self.client_transport, self.membership)

    def client(self, transport: MemoryTransport, membership: Membership) -> RemoteModel:
        self.access[transport.peer_id] = SwarmAccess(
            transport=transport,
            membership=membership,
            directory=self.directory,  # type: ignore[arg-type]
        )
        return RemoteModel(
            present=lambda: self.access[transport.peer_id],
            ends=ToyEnds(),  # type: ignore[arg-type]
            tokenizer=ToyTokenizer(),  # type: ignore[arg-type]
            served=SERVED,
            context_tokens=5000,
        )

    def add(
        self,
        name: str,
        start: int,
        end: int,
        *,
        listed: bool = True,
        announced_step_seconds: float = 0.01,
        **executor: float,
    ) -> ToyServer:
        """A server called `name` on blocks [start, end)."""
        transport = self.network.join(name)
        toy = ToyExecutor(**executor)  # type: ignore[arg-type]
        span = Span(start, end)
        access = SwarmAccess(
            transport=transport,
            membership=self.membership,
            directory=self.directory,  # type: ignore[arg-type]
        )
        server = BlockServer(access, toy, SERVED, span)  # type: ignore[arg-type]
        server.attach()
        info = server_info(
            transport.peer_id,
            span,
            name=name,
            model=SERVED.id,
            fingerprint=SERVED.fingerprint,
            blocks=BLOCKS,
            step_seconds=announced_step_seconds,
            prefill_tokens_per_second=1000.0,
            free_cache_tokens=10**6,
        )
        self.servers[name] = ToyServer(transport, toy, server, info)
        if listed:
            self.directory.list(info)
        return self.servers[name]

    def relist(self, name: str, **changes: object) -> None:
        self.directory.list(replace(self.servers[name].info, **changes))  # type: ignore[arg-type]

    def kill(self, name: str) -> None:
        """As kill -9: streams reset, nothing said."""
        self.network.kill(self.servers[name].peer)
        self.servers[name].executor.hold.set()

    async def close(self) -> None:
        for toy in self.servers.values():
            toy.executor.shutdown()
        for toy in self.servers.values():
            await toy.transport.close()
        await self.client_transport.close()
        await self.model.close()


class Asked:
    """One answer running in the background, its events as they come."""

    def __init__(
        self,
        model: RemoteModel,
        prompt: Sequence[int],
        sampling: SamplingSettings = GREEDY,
    ) -> None:
        self.events: list[GenerationEvent] = []
        self.stop = asyncio.Event()
        self._grew = asyncio.Event()
        self._turns = [ChatTurn(Role.USER, " ".join(map(str, prompt)))]
        self._task = asyncio.create_task(self._run(model, sampling))

    async def _run(self, model: RemoteModel, sampling: SamplingSettings) -> None:
        async for event in model.generate(self._turns, sampling, self.stop):
            self.events.append(event)
            self._grew.set()

    @property
    def written(self) -> list[int]:
        texts = [event.text for event in self.events if hasattr(event, "text")]
        return [int(word) for word in "".join(texts).split()]

    @property
    def phases(self) -> list[ChatPhase]:
        return [event.phase for event in self.events if isinstance(event, PhaseChange)]

    async def until(self, tokens: int = 0, phase: ChatPhase | None = None) -> None:
        """Wait until so many tokens are written and the phase was seen."""
        async with asyncio.timeout(20):
            while len(self.written) < tokens or (phase is not None and phase not in self.phases):
                if self._task.done():
                    self._task.result()
                    raise AssertionError("the answer ended before")
                self._grew.clear()
                await self._grew.wait()

    async def end(self) -> GenerationEnd:
        """The end of the answer, which must come within 30 s."""
        async with asyncio.timeout(30):
            await self._task
        last = self.events[-1]
        assert isinstance(last, GenerationEnd)
        return last
