"""The client's half in the test process: a real network, and token ids to compare."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from superbloom.domain.generation import ChatPhase, GenerationEnd, PhaseChange, TextDelta
from superbloom.domain.invite import Invite, encode_invite
from superbloom.domain.model_card import Precision
from superbloom.domain.sampling import SamplingSettings
from superbloom.domain.swarm_map import coverage
from superbloom.inference.ends import ClientEnds
from superbloom.inference.shape import shape_of
from superbloom.inference.tokenizer import ChatTokenizer
from superbloom.inference.weights import fingerprint, read_config
from superbloom.node.daemon_thread import in_daemon_thread
from superbloom.pipeline.guessing import GuessSource
from superbloom.pipeline.remote_model import RemoteModel
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.swarm_access import SwarmAccess
from superbloom.swarm.directory import Directory
from superbloom.swarm.hivemind_transport import HivemindTransport
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Transport

MODEL = "smollm2-135m-instruct"


@dataclass(slots=True)
class Asked:
    """One answer as it comes: times are `time.monotonic()` of each piece of text.

    `counts` are the tokens that were there at those times.
    """

    task: asyncio.Task[None] | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    phases: list[tuple[float, PhaseChange]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    tokens: int = 0
    text: str = ""
    end: GenerationEnd | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(
        self, model: RemoteModel, prompt: Sequence[int], sampling: SamplingSettings
    ) -> None:
        async for event in model.continue_tokens(prompt, sampling, self.stop):
            async with self._changed:
                match event:
                    case TextDelta():
                        self.times.append(time.monotonic())
                        self.tokens, self.text = event.tokens, self.text + event.text
                        self.counts.append(event.tokens)
                    case PhaseChange():
                        self.phases.append((time.monotonic(), event))
                    case GenerationEnd():
                        self.end = event
                self._changed.notify_all()

    async def until_tokens(self, count: int, timeout: float = 60) -> None:
        """Wait until `count` tokens are there."""
        await self._until(lambda: self.tokens >= count, timeout)

    async def until_phase(self, phase: ChatPhase, timeout: float) -> float:
        """Wait until `phase` was entered; when that was (monotonic)."""
        await self._until(lambda: any(p.phase is phase for _, p in self.phases), timeout)
        return next(at for at, change in self.phases if change.phase is phase)

    async def until_tokens_after(self, moment: float, timeout: float) -> float:
        """Wait for text later than `moment`; the seconds between."""
        await self._until(lambda: bool(self.times) and self.times[-1] > moment, timeout)
        return next(at for at in self.times if at > moment) - moment

    async def token_ids(self, timeout: float = 100) -> list[int]:
        """The whole answer's ids."""
        assert self.task
        async with asyncio.timeout(timeout):
            await self.task
        assert self.end
        return list(self.end.token_ids)

    @property
    def first_seconds(self) -> float:
        """From the request to the first text."""
        return self.times[0] - self.began

    @property
    def prompt_seconds(self) -> float:
        """From the moment the chain stood to the first text."""
        return self.times[0] - next(at for at, p in self.phases if p.phase is ChatPhase.READING)

    @property
    def rate(self) -> float:
        """Tokens per second from the first text to the last; 0 if that is the same."""
        seconds = self.times[-1] - self.times[0]
        return (self.counts[-1] - self.counts[0]) / seconds if seconds else 0.0

    @property
    def chain(self) -> tuple[str, ...]:
        """The names of the servers that it flows through now."""
        return next((c.chain for _, c in reversed(self.phases) if c.chain), ())

    async def _until(self, holds, timeout: float) -> None:
        async with asyncio.timeout(timeout), self._changed:
            while not holds():
                assert self.task
                if self.task.done():
                    await self.task
                    raise AssertionError(f"the answer ended: {self.end}, {self.phases}")
                waiting = asyncio.create_task(self._changed.wait())
                await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)


class ChainClient:
    """A peer that asks, and by which servers join."""

    def __init__(  # noqa: PLR0917
        self,
        transport: Transport,
        membership: Membership,
        directory: Directory,
        folder: Path,
        ends: ClientEnds,
        threads: int,
    ) -> None:
        self.transport = transport
        self.membership = membership
        self.directory = directory
        config = read_config(folder)
        shape = shape_of(config)
        self.blocks = shape.blocks
        self.tokenizer = ChatTokenizer.load(folder)
        self._access = SwarmAccess(transport=transport, membership=membership, directory=directory)
        self.vocabulary = ends.vocabulary
        self._ends = ends
        self._threads = threads
        self._served = ServedModel(
            id=MODEL,
            fingerprint=fingerprint(folder),
            blocks=shape.blocks,
            hidden_size=shape.hidden_size,
        )
        self._context_tokens = shape.context_tokens
        self._models: list[RemoteModel] = []
        self.model = self.another_model()
        self._watching = asyncio.create_task(directory.run(lambda: (MODEL,)))

    @classmethod
    async def start(
        cls,
        folder: Path,
        identity: Path,
        *,
        host: str = "127.0.0.1",
        precision: Precision = Precision.FP32,
        threads: int = 1,
    ) -> ChainClient:
        """A new swarm on loopback (or `host`) with nobody else in it.

        The client's own part of the model is held in `precision` and computed with `threads`.
        """

        def load() -> ClientEnds:
            return ClientEnds.load(folder, precision=precision, device=torch.device("cpu"))

        ends = await in_daemon_thread(load, name="ends")
        transport = await HivemindTransport.start(
            identity_file=identity, initial_peers=(), listen=f"{host}:0"
        )
        membership = Membership("system tests", secrets.token_bytes(32))
        directory = Directory(transport, membership)
        return cls(transport, membership, directory, folder, ends, threads)

    def another_model(
        self, *, drafts: bool = True, guesses: GuessSource | None = None
    ) -> RemoteModel:
        """The model with sessions of its own."""
        model = RemoteModel(
            present=lambda: self._access,
            ends=self._ends,
            tokenizer=self.tokenizer,
            served=self._served,
            context_tokens=self._context_tokens,
            threads=self._threads,
            drafts=drafts,
            guesses=guesses,
        )
        self._models.append(model)
        return model

    def invite(self, *, valid_for: float = 3600.0, address: str = "") -> str:
        """A code to join this client's swarm."""
        return encode_invite(
            Invite(
                name=self.membership.name,
                secret=self.membership.secret,
                addresses=(address,) if address else tuple(self.transport.addresses),
                expires_at=time.time() + valid_for,
            )
        )

    async def until_covered(self, copies: int = 1, timeout: float = 100) -> None:
        """Wait until `copies` online servers hold each block."""
        async with asyncio.timeout(timeout):
            while min(coverage(self.directory.servers(MODEL), self.blocks)) < copies:
                await self.directory.refresh(MODEL)
                await self.directory.changed(0.5)

    def ask(
        self,
        prompt: Sequence[int],
        length: int,
        *,
        sampling: SamplingSettings | None = None,
        model: RemoteModel | None = None,
    ) -> Asked:
        """Begin an answer of at most `length` tokens, greedy unless `sampling` says otherwise."""
        settings = replace(sampling or SamplingSettings(temperature=0), max_tokens=length)
        asked = Asked()
        asked.task = asyncio.create_task(asked.follow(model or self.model, prompt, settings))
        return asked

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        for model in self._models:
            await model.close()
        await self.transport.close()
