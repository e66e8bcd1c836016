"""kill -9 of a server in mid-answer with a replica there: the gap, and whether a token changes.

python -m tests.benchmarks.failover [--runs 5] [--tokens 60] [--context 1000] [--json FILE]
"""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from pathlib import Path

from tests.benchmarks.baseline import ALONE, baselines
from tests.benchmarks.frame import QUESTION, Report, Series, at_most, finish, options, say
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import Swarm, equal_spans, swarm
from tests.benchmarks.texts import story

from superbloom.domain.conversation import ChatTurn, Role
from superbloom.inference.tokenizer import ChatTokenizer

SHORT_BAR = 3.0
LONG_BAR = 1.5
"""Seconds, of the longest gap: without `--context`, and with it."""

PATIENCE = 60.0


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=60, help="length of each answer")
    parser.add_argument(
        "--context", type=int, default=0, help="tokens before the answer (0: a short question)"
    )
    wanted = parser.parse_args()
    starter = starter_folder(wanted.data)
    finish(asyncio.run(measure(starter, wanted)), wanted.json)


async def measure(starter: Path, wanted: Namespace) -> Report:
    gaps: list[float] = []
    same = 0
    async with swarm(starter, wanted) as made:
        prompt = prompt_of(made.client.tokenizer, wanted.context)
        with baselines(starter, wanted, llama=False) as others:
            expected = list((await others[ALONE](prompt, wanted.tokens)).ids)
        first, second = equal_spans(made.client.blocks, 2)
        await made.add(first, second)
        for run in range(wanted.runs):
            await made.add(second)
            gap, ids = await kill_in_mid_answer(made, prompt, wanted.tokens)
            gaps.append(gap)
            same += ids == expected
            say(f"  run {run + 1}: {gap:.2f} s, {'same' if ids == expected else 'OTHER'} ids")
    report = Report(f"kill -9 of one of two replicas behind {len(prompt)} tokens of prompt")
    report.series["kill to next token"] = Series("s", tuple(gaps))
    bar = LONG_BAR if wanted.context else SHORT_BAR
    report.findings.append(at_most(bar, max(gaps), "the longest gap in seconds"))
    report.findings.append(f"{same} of {wanted.runs} answers have the ids of {ALONE}")
    return report


def prompt_of(tokenizer: ChatTokenizer, tokens: int) -> list[int]:
    if tokens:
        return story(tokenizer, tokens)
    return tokenizer.render([ChatTurn(Role.USER, QUESTION)])


async def kill_in_mid_answer(
    made: Swarm, prompt: list[int], tokens: int
) -> tuple[float, list[int]]:
    """Seconds from the kill to the next text, and the whole answer's ids."""
    asked = made.client.ask(prompt, tokens, model=made.client.another_model())
    await asked.until_tokens(tokens // 3)
    moment = time.monotonic()
    killing = asyncio.create_task(asyncio.to_thread(made.kill, asked.chain[-1]))
    gap = await asked.until_tokens_after(moment, PATIENCE)
    await killing
    return gap, await asked.token_ids()


if __name__ == "__main__":
    main()
