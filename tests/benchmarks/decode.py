"""Tokens per second through one, two and three servers on loopback, behind texts of some lengths.

    python -m tests.benchmarks.decode [--runs 5] [--tokens 100] [--precision fp32]
        [--servers 1 2 3] [--contexts 128 1024 4096 7000] [--large] [--json FILE]

With --large, a random model of 1.1 billion weights takes the starter's place. The prompt's part of
the time does not count, and nothing is guessed ahead.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.baseline import (
    ALONE,
    DTYPES,
    Answer,
    absent,
    asking,
    baselines,
    same_ids,
)
from tests.benchmarks.frame import Report, at_least, finish, in_turn, options, series
from tests.benchmarks.large_model import large_data
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import Swarm, swarm, through
from tests.benchmarks.texts import story

SHORT = 128
BARS = {1: 0.95, 2: 0.9}
"""By servers, of transformers; through one server behind a short text only."""

INT8_BAR = 0.5
"""Of llama.cpp's 8 bits, through one server and two."""


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=100, help="length of each answer")
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--contexts", type=int, nargs="+", default=[SHORT, 1024, 4096])
    parser.add_argument("--large", action="store_true", help="a larger model, with random weights")
    wanted = parser.parse_args()
    starter = starter_folder(wanted.data)
    title = f"Decode, {wanted.precision}, {wanted.threads} threads, {wanted.tokens} tokens"
    if wanted.large:
        wanted.data = large_data(starter, wanted.data)
        starter = starter_folder(wanted.data)
        title += ", the large model"
    report = Report(title)
    for servers in wanted.servers:
        asyncio.run(measure(report, starter, servers, wanted))
    report.findings += absent()
    finish(report, wanted.json)


async def measure(report: Report, starter: Path, servers: int, wanted: Namespace) -> None:
    """The chain and the others in turn; only these servers are alive meanwhile."""
    async with swarm(starter, wanted) as made:
        await made.add_equal(servers)
        with baselines(starter, wanted) as others:
            for context in wanted.contexts:
                await measure_behind(context, report, made, others, wanted)


async def measure_behind(
    context: int, report: Report, made: Swarm, others: Mapping[str, Answer], wanted: Namespace
) -> None:
    """Behind a text of `context` tokens."""
    count = len(made.servers)
    ours = through(count)
    prompt = story(made.client.tokenizer, context)
    sides = {ours: made.answer, **others}
    variants = {name: asking(side, wanted.tokens, lambda _: prompt) for name, side in sides.items()}
    found = await in_turn(variants, wanted.runs)
    taken = series("tokens/s", found, lambda answered: answered.rate)
    report.series[f"{ours} at {context}"] = taken[ours]
    for name in others:
        report.series[f"{name} at {context}, beside {count}"] = taken[name]
        share = taken[ours].median / taken[name].median
        bar = bar_of(wanted.precision, count, context, name)
        report.findings.append(at_least(bar, share, f"{ours} at {context}, of {name}"))
    for name in [ours, *list(others)[1:]]:
        report.findings.append(f"{name} at {context}: {same_ids(found[name], found[ALONE])}")


def bar_of(precision: str, servers: int, context: int, beside: str) -> float | None:
    """The least share of the other's speed; None where the figure is for information."""
    if precision == "int8":
        return INT8_BAR if beside != ALONE and servers in BARS else None
    if beside != ALONE or (servers == 1 and context > SHORT):
        return None
    return BARS.get(servers)


if __name__ == "__main__":
    main()
