"""Several sessions of one client at once through two servers: their tokens per second together.

    python -m tests.benchmarks.concurrency [--runs 5] [--precision fp32|bf16]
        [--sessions 1 4 8] [--json FILE]

Beside it transformers runs one sequence in the same dtype, and as many in one batch.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.baseline import ALONE, Answered, asking, baselines, in_batch
from tests.benchmarks.frame import (
    Report,
    Variant,
    at_least,
    finish,
    in_turn,
    options,
    series,
)
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import Swarm, answered, swarm
from tests.benchmarks.texts import story

SERVERS = 2
PROMPT_TOKENS = 64
BARS = {("fp32", 4): 2.4, ("fp32", 8): 3.6, ("bf16", 4): 3.4, ("bf16", 8): 6.0}
"""By precision and sessions, of transformers' one sequence."""


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=100, help="length of each answer")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 8])
    wanted = parser.parse_args()
    finish(asyncio.run(measure(starter_folder(wanted.data), wanted)), wanted.json)


async def measure(starter: Path, wanted: Namespace) -> Report:
    async with swarm(starter, wanted) as made:
        await made.add_equal(SERVERS)
        batches = [count for count in wanted.sessions if count > 1]
        with baselines(starter, wanted, llama=False, batches=batches) as others:
            variants = {sessions(n): at_once(made, n, wanted.tokens) for n in wanted.sessions}
            for name, answer in others.items():
                variants[name] = rate_of(asking(answer, wanted.tokens, lambda _: prompt(made, 0)))
            found = await in_turn(variants, wanted.runs)
    report = Report(f"Sessions at once through {SERVERS} servers, {wanted.precision}")
    report.series = series("tokens/s", found, float)
    for count in wanted.sessions:
        share = report.series[sessions(count)].median / report.series[ALONE].median
        bar = BARS.get((wanted.precision, count))
        report.findings.append(at_least(bar, share, f"{sessions(count)}, of {ALONE}"))
        if in_batch(count) in report.series:
            share = report.series[sessions(count)].median / report.series[in_batch(count)].median
            words = f"{sessions(count)}, of {in_batch(count)}"
            report.findings.append(at_least(None, share, words))
    return report


def at_once(made: Swarm, count: int, tokens: int) -> Variant[float]:
    """Tokens per second of `count` sessions with prompts of their own."""

    async def rate(_: int) -> float:
        asked = [
            made.client.ask(prompt(made, number), tokens, model=made.plain)
            for number in range(count)
        ]
        await asyncio.gather(*(answered(one) for one in asked))
        began = min(one.times[0] for one in asked)
        ended = max(one.times[-1] for one in asked)
        return sum(one.counts[-1] - one.counts[0] for one in asked) / (ended - began)

    return rate


def rate_of(variant: Variant[Answered]) -> Variant[float]:
    async def rate(turn: int) -> float:
        return (await variant(turn)).rate

    return rate


def prompt(made: Swarm, number: int) -> Sequence[int]:
    return story(made.client.tokenizer, PROMPT_TOKENS, number)


def sessions(count: int) -> str:
    return f"{count} session{'s' if count > 1 else ''}"


if __name__ == "__main__":
    main()
