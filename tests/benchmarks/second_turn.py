"""A chat's second turn, of which all but the new words is known: the time to its first token.

    python -m tests.benchmarks.second_turn [--runs 5] [--tokens 2000] [--json FILE]

Both turns go through the chat template, as a node's do. Beside it transformers reads both whole.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.baseline import ALONE, Answer, baselines
from tests.benchmarks.frame import Report, Variant, at_most, finish, in_turn, options, series
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import swarm, through
from tests.benchmarks.texts import story

from superbloom.domain.conversation import ChatTurn, Role
from superbloom.inference.tokenizer import ChatTokenizer

BAR = 0.1
SERVERS = 2
ANSWER_TOKENS = 32
FRAME_TOKENS = 40
"""What the chat template adds to the first turn."""

MORE = "And what did the young whale think of all that?"


@dataclass(frozen=True, slots=True)
class Turns:
    """Seconds to the first token of two turns."""

    first: float
    second: float

    def __str__(self) -> str:
        return f"{self.first:.2f} s, then {self.second:.2f} s"


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=2000, help="length of the chat so far")
    wanted = parser.parse_args()
    finish(asyncio.run(measure(starter_folder(wanted.data), wanted)), wanted.json)


async def measure(starter: Path, wanted: Namespace) -> Report:
    ours = through(SERVERS)
    async with swarm(starter, wanted) as made:
        await made.add_equal(SERVERS)
        with baselines(starter, wanted, llama=False) as others:
            sides = {ours: made.answer, **others}
            variants = {
                name: chat(side, made.client.tokenizer, wanted.tokens)
                for name, side in sides.items()
            }
            found = await in_turn(variants, wanted.runs)
    report = Report(f"A chat of {wanted.tokens} tokens goes on")
    firsts = series("s to the first token", found, lambda turns: turns.first)
    seconds = series("s to the first token", found, lambda turns: turns.second)
    for name in found:
        report.series[f"{name}: first turn"] = firsts[name]
        report.series[f"{name}: second turn"] = seconds[name]
        share = seconds[name].median / firsts[name].median
        bar = BAR if name == ours else None
        report.findings.append(at_most(bar, share, f"{name}: second turn, of the first"))
    share = firsts[ours].median / firsts[ALONE].median
    report.findings.append(at_most(None, share, f"{ours}: first turn, of {ALONE}"))
    return report


def chat(answer: Answer, tokenizer: ChatTokenizer, tokens: int) -> Variant[Turns]:
    """A chat of `tokens`, the first answer included, and one turn more."""

    async def both(number: int) -> Turns:
        told = tokenizer.detokenizer()
        ids = story(tokenizer, tokens - ANSWER_TOKENS - FRAME_TOKENS, number)
        turns = [ChatTurn(Role.USER, "".join(map(told.push, ids)) + told.flush())]
        first = await answer(tokenizer.render(turns), ANSWER_TOKENS)
        said = tokenizer.detokenizer()
        text = "".join(map(said.push, first.ids)) + said.flush()
        turns += [ChatTurn(Role.ASSISTANT, text), ChatTurn(Role.USER, MORE)]
        second = await answer(tokenizer.render(turns), ANSWER_TOKENS)
        return Turns(first.first_seconds, second.first_seconds)

    return both


if __name__ == "__main__":
    main()
