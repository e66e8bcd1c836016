"""Time per token through two servers over long links, against compute and the links' own time.

    python -m tests.benchmarks.links [--runs 5] [--tokens 60] [--delays 5 25 50] [--json FILE]

Client and servers are each in a network namespace of their own; every link takes the same time one
way. A token needs the client's link, the one between the servers, and the one back. Needs root.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.baseline import ALONE, Answered, baselines, same_ids
from tests.benchmarks.frame import Report, Series, Variant, at_most, finish, in_turn, options
from tests.benchmarks.ring import Ring, ring
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import Swarm, swarm
from tests.benchmarks.texts import story

HOPS = 3
BAR = 1.05
"""Of the links' own time, beside the compute."""

CONTEXT = 64


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=60, help="length of each answer")
    parser.add_argument("--delays", type=float, nargs="+", default=[5, 25, 50], metavar="MS")
    wanted = parser.parse_args()
    starter = starter_folder(wanted.data)
    with ring() as made:
        finish(asyncio.run(measure(made, starter, wanted)), wanted.json)


async def measure(links: Ring, starter: Path, wanted: Namespace) -> Report:
    """The same chain with each delay in turn, without any, and the whole model beside."""
    delays = [0, *wanted.delays]
    async with swarm(starter, wanted, links.client) as made:
        await made.add_equal(len(links.servers), links.servers)
        prompt = story(made.client.tokenizer, CONTEXT)
        with baselines(starter, wanted, llama=False) as others:
            variants = {
                one_way(delay): over(links, delay, made, prompt, wanted.tokens) for delay in delays
            }
            variants[ALONE] = lambda _: others[ALONE](prompt, wanted.tokens)
            found = await in_turn(variants, wanted.runs)
    return judged(found, wanted.delays)


def over(
    links: Ring, delay: float, made: Swarm, prompt: Sequence[int], tokens: int
) -> Variant[Answered]:
    """An answer over links of `delay` milliseconds one way."""

    async def answer(_: int) -> Answered:
        links.delay(delay)
        return await made.answer(prompt, tokens)

    return answer


def judged(found: Mapping[str, Sequence[Answered]], delays: Sequence[float]) -> Report:
    """Milliseconds a token, with what the links leave no choice about."""
    report = Report("Time per token through 2 servers, every link with a one-way delay")
    for name, answers in found.items():
        report.series[name] = Series("ms", tuple(1000 / answered.rate for answered in answers))
    compute = report.series[one_way(0)].median
    for delay in delays:
        bound = compute + BAR * HOPS * delay
        taken = report.series[one_way(delay)].median
        words = f"{one_way(delay)}, against {compute:.1f} + {BAR} x {HOPS} x {delay:g} ms"
        report.findings.append(at_most(round(bound, 1), taken, words))
    for name in map(one_way, (0, *delays)):
        report.findings.append(f"{name}: {same_ids(found[name], found[ALONE])}")
    return report


def one_way(delay: float) -> str:
    return f"{delay:g} ms one way"


if __name__ == "__main__":
    main()
