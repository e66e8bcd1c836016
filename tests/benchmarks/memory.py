"""Memory of a server with half of the starter's blocks and of its sessions' caches.

Also the processes of a serving machine.

python -m tests.benchmarks.memory [--runs 3] [--precision bf16] [--json FILE]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.benchmarks.frame import (
    QUESTION,
    Report,
    Variant,
    at_least,
    at_most,
    finish,
    in_turn,
    options,
    series,
    superbloom,
)
from tests.benchmarks.starter import linked_data, starter_folder
from tests.benchmarks.swarm import Swarm, answered, precision_of, swarm
from tests.benchmarks.texts import story
from tests.system.program import Program

from superbloom.domain.conversation import ChatTurn, Role
from superbloom.inference.device import CPU
from superbloom.inference.quantization import compute_dtype
from superbloom.inference.weights import read_config
from superbloom.pipeline.parking import PARKED_SESSIONS
from superbloom.pipeline.remote_model import RemoteModel

BAR_MB = 450.0
CACHE_BAR = 0.1
SERVERS = 2
SESSIONS = 8
SESSION_TOKENS = 1024
ANSWER_TOKENS = 24
SERVER = "server with half of the blocks"
CACHES = f"caches of {SESSIONS} sessions of {SESSION_TOKENS} tokens"
IDLE = "import torch, transformers"
SERVING = "Sharing"
PATIENCE = 120.0
REST_SECONDS = 4.0
"""What a server has freed it gives back within so long."""
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Growth:
    """Megabytes by which the servers of a chain of two have grown."""

    first: float
    last: float

    def __str__(self) -> str:
        return f"{self.first:.1f} MB and {self.last:.1f} MB"


def main() -> None:
    parser = options(__doc__ or "", runs=3)
    parser.add_argument("--precision", default="bf16")
    wanted = parser.parse_args()
    starter = starter_folder(wanted.data)
    report = asyncio.run(measure(starter, wanted))
    report.findings.append("a serving machine runs: " + ", ".join(serving_machine(starter)))
    finish(report, wanted.json)


async def measure(starter: Path, wanted: Namespace) -> Report:
    variants: dict[str, Variant[float]] = {
        IDLE: lambda _: asyncio.to_thread(idle_memory),
        SERVER: lambda _: server_memory(starter, wanted),
    }
    found = await in_turn(variants, wanted.runs, warm_up=0)
    report = Report(f"Resident memory, {wanted.precision}", series("MB", found, float))
    above = report.series[SERVER].median - report.series[IDLE].median
    report.findings.append(at_most(BAR_MB, above, "the server, MB above the imports"))
    growing: dict[str, Variant[Growth]] = {CACHES: lambda _: cache_growth(starter, wanted)}
    grown = await in_turn(growing, wanted.runs, warm_up=0)
    report.series |= series("MB", {f"{CACHES}: last server": grown[CACHES]}, lambda g: g.last)
    report.series |= series("MB", {f"{CACHES}: first server": grown[CACHES]}, lambda g: g.first)
    computed = cache_arithmetic(starter, wanted)
    share = report.series[f"{CACHES}: last server"].median / computed
    words = f"{CACHES}, of {computed:.1f} MB by arithmetic"
    report.findings.append(at_least(1 - CACHE_BAR, share, words))
    report.findings.append(at_most(1 + CACHE_BAR, share, words))
    report.findings.append("the first server also keeps what it sent, to send it again")
    return report


def idle_memory() -> float:
    """Resident megabytes of a process that has only imported what a server needs."""
    script = "import sys, torch, transformers; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        return resident(process.pid)


async def server_memory(starter: Path, wanted: Namespace) -> float:
    """Resident megabytes of a server after it has answered."""
    async with swarm(starter, wanted) as made:
        first, _ = await made.add_equal(SERVERS)
        prompt = made.client.tokenizer.render([ChatTurn(Role.USER, QUESTION)])
        await made.answer(prompt, 30)
        return resident(made.servers[first].pid)


async def cache_growth(starter: Path, wanted: Namespace) -> Growth:
    """What servers grow by while sessions fill their caches, all of them kept.

    One session before has made them ready, and is gone.
    """
    async with swarm(starter, wanted) as made:
        first, last = await made.add_equal(SERVERS)
        pids = (made.servers[first].pid, made.servers[last].pid)
        await (await fill(made, [SESSIONS])).close()
        await asyncio.sleep(REST_SECONDS)
        before = [resident(pid) for pid in pids]
        for begin in range(0, SESSIONS, PARKED_SESSIONS):
            await fill(made, range(begin, min(begin + PARKED_SESSIONS, SESSIONS)))
        await asyncio.sleep(REST_SECONDS)
        grown = [resident(pid) - was for pid, was in zip(pids, before, strict=True)]
        return Growth(*grown)


async def fill(made: Swarm, numbers: Iterable[int]) -> RemoteModel:
    """Sessions of SESSION_TOKENS, and the client's side that keeps them for a next turn."""
    model = made.client.another_model(drafts=False)
    length = SESSION_TOKENS - ANSWER_TOKENS
    prompts = [story(made.client.tokenizer, length, number) for number in numbers]
    asked = [made.client.ask(prompt, ANSWER_TOKENS, model=model) for prompt in prompts]
    await asyncio.gather(*(answered(one) for one in asked))
    return model


def cache_arithmetic(starter: Path, wanted: Namespace) -> float:
    """Megabytes of the keys and values that one of the servers holds then."""
    config: dict[str, Any] = read_config(starter)
    numbers = config["num_key_value_heads"] * config["head_dim"] * 2
    number_bytes = compute_dtype(precision_of(wanted), CPU).itemsize
    blocks = config["num_hidden_layers"] // SERVERS
    caches = SESSIONS * SESSION_TOKENS * blocks * numbers * number_bytes
    return float(caches / MEGABYTE)


def serving_machine(starter: Path) -> list[str]:
    """The processes of a node that shares, by what they are."""
    with tempfile.TemporaryDirectory(prefix="superbloom-benchmark-") as scratch:
        data = linked_data(starter, Path(scratch) / "data")
        node = Program("node", "--data-dir", str(data))
        try:
            wait_until_serving(data)
            return sorted(kind(process) for process in node.family())
        finally:
            node.terminate()
            node.wait()
            node.end()


def wait_until_serving(data: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while SERVING not in (said := status(data)):
        if time.monotonic() > deadline:
            raise SystemExit(f"the node does not share after {PATIENCE} s: {said}")
        time.sleep(0.5)


def status(data: Path) -> str:
    """What `superbloom status` says, in words."""
    command = superbloom("status", "--data-dir", str(data))
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def kind(process: psutil.Process) -> str:
    """A process by what it does: the word after `-m superbloom`, or its program's name."""
    words = process.cmdline()
    if "superbloom" in words:
        return words[words.index("superbloom") + 1]
    return Path(words[0]).name if words else process.name()


def resident(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / MEGABYTE


if __name__ == "__main__":
    main()
