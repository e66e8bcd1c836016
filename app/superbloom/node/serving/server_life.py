"""A server's life: plan, enter the swarm, choose a span, load, serve, drain, leave."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from superbloom import __version__
from superbloom.domain.placement import choose_span
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState
from superbloom.node.daemon_thread import in_daemon_thread
from superbloom.node.invite_addresses import announced_addresses
from superbloom.node.serving.announcer import Announcer
from superbloom.node.serving.server_wire import (
    Alive,
    Draining,
    EnterSwarm,
    Loading,
    Report,
    Serving,
    StartServing,
)
from superbloom.pipeline.swarm_access import SwarmAccess
from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Transport

if TYPE_CHECKING:
    from superbloom.node.serving.span_host import HostPlan, SpanHost
    from superbloom.pipeline.server import BlockServer

logger = logging.getLogger(__name__)

ALIVE_EVERY = 2.0
LOADING_EVERY = 0.2
"""Seconds between reports of the same kind."""

TOUCH_SECONDS = 20.0
"""How often the peers that we joined by are asked for a sign of life: they may have restarted."""

Connect = Callable[[EnterSwarm], Awaitable[Transport]]
"""Opens this server's place in the network. Raises SwarmError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place(SwarmAccess):
    """Where this server is in the network."""

    display_name: str
    addresses: tuple[str, ...]
    """By which others find this server."""
    bootstrap: tuple[str, ...]


