"""kill -9 of a server in mid-answer with a replica there: the gap, and whether a token changes.

python -m tests.benchmarks.failover [--runs 5] [--tokens 60] [--json FILE]
"""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from pathlib import Path

import torch
from tests.benchmarks.frame import QUESTION, Report, Series, finish, options, say
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import Swarm, equal_spans, swarm
from tests.benchmarks.whole_model import WholeModel

from superbloom.domain.conversation import ChatTurn, Role

BAR_SECONDS = 3.0
PATIENCE = 60.0


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=60, help="length of each answer")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    starter = starter_folder(wanted.data)
    finish(asyncio.run(measure(starter, wanted)), wanted.json)


async def measure(starter: Path, wanted: Namespace) -> Report:
    gaps: list[float] = []
    same = 0
    async with swarm(starter) as made:
        prompt = made.client.tokenizer.render([ChatTurn(Role.USER, QUESTION)])
        with WholeModel(starter, dtype="float32", threads=wanted.threads) as whole:
            expected, _ = await asyncio.to_thread(whole.generate, prompt, wanted.tokens)
        first, second = equal_spans(made.client.blocks, 2)
        await made.add(first, second, threads=wanted.threads)
        for run in range(wanted.runs):
            await made.add(second, threads=wanted.threads)
            gap, ids = await kill_in_mid_answer(made, prompt, wanted.tokens)
            gaps.append(gap)
            same += ids == expected
            say(f"  run {run + 1}: {gap:.2f} s, {'same' if ids == expected else 'OTHER'} ids")
    report = Report("kill -9 of one of two replicas in mid-answer")
    report.series["kill to next token"] = Series("s", tuple(gaps))
    report.findings.append(f"{same} of {wanted.runs} answers have the ids of transformers alone")
    report.findings.append(f"bar: every gap under {BAR_SECONDS} s; the longest is {max(gaps):.2f}")
    return report


async def kill_in_mid_answer(
    made: Swarm, prompt: list[int], tokens: int
) -> tuple[float, list[int]]:
    """Seconds from the kill to the next text, and the whole answer's ids."""
    asked = made.client.ask(prompt, tokens)
    await asked.until_tokens(tokens // 3)
    moment = time.monotonic()
    made.kill(asked.chain[-1])
    gap = await asked.until_tokens_after(moment, PATIENCE)
    return gap, await asked.token_ids()


if __name__ == "__main__":
    main()
