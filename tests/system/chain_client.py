"""The client's half in the test process: a real network, and token ids to compare."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """One answer as it comes: times are `time.monotonic()` of each piece of text."""

    task: asyncio.Task[None] | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    phases: list[tuple[float, PhaseChange]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    tokens: int = 0
    text: str = ""
    end: GenerationEnd | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self, model: RemoteModel, prompt: Sequence[int], length: int) -> None:
        sampling = SamplingSettings(temperature=0, max_tokens=length)
        async for event in model.continue_tokens(prompt, sampling, self.stop):
            async with self._changed:
                match event:
                    case TextDelta():
                        self.times.append(time.monotonic())
                        self.tokens, self.text = event.tokens, self.text + event.text
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

    def __init__(
        self, transport: Transport, membership: Membership, directory: Directory, folder: Path
    ) -> None:
        self.transport = transport
        self.membership = membership
        self.directory = directory
        config = read_config(folder)
        shape = shape_of(config)
        self.blocks = shape.blocks
        self.tokenizer = ChatTokenizer.load(folder)
        access = SwarmAccess(transport=transport, membership=membership, directory=directory)
        self.model = RemoteModel(
            present=lambda: access,
            ends=ClientEnds.load(folder, precision=Precision.FP32, device=torch.device("cpu")),
            tokenizer=self.tokenizer,
            served=ServedModel(
                id=MODEL,
                fingerprint=fingerprint(folder),
                blocks=shape.blocks,
                hidden_size=shape.hidden_size,
            ),
            context_tokens=shape.context_tokens,
        )
        self._watching = asyncio.create_task(directory.run(lambda: (MODEL,)))

    @classmethod
    async def start(cls, folder: Path, identity: Path) -> ChainClient:
        """A new swarm on loopback with nobody else in it."""
        transport = await HivemindTransport.start(
            identity_file=identity, initial_peers=(), listen="127.0.0.1:0"
        )
        membership = Membership("system tests", secrets.token_bytes(32))
        return cls(transport, membership, Directory(transport, membership), folder)

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

    def ask(self, prompt: Sequence[int], length: int) -> Asked:
        """Begin a greedy answer of at most `length` tokens."""
        asked = Asked()
        asked.task = asyncio.create_task(asked.follow(self.model, prompt, length))
        return asked

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self.model.close()
        await self.transport.close()
