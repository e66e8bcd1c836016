"""Answers through real server processes: the same tokens as the whole model, whatever dies."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

from chain_client import MODEL, ChainClient
from program import MakeData, Program, Start
from superbloom.domain.conversation import ChatTurn, Role
from superbloom.domain.generation import ChatPhase

pytestmark = [
    pytest.mark.starter,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

QUESTIONS = (
    "Why is the sky blue?",
    "Write a short story about a lighthouse keeper.",
    "List three uses of a paperclip.",
    "Explain in two sentences what a prime number is.",
    "Translate to French: the cat sleeps on the warm roof.",
)
HALVES = ((0, 15), (15, 30))
LENGTH = 40
EARLY = 10
"""Tokens after which something happens to a server."""

FOUND_SECONDS = 5.0
"""A silent peer is found in this time."""

NEXT_TOKEN_SECONDS = 3.0
"""With a replica, a killed server costs at most this much."""


class Servers:
    """The `superbloom serve` processes of one swarm."""

    def __init__(self, client: ChainClient, start: Start, make_data: MakeData) -> None:
        self.client = client
        self._start = start
        self._make_data = make_data
        self._numbers = itertools.count(1)
        self.running: dict[str, Program] = {}
        self._spans: dict[str, tuple[int, int]] = {}

    def add(self, first: int, end: int) -> Program:
        """Start a server of blocks `[first, end)`; its name is in the chain of an answer."""
        name = f"server{next(self._numbers)}"
        program = self._start(
            *("serve", "--model", MODEL, "--join", self.client.invite(), "--name", name),
            *("--blocks", f"{first}:{end}", "--precision", "fp32", "--threads", "1"),
            *("--data-dir", str(self._make_data(name))),
        )
        self.running[name] = program
        self._spans[name] = (first, end)
        return program

    async def hold(self, *spans: tuple[int, int]) -> None:
        """Have exactly one live server a given span, and wait until all are announced."""
        missing = list(spans)
        for name in list(self.running):
            if self._spans[name] in missing:
                missing.remove(self._spans[name])
            else:
                await self.end(name)
        for first, end in missing:
            self.add(first, end)
        await self.until_announced()

    async def until_announced(self) -> None:
        """Wait until the client sees every running server online, and no other one."""
        async with asyncio.timeout(120):
            while True:
                await self.client.directory.refresh(MODEL)
                online = self.client.directory.servers(MODEL)
                if {server.name for server in online if server.state == "online"} == set(
                    self.running
                ):
                    return
                for program in self.running.values():
                    assert program.running, program.said
                await self.client.directory.changed(0.5)

    def last_of(self, chain: tuple[str, ...]) -> str:
        """The name of the last server in a chain."""
        return next(name for name in self.running if name == chain[-1])

    def kill(self, name: str) -> None:
        """kill -9, with the network daemon it had started."""
        self.running.pop(name).end()

    async def end(self, name: str) -> None:
        program = self.running.pop(name)
        program.terminate()
        assert await asyncio.to_thread(program.wait, 20) == 0, program.said


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def servers(
    starter_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    start_for_all: Start,
    data_for_all: MakeData,
) -> AsyncIterator[Servers]:
    identity = tmp_path_factory.mktemp("client") / "client.key"
    client = await ChainClient.start(starter_folder, identity)
    yield Servers(client, start_for_all, data_for_all)
    await client.close()


class WholeModel:
    """transformers' own model, fp32; remembers what it wrote."""

    def __init__(self, folder: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._written: dict[tuple[int, ...], list[int]] = {}

    async def writes(self, prompt: list[int], length: int) -> list[int]:
        """The ids of its greedy answer, at most `length` of them."""
        return await asyncio.to_thread(self._writes, prompt, length)

    def _writes(self, prompt: list[int], length: int) -> list[int]:
        known = self._written.get(tuple(prompt), [])
        if len(known) < length:
            with torch.inference_mode():
                out = self._model.generate(
                    torch.tensor([prompt]),
                    max_new_tokens=max(length, LENGTH),
                    do_sample=False,
                    pad_token_id=0,
                )
            known = self._written[tuple(prompt)] = out[0, len(prompt) :].tolist()
        return known[:length]


@pytest.fixture(scope="module")
def whole_model(starter_folder: Path) -> WholeModel:
    return WholeModel(starter_folder)


def prompt_of(client: ChainClient, question: str) -> list[int]:
    return client.tokenizer.render([ChatTurn(Role.USER, question)])


def without_end(client: ChainClient, ids: list[int]) -> list[int]:
    return [token for token in ids if token not in client.tokenizer.end_ids]


@pytest.mark.parametrize(
    ("questions", "length"),
    [
        pytest.param(QUESTIONS[:2], 24, id="short"),
        pytest.param(QUESTIONS, 200, id="full", marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)
@pytest.mark.parametrize("spans", [((0, 30),), HALVES, ((0, 10), (10, 20), (20, 30))], ids=len)
async def test_any_number_of_servers_writes_what_transformers_writes(
    servers: Servers, whole_model: WholeModel, spans, questions, length
) -> None:
    await servers.hold(*spans)
    for question in questions:
        prompt = prompt_of(servers.client, question)
        asked = servers.client.ask(prompt, length)
        ids = await asked.token_ids()
        assert len(asked.chain) == len(spans)
        assert without_end(servers.client, ids) == without_end(
            servers.client, await whole_model.writes(prompt, length)
        )


async def test_killing_a_server_with_a_replica_changes_no_token(
    servers: Servers, whole_model: WholeModel
) -> None:
    await servers.hold(*HALVES, HALVES[1])
    prompt = prompt_of(servers.client, QUESTIONS[1])
    asked = servers.client.ask(prompt, LENGTH)
    await asked.until_tokens(EARLY)
    killed = time.monotonic()
    servers.kill(servers.last_of(asked.chain))
    waited = await asked.until_tokens_after(time.monotonic(), 30)
    ids = await asked.token_ids()
    assert ids == await whole_model.writes(prompt, LENGTH)
    assert any(change.phase is ChatPhase.RECOVERING for _, change in asked.phases)
    assert waited < NEXT_TOKEN_SECONDS, f"{waited:.1f} s after {time.monotonic() - killed:.1f}"


async def test_without_a_replica_the_answer_waits_for_a_server_started_later(
    servers: Servers, whole_model: WholeModel
) -> None:
    await servers.hold(*HALVES)
    prompt = prompt_of(servers.client, QUESTIONS[1])
    asked = servers.client.ask(prompt, LENGTH)
    await asked.until_tokens(EARLY)
    servers.kill(servers.last_of(asked.chain))
    await asked.until_phase(ChatPhase.WAITING, 20)
    written = asked.tokens
    servers.add(*HALVES[1])
    assert await asked.token_ids() == await whole_model.writes(prompt, LENGTH)
    assert asked.tokens > written


async def test_a_server_that_falls_silent_is_found_and_replaced(
    servers: Servers, whole_model: WholeModel
) -> None:
    await servers.hold(*HALVES, HALVES[1])
    prompt = prompt_of(servers.client, QUESTIONS[1])
    asked = servers.client.ask(prompt, LENGTH)
    await asked.until_tokens(EARLY)
    silent = servers.last_of(asked.chain)
    servers.running[silent].freeze()
    frozen = time.monotonic()
    try:
        found = await asked.until_phase(ChatPhase.RECOVERING, 30)
        assert found - frozen < FOUND_SECONDS
        assert await asked.token_ids() == await whole_model.writes(prompt, LENGTH)
    finally:
        servers.running[silent].thaw()
        servers.kill(silent)


async def test_a_server_told_to_end_finishes_its_answer_first(
    servers: Servers, whole_model: WholeModel
) -> None:
    await servers.hold(*HALVES)
    prompt = prompt_of(servers.client, QUESTIONS[1])
    asked = servers.client.ask(prompt, LENGTH)
    await asked.until_tokens(EARLY)
    leaving = servers.running.pop(servers.last_of(asked.chain))
    leaving.terminate()
    assert await asked.token_ids() == await whole_model.writes(prompt, LENGTH)
    assert await asyncio.to_thread(leaving.wait, 30) == 0, leaving.said


async def test_a_stop_reaches_every_server(servers: Servers) -> None:
    await servers.hold(*HALVES)
    asked = servers.client.ask(prompt_of(servers.client, QUESTIONS[1]), 500)
    await asked.until_tokens(5)
    asked.stop.set()
    ids = await asked.token_ids(10)
    assert asked.end
    assert asked.end.reason == "stopped"
    assert 5 <= len(ids) < 500
