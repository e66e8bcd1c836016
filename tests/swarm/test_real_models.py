"""Real blocks behind the ring: tiny models give the tokens of `generate`, losses included."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedConfig,
)

from announced import server_info
from superbloom.domain.model_card import Precision
from superbloom.domain.sampling import SamplingSettings
from superbloom.domain.span import Span
from superbloom.inference.ends import ClientEnds
from superbloom.inference.executor import Executor
from superbloom.inference.stage import Stage
from superbloom.inference.weights import fingerprint
from superbloom.pipeline.remote_model import RemoteModel
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.server import BlockServer
from superbloom.pipeline.swarm_access import SwarmAccess
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryNetwork
from told_drafts import tell
from toy_model import ToyTokenizer
from toy_swarm import Asked, ListedServers

CPU = torch.device("cpu")
TOKENS = 24
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
    ),
    "gemma3": Gemma3TextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=128,
        sliding_window=8,
    ),
    "bloom": BloomConfig(hidden_size=32, n_layer=4, n_head=4, vocab_size=128),
}


class RealSwarm:
    """Servers with real stages in an in-memory network, and a client."""

    def __init__(self, folder: Path, blocks: int) -> None:
        self.network = MemoryNetwork(seed=1)
        self.membership = Membership("tiny", b"s" * 32)
        self.directory = ListedServers()
        self.folder = folder
        self.executors: list[Executor] = []
        ends = ClientEnds.load(folder, precision=Precision.FP32, device=CPU)
        self.served = ServedModel(
            id="tiny",
            fingerprint=fingerprint(folder),
            blocks=blocks,
            hidden_size=ends.hidden_size,
        )
        access = SwarmAccess(
            transport=self.network.join("client"),
            membership=self.membership,
            directory=self.directory,  # type: ignore[arg-type]
        )
        self.model = RemoteModel(
            present=lambda: access,
            ends=ends,
            tokenizer=ToyTokenizer(),  # type: ignore[arg-type]
            served=self.served,
            context_tokens=512,
        )

    def add(self, name: str, start: int, end: int, announced_step_seconds: float = 0.01) -> None:
        transport = self.network.join(name)
        span = Span(start, end)
        stage = Stage.load(self.folder, span, precision=Precision.FP32, device=CPU)
        executor = Executor(stage, cache_bytes=16 * 2**20)
        self.executors.append(executor)
        access = SwarmAccess(
            transport=transport,
            membership=self.membership,
            directory=self.directory,  # type: ignore[arg-type]
        )
        BlockServer(access, executor, self.served, span).attach()
        self.directory.list(
            server_info(
                name,
                span,
                model="tiny",
                fingerprint=self.served.fingerprint,
                blocks=self.served.blocks,
                step_seconds=announced_step_seconds,
                prefill_tokens_per_second=1.0,
                free_cache_tokens=10**6,
            )
        )

    async def close(self) -> None:
        for executor in self.executors:
            executor.shutdown(5)
        await self.model.close()


@pytest.fixture(params=CONFIGS)
async def tiny(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[RealSwarm, list[int], list[int]]]:
    """A swarm without servers, a prompt and transformers' own continuation of it."""
    config = CONFIGS[request.param]
    torch.manual_seed(5)
    whole = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    whole.generation_config.eos_token_id = None
    whole.save_pretrained(tmp_path)
    prompt = torch.randint(3, 120, (1, 21))
    with torch.inference_mode():
        written = whole.generate(prompt, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    swarm = RealSwarm(tmp_path, config.num_hidden_layers)
    yield swarm, prompt[0].tolist(), written[0, 21:].tolist()
    await swarm.close()


def ask(swarm: RealSwarm, prompt: list[int], seed: int | None = None) -> Asked:
    temperature = 0.0 if seed is None else 1.0
    return Asked(
        swarm.model,
        prompt,
        SamplingSettings(temperature=temperature, seed=seed, top_p=1, max_tokens=TOKENS),
    )


@pytest.mark.parametrize("cuts", [(), (2,), (1, 3)])
async def test_greedy_tokens_are_those_of_generate(
    tiny: tuple[RealSwarm, list[int], list[int]], cuts: tuple[int, ...]
) -> None:
    swarm, prompt, expected = tiny
    edges = (0, *cuts, swarm.served.blocks)
    for start, end in itertools.pairwise(edges):
        swarm.add(f"server-{start}", start, end)
    assert list((await ask(swarm, prompt).end()).token_ids) == expected


async def test_a_killed_server_changes_no_token(
    tiny: tuple[RealSwarm, list[int], list[int]],
) -> None:
    swarm, prompt, expected = tiny
    swarm.add("a", 0, 2)
    swarm.add("b", 2, swarm.served.blocks)
    swarm.add("twin", 2, swarm.served.blocks, announced_step_seconds=1.0)
    asked = ask(swarm, prompt)
    await asked.until(tokens=8)
    swarm.network.kill("b")
    end = await asked.end()
    assert list(end.token_ids) == expected
    assert any("twin" in getattr(event, "chain", ()) for event in asked.events)


async def test_a_seed_gives_the_same_tokens_on_any_chain(
    tiny: tuple[RealSwarm, list[int], list[int]],
) -> None:
    swarm, prompt, _ = tiny
    swarm.add("whole", 0, swarm.served.blocks)
    alone = await ask(swarm, prompt, seed=7).end()
    swarm.directory.listed.clear()
    swarm.add("a", 0, 2)
    swarm.add("b", 2, swarm.served.blocks)
    together = await asyncio.gather(*(ask(swarm, prompt, seed=7).end() for _ in range(3)))
    assert {end.token_ids for end in together} == {alone.token_ids}


@pytest.mark.parametrize("seed", [None, 7])
async def test_drafts_right_and_wrong_change_no_token(
    tiny: tuple[RealSwarm, list[int], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    seed: int | None,
) -> None:
    swarm, prompt, _ = tiny
    swarm.add("a", 0, 2)
    swarm.add("b", 2, swarm.served.blocks)
    swarm.model._drafts = False
    plain = await ask(swarm, prompt, seed).end()
    swarm.model._drafts = True
    tell(monkeypatch, prompt, plain.token_ids, {4, 5, 9, 16})
    drafted = await ask(swarm, prompt, seed).end()
    assert drafted.token_ids == plain.token_ids
    assert drafted.accepted > TOKENS // 2