class ServerLife:
    """Lives once, by `run`. `report` hears how far it is."""

    def __init__(
        self, order: StartServing, *, connect: Connect, report: Callable[[Report], None]
    ) -> None:
        self._order = order
        self._connect = connect
        self._report = report
        self._state = ServerState.JOINING
        self._leaving = asyncio.Event()
        self._span: Span | None = None
        self._host: SpanHost | None = None
        self._server: BlockServer | None = None
        self._announcer: Announcer | None = None

    async def run(self, entering: Awaitable[EnterSwarm]) -> None:
        """Serve until told to leave. Raises SuperbloomError when this server cannot serve."""
        alive = asyncio.create_task(self._stay_alive(), name="alive")
        network = asyncio.create_task(self._enter(entering), name="enter the swarm")
        leaving = asyncio.create_task(self._leaving.wait(), name="leave")
        serving = asyncio.create_task(self._serve(network), name="serve")
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
        finally:
            for task in (alive, leaving, serving):
                task.cancel()
            await asyncio.gather(alive, leaving, serving, return_exceptions=True)
            await _leave(network)
            if self._host is not None:
                self._host.executor.shutdown(1.0)

    async def drain(self, seconds: float) -> None:
        """Refuse new sessions, wait at most `seconds` for the open ones, then leave."""
        self._state = ServerState.DRAINING
        if self._server is not None:
            self._report(Draining(sessions=self._server.sessions))
            if self._announcer is not None:
                self._announcer.soon()
            await self._server.drain(seconds)
        self.leave()

    def leave(self) -> None:
        """Leave now; `run` returns soon."""
        self._leaving.set()

    async def _serve(self, network: asyncio.Task[_Place]) -> None:
        """Everything from planning to serving; ends only by being cancelled or by an error."""
        plan = await in_daemon_thread(self._plan, name="plan")
        self._span = span = await self._choose_span(plan, network)
        self._tell_loading(plan, 0, len(span))
        loading = asyncio.create_task(self._load(plan, span), name="load")
        touching = asyncio.create_task(self._keep_in_touch(network), name="keep in touch")
        try:
            await asyncio.wait({loading, network}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                await loading  # a model that cannot be loaded is said before a network that is slow
            place = await network
            self._announcer = Announcer(place.directory, lambda: self._describe(plan, place))
            self._host = host = await loading
            self._open(plan, place, host)
            await self._announcer.announce()
            self._tell_serving(plan, place, host)
            await _until_failure(place.transport, host)
        finally:
            loading.cancel()
            touching.cancel()
            await asyncio.gather(touching, return_exceptions=True)
            if self._server is not None:
                self._state = ServerState.OFFLINE
                await self._server.close()
            if self._announcer is not None:
                await self._announcer.close()

    def _plan(self) -> HostPlan:
        from superbloom.node.serving.span_host import plan_host  # noqa: PLC0415 (imports torch)

        return plan_host(self._order.request, Path(self._order.folder))

    async def _choose_span(self, plan: HostPlan, network: asyncio.Task[_Place]) -> Span:
        """The span asked for, all that is here, or what of it the swarm needs most."""
        if self._order.request.span is not None:
            return self._order.request.span
        if len(plan.here) == 1 and len(plan.here[0]) <= plan.capacity:
            return plan.here[0]
        place = await network
        model = self._order.request.model
        await place.directory.refresh(model)
        return choose_span(
            place.directory.servers(model),
            plan.shape.blocks,
            plan.capacity,
            own_peer=place.transport.peer_id,
            now=time.time(),
            here=plan.here,
        )

    async def _load(self, plan: HostPlan, span: Span) -> SpanHost:
        from superbloom.node.serving.span_host import load_span  # noqa: PLC0415 (imports torch)

        loop = asyncio.get_running_loop()
        told = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told >= LOADING_EVERY or done == total:
                told = time.monotonic()
                loop.call_soon_threadsafe(self._tell_loading, plan, done, total)

        return await in_daemon_thread(lambda: load_span(plan, span, progress), name="load")

    def _open(self, plan: HostPlan, place: _Place, host: SpanHost) -> None:
        from superbloom.inference.device import use_threads  # noqa: PLC0415 (imports torch)
        from superbloom.pipeline.served_model import ServedModel  # noqa: PLC0415 (imports torch)
        from superbloom.pipeline.server import BlockServer  # noqa: PLC0415 (imports torch)

        assert self._span is not None
        use_threads(1)  # here, where tensors are only passed on
        served = ServedModel(
            id=self._order.request.model,
            fingerprint=plan.fingerprint,
            blocks=plan.shape.blocks,
            hidden_size=plan.shape.hidden_size,
        )
        self._server = BlockServer(place, host.executor, served, self._span)
        self._server.attach()
        self._state = ServerState.ONLINE

    async def _enter(self, entering: Awaitable[EnterSwarm]) -> _Place:
        swarm = await entering
        transport = await self._connect(swarm)
        membership = Membership(swarm.name, bytes.fromhex(swarm.secret))
        name = swarm.display_name or platform.node()
        addresses = announced_addresses(tuple(transport.addresses), swarm.address)
        directory = Directory(transport, membership)
        return _Place(
            transport=transport,
            membership=membership,
            directory=directory,
            display_name=name,
            addresses=addresses,
            bootstrap=swarm.bootstrap,
        )

    async def _keep_in_touch(self, network: asyncio.Task[_Place]) -> None:
        """Share the table again with peers that were away, and tell them of this server."""
        await asyncio.wait({network})
        if network.cancelled() or network.exception() is not None:
            return
        place, there = network.result(), True
        while place.bootstrap:
            await asyncio.sleep(TOUCH_SECONDS)
            before, there = there, await place.transport.meet(place.bootstrap)
            if there != before:
                logger.warning("the swarm %s", "answers again" if there else "does not answer")
            if there and not before and self._announcer is not None:
                self._announcer.soon()

    def _describe(self, plan: HostPlan, place: _Place) -> ServerInfo:
        """This server as it is now."""
        assert self._span is not None
        stats = self._host.executor.stats() if self._host is not None else None
        return ServerInfo(
            peer=place.transport.peer_id,
            name=place.display_name,
            model=self._order.request.model,
            fingerprint=plan.fingerprint,
            blocks=plan.shape.blocks,
            span=self._span,
            state=self._state,
            precision=plan.precision,
            device=plan.device_words,
            version=__version__,
            step_seconds=stats.step_seconds if stats else 0.0,
            prefill_tokens_per_second=stats.prefill_tokens_per_second if stats else 0.0,
            free_cache_tokens=stats.free_cache_tokens if stats else 0,
            sessions=self._server.sessions if self._server else 0,
            addresses=place.addresses,
            announced_at=time.time(),
            waiting_seconds=stats.waiting_seconds if stats else 0.0,
        )

    def _tell_loading(self, plan: HostPlan, done: int, total: int) -> None:
        if self._span is not None and self._host is None:
            self._report(
                Loading(
                    span=self._span,
                    precision=plan.precision,
                    device=plan.device_words,
                    done=done,
                    total=total,
                )
            )

    def _tell_serving(self, plan: HostPlan, place: _Place, host: SpanHost) -> None:
        assert self._span is not None
        self._report(
            Serving(
                peer=place.transport.peer_id,
                addresses=place.addresses,
                span=self._span,
                precision=plan.precision,
                device=plan.device_words,
                memory_bytes=host.memory_bytes,
            )
        )

    async def _stay_alive(self) -> None:
        while True:
            server = self._server
            self._report(
                Alive(sessions=server.sessions, tokens_served=server.tokens_served)
                if server is not None
                else Alive()
            )
            await asyncio.sleep(ALIVE_EVERY)


async def _leave(network: asyncio.Task[_Place]) -> None:
    """Close the network, also one that is just being opened."""
    network.cancel()
    (place,) = await asyncio.gather(network, return_exceptions=True)
    if isinstance(place, _Place):
        await place.transport.close()


async def _until_failure(transport: Transport, host: SpanHost) -> None:
    """Wait until the network or the device is dead, and raise why: the server is started again.

    Raises NetworkFailed, ServerCrashed.
    """
    while (failure := transport.failure or host.executor.failure) is None:  # noqa: ASYNC110
        await asyncio.sleep(ALIVE_EVERY)
    raise failure
