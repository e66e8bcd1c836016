"""A swarm of real server processes, with the client in this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import tempfile
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tests.benchmarks.client_threads  # noqa: F401 (comes before torch)
from tests.benchmarks.baseline import Answered
from tests.benchmarks.starter import MODEL, linked_data
from tests.system.chain_client import Asked, ChainClient
from tests.system.program import Program

from superbloom.domain.model_card import Precision
from superbloom.domain.swarm_map import ServerState

ONLINE_SECONDS = 120.0
ANSWER_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the network a process is: its address, and what its command line begins with."""

    host: str = "127.0.0.1"
    command: tuple[str, ...] = ()


LOOPBACK = Place()


class Swarm:
    """One client and the servers that it knows, by name."""

    def __init__(self, client: ChainClient, starter: Path, scratch: Path, wanted: Namespace):
        self.client = client
        self.plain = client.another_model(drafts=False)
        self.servers: dict[str, Program] = {}
        self._starter = starter
        self._scratch = scratch
        self._threads = str(wanted.threads)
        self._precision = precision_of(wanted).value
        self._numbers = itertools.count(1)

    async def add(self, *spans: tuple[int, int], places: Sequence[Place] = ()) -> list[str]:
        """Start a server a span and wait until all are online; their names."""
        names = [f"server{next(self._numbers)}" for _ in spans]
        where = places or [LOOPBACK] * len(spans)
        for name, span, place in zip(names, spans, where, strict=True):
            self.servers[name] = self._start(name, span, place)
        async with asyncio.timeout(ONLINE_SECONDS):
            while not self._online() >= set(names):
                for name in names:
                    assert self.servers[name].running, self.servers[name].said
                await self.client.directory.refresh(MODEL)
                await self.client.directory.changed(0.5)
        return names

    async def add_equal(self, servers: int, places: Sequence[Place] = ()) -> list[str]:
        """Start `servers` that have (nearly) the same number of blocks each."""
        return await self.add(*equal_spans(self.client.blocks, servers), places=places)

    async def answer(self, prompt: Sequence[int], tokens: int) -> Answered:
        """As `baseline.Answer` says: through the chain, without drafts."""
        return await answered(self.client.ask(prompt, tokens, model=self.plain))

    def kill(self, name: str) -> None:
        """kill -9, with the network daemon it had started."""
        self.servers.pop(name).end()

    def _start(self, name: str, span: tuple[int, int], place: Place) -> Program:
        data = linked_data(self._starter, self._scratch / name)
        return Program(
            *("serve", "--model", MODEL, "--join", self.client.invite(), "--name", name),
            *("--blocks", f"{span[0]}:{span[1]}", "--precision", self._precision),
            *("--threads", self._threads, "--data-dir", str(data), "--host", place.host),
            command=(*place.command, sys.executable, "-m", "superbloom"),
        )

    def _online(self) -> set[str]:
        known = self.client.directory.servers(MODEL)
        return {server.name for server in known if server.state is ServerState.ONLINE}


@contextlib.asynccontextmanager
async def swarm(starter: Path, wanted: Namespace, at: Place = LOOPBACK) -> AsyncIterator[Swarm]:
    """A fresh swarm of a client; everything it started is ended afterwards.

    The client answers as long as it is asked to: no token ends its text. `wanted` says in which
    precision all compute, and with how many threads each.
    """
    with tempfile.TemporaryDirectory(prefix="superbloom-benchmark-") as scratch:
        identity = Path(scratch) / "client.key"
        client = await ChainClient.start(
            starter,
            identity,
            host=at.host,
            precision=precision_of(wanted),
            threads=wanted.threads,
        )
        client.tokenizer.end_ids = frozenset()
        made = Swarm(client, starter, Path(scratch), wanted)
        try:
            yield made
        finally:
            for name in list(made.servers):
                made.kill(name)
            await client.close()


async def answered(asked: Asked) -> Answered:
    """The whole answer with its figures."""
    ids = await asked.token_ids(ANSWER_SECONDS)
    return Answered(
        ids=tuple(ids),
        first_seconds=asked.first_seconds,
        prompt_seconds=asked.prompt_seconds,
        rate=asked.rate,
    )


def through(servers: int) -> str:
    """What a chain of so many servers is called."""
    return f"through {servers} server{'s' if servers > 1 else ''}"


def precision_of(wanted: Namespace) -> Precision:
    return Precision(getattr(wanted, "precision", "fp32"))


def equal_spans(blocks: int, servers: int) -> Sequence[tuple[int, int]]:
    """`blocks` in contiguous parts of (nearly) the same length."""
    edges = [blocks * place // servers for place in range(servers + 1)]
    return tuple(itertools.pairwise(edges))
