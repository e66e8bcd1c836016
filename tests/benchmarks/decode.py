"""Tokens per second through one, two and three servers on loopback, and of transformers alone.

python -m tests.benchmarks.decode [--runs 5] [--tokens 100] [--precision fp32] [--json FILE]
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path

import torch
from tests.benchmarks.frame import (
    QUESTION,
    Report,
    finish,
    in_turn,
    options,
    series,
)
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import Swarm, equal_spans, swarm
from tests.benchmarks.whole_model import WholeModel

from superbloom.domain.conversation import ChatTurn, Role

BAR = 0.7
ALONE = "transformers alone"
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=100, help="length of each answer")
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2, 3])
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    starter = starter_folder(wanted.data)
    report = Report(f"Decode, {wanted.precision}, {wanted.threads} threads, {wanted.tokens} tokens")
    for servers in wanted.servers:
        asyncio.run(measure(report, starter, servers, wanted))
    finish(report, wanted.json)


async def measure(report: Report, starter: Path, servers: int, wanted: Namespace) -> None:
    """Chain and baseline in turn; only these servers are alive meanwhile."""
    name = f"through {servers}" + (" servers" if servers > 1 else " server")
    async with swarm(starter) as made:
        spans = equal_spans(made.client.blocks, servers)
        await made.add(*spans, threads=wanted.threads, precision=wanted.precision)
        prompt = made.client.tokenizer.render([ChatTurn(Role.USER, QUESTION)])
        answers: dict[str, list[int]] = {}
        loop = asyncio.get_running_loop()
        with WholeModel(starter, dtype=DTYPES[wanted.precision], threads=wanted.threads) as whole:

            def alone() -> float:
                answers[ALONE], rate = whole.generate(prompt, wanted.tokens)
                return rate

            def through() -> float:
                asked = asyncio.run_coroutine_threadsafe(
                    through_chain(made, prompt, wanted.tokens), loop
                )
                answers[name], rate = asked.result()
                return rate

            found = await asyncio.to_thread(in_turn, {ALONE: alone, name: through}, wanted.runs)
    taken = series("tokens/s", found)
    report.series[name] = taken[name]
    report.series[f"{ALONE}, beside {servers}"] = taken[ALONE]
    share = taken[name].median / taken[ALONE].median
    same = "the same token ids" if answers[name] == answers[ALONE] else "OTHER token ids"
    report.findings.append(f"{name}: {share:.2f} of {ALONE} (bar: {BAR} through two), {same}")


async def through_chain(made: Swarm, prompt: list[int], tokens: int) -> tuple[list[int], float]:
    """The answer's ids and its tokens per second after the first one."""
    asked = made.client.ask(prompt, tokens)
    ids = await asked.token_ids()
    return ids, (len(ids) - 1) / (asked.times[-1] - asked.times[0])


if __name__ == "__main__":
    main()
