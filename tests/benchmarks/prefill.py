"""A prompt through one and two servers on loopback: tokens per second, and time to the first token.

python -m tests.benchmarks.prefill [--runs 5] [--tokens 1024] [--precision fp32] [--json FILE]
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path

from tests.benchmarks.baseline import ALONE, DTYPES, absent, asking, baselines, same_ids
from tests.benchmarks.frame import Report, at_least, at_most, finish, in_turn, options, series
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import swarm, through
from tests.benchmarks.texts import story

SPEED_BAR = 0.9
FIRST_BAR = 1.15
ANSWER_TOKENS = 4


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=1024, help="length of the prompt")
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2])
    wanted = parser.parse_args()
    starter = starter_folder(wanted.data)
    words = f"{wanted.tokens} tokens, {wanted.precision}, {wanted.threads} threads"
    report = Report(f"Reading a prompt of {words}")
    for servers in wanted.servers:
        asyncio.run(measure(report, starter, servers, wanted))
    report.findings += absent()
    finish(report, wanted.json)


async def measure(report: Report, starter: Path, servers: int, wanted: Namespace) -> None:
    """The chain and the others in turn, each turn with a prompt that none has seen."""
    ours = through(servers)
    async with swarm(starter, wanted) as made:
        await made.add_equal(servers)
        with baselines(starter, wanted) as others:
            sides = {ours: made.answer, **others}

            def prompt(turn: int) -> list[int]:
                return story(made.client.tokenizer, wanted.tokens, turn)

            variants = {name: asking(side, ANSWER_TOKENS, prompt) for name, side in sides.items()}
            found = await in_turn(variants, wanted.runs)
    speeds = series("tokens/s", found, lambda answered: wanted.tokens / answered.prompt_seconds)
    firsts = series("s to the first token", found, lambda answered: answered.first_seconds)
    for name in found:
        label = name if name == ours else f"{name}, beside {servers}"
        report.series[f"{label}: speed"] = speeds[name]
        report.series[f"{label}: first"] = firsts[name]
    for name in others:
        speed = speeds[ours].median / speeds[name].median
        first = firsts[ours].median / firsts[name].median
        bars = (SPEED_BAR, FIRST_BAR) if name == ALONE else (None, None)
        report.findings.append(at_least(bars[0], speed, f"{ours}, speed of {name}"))
        report.findings.append(at_most(bars[1], first, f"{ours}, first token of {name}"))
    report.findings.append(f"{ours}: {same_ids(found[ours], found[ALONE])}")


if __name__ == "__main__":
    main()
