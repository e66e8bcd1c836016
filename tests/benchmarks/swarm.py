"""A swarm of real server processes on loopback, with the client in this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.benchmarks.starter import MODEL, linked_data
from tests.system.chain_client import ChainClient
from tests.system.program import Program

from superbloom.domain.swarm_map import ServerState

ONLINE_SECONDS = 120.0


class Swarm:
    """One client and the servers that it knows, by name."""

    def __init__(self, client: ChainClient, starter: Path, scratch: Path) -> None:
        self.client = client
        self.servers: dict[str, Program] = {}
        self._starter = starter
        self._scratch = scratch
        self._numbers = itertools.count(1)

    async def add(
        self, *spans: tuple[int, int], threads: int, precision: str = "fp32"
    ) -> list[str]:
        """Start a server a span and wait until all are online; their names."""
        names = [f"server{next(self._numbers)}" for _ in spans]
        for name, (first, end) in zip(names, spans, strict=True):
            data = linked_data(self._starter, self._scratch / name)
            self.servers[name] = Program(
                *("serve", "--model", MODEL, "--join", self.client.invite(), "--name", name),
                *("--blocks", f"{first}:{end}", "--precision", precision),
                *("--threads", str(threads), "--data-dir", str(data)),
            )
        async with asyncio.timeout(ONLINE_SECONDS):
            while not self._online() >= set(names):
                for name in names:
                    assert self.servers[name].running, self.servers[name].said
                await self.client.directory.refresh(MODEL)
                await self.client.directory.changed(0.5)
        return names

    def kill(self, name: str) -> None:
        """kill -9, with the network daemon it had started."""
        self.servers.pop(name).end()

    def _online(self) -> set[str]:
        known = self.client.directory.servers(MODEL)
        return {server.name for server in known if server.state is ServerState.ONLINE}


@contextlib.asynccontextmanager
async def swarm(starter: Path) -> AsyncIterator[Swarm]:
    """A fresh swarm; everything it started is ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="superbloom-benchmark-") as scratch:
        client = await ChainClient.start(starter, Path(scratch) / "client.key")
        made = Swarm(client, starter, Path(scratch))
        try:
            yield made
        finally:
            for name in list(made.servers):
                made.kill(name)
            await client.close()


def equal_spans(blocks: int, servers: int) -> Sequence[tuple[int, int]]:
    """`blocks` in contiguous parts of (nearly) the same length."""
    edges = [blocks * place // servers for place in range(servers + 1)]
    return tuple(itertools.pairwise(edges))
