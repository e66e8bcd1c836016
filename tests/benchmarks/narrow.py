"""Time to the first token over narrow links: as prompts go, against exact ones.

    python -m tests.benchmarks.narrow [--runs 3] [--tokens 1000] [--megabits 5] [--delay 15]

Client and servers are each in a network namespace of their own; every link has the same delay one
way and carries so many Mbit/s each way. Every prompt is a new one, and over links that are known
but for the first, which is told apart. Needs root.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.baseline import DTYPES, Answered
from tests.benchmarks.frame import Report, Series, at_most, finish, in_turn, options
from tests.benchmarks.ring import Ring, ring
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import Swarm, answered, swarm
from tests.benchmarks.texts import story

from superbloom.domain.sampling import SamplingSettings

ANSWER_TOKENS = 4
BAR = 0.75
"""Of the seconds of an exact prompt."""

EXACT, LET = "exact", "in 8 bits where it pays"


def main() -> None:
    parser = options(__doc__ or "", runs=3)
    parser.add_argument("--tokens", type=int, default=1000, help="length of each prompt")
    parser.add_argument("--megabits", type=float, default=5, help="of every link, each way")
    parser.add_argument("--delay", type=float, default=15, metavar="MS", help="one way")
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    wanted = parser.parse_args()
    starter = starter_folder(wanted.data)
    with ring() as made:
        finish(asyncio.run(measure(made, starter, wanted)), wanted.json)


async def measure(links: Ring, starter: Path, wanted: Namespace) -> Report:
    """Exact prompts and others in turn, after one that finds the links unknown."""
    async with swarm(starter, wanted, links.client) as made:
        await made.add_equal(len(links.servers), links.servers)
        links.delay(wanted.delay, wanted.megabits)
        words = f"{wanted.tokens} tokens, {wanted.precision}, {wanted.megabits:g} Mbit/s"
        report = Report(f"First token through 2 servers over narrow links ({words})")

        def prompt(turn: int) -> list[int]:
            return story(made.client.tokenizer, wanted.tokens, turn)

        first = await first_seconds(made, prompt(2 * wanted.runs + 2), exact=False)
        found = await in_turn(
            {
                EXACT: lambda turn: first_seconds(made, prompt(2 * turn), exact=True),
                LET: lambda turn: first_seconds(made, prompt(2 * turn + 1), exact=False),
            },
            wanted.runs,
        )
    report.series["the first, over unknown links"] = seconds([first])
    for name, answers in found.items():
        report.series[name] = seconds(answers)
    ratio = report.series[LET].median / report.series[EXACT].median
    report.findings.append(at_most(BAR, ratio, f"{LET}, of exact"))
    return report


async def first_seconds(made: Swarm, prompt: Sequence[int], *, exact: bool) -> Answered:
    sampling = SamplingSettings(temperature=0, exact=exact)
    asked = made.client.ask(prompt, ANSWER_TOKENS, sampling=sampling, model=made.plain)
    return await answered(asked)


def seconds(answers: Sequence[Answered]) -> Series:
    return Series("s to the first token", tuple(answer.first_seconds for answer in answers))


if __name__ == "__main__":
    main()
