"""Memory of a server with half of the starter's blocks, and the processes of a serving machine.

python -m tests.benchmarks.memory [--runs 3] [--precision bf16] [--json FILE]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import psutil
from tests.benchmarks.frame import (
    QUESTION,
    Report,
    finish,
    in_turn,
    options,
    series,
    superbloom,
)
from tests.benchmarks.starter import linked_data, starter_folder
from tests.benchmarks.swarm import equal_spans, swarm
from tests.system.program import Program

from superbloom.domain.conversation import ChatTurn, Role

BAR_MB = 450.0
SERVER = "server with half of the blocks"
IDLE = "import torch, transformers"
SERVING = "Sharing"
PATIENCE = 120.0
MEGABYTE = 1e6


def main() -> None:
    parser = options(__doc__ or "", runs=3)
    parser.add_argument("--precision", default="bf16")
    wanted = parser.parse_args()
    starter = starter_folder(wanted.data)
    found = in_turn(
        {
            IDLE: idle_memory,
            SERVER: lambda: asyncio.run(server_memory(starter, wanted)),
        },
        wanted.runs,
        warm_up=0,
    )
    report = Report(f"Resident memory, {wanted.precision}", series("MB", found))
    above = report.series[SERVER].median - report.series[IDLE].median
    report.findings.append(f"the server takes {above:.0f} MB above the imports (bar: {BAR_MB:.0f})")
    report.findings.append("a serving machine runs: " + ", ".join(serving_machine(starter)))
    finish(report, wanted.json)


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
    async with swarm(starter) as made:
        halves = equal_spans(made.client.blocks, 2)
        names = await made.add(*halves, threads=wanted.threads, precision=wanted.precision)
        prompt = made.client.tokenizer.render([ChatTurn(Role.USER, QUESTION)])
        await made.client.ask(prompt, 30).token_ids()
        return resident(made.servers[names[0]].pid)


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
