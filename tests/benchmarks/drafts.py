"""Tokens guessed ahead: how much faster a chain of two writes with them, and whether text changes.

    python -m tests.benchmarks.drafts [--runs 5] [--delay 25] [--draft-model] [--json FILE]

Code that is written out once more with one edit, and open prose, greedy and at a temperature; on
loopback, and over links with a one-way delay (needs root). With --draft-model a small model guesses
too, which is the starter itself unless a folder is named: what a perfect one would bring.
"""

from __future__ import annotations

import asyncio
import contextlib
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.baseline import ALONE, Answer, baselines
from tests.benchmarks.frame import Report, Variant, at_least, finish, in_turn, options, series
from tests.benchmarks.ring import Ring, lacks, ring
from tests.benchmarks.small_model import SmallModel
from tests.benchmarks.starter import starter_folder
from tests.benchmarks.swarm import LOOPBACK, Swarm, answered, swarm

from superbloom.domain.conversation import ChatTurn, Role
from superbloom.domain.sampling import SamplingSettings
from superbloom.inference.tokenizer import ChatTokenizer

SERVERS = 2
CODE_BAR = 2.5
PROSE_BAR = 0.97
SMALL = "drafts and a small model"
GUESSED_BAR = 1.5
"""What a small model must bring for greedy prose over links with a delay."""

CODE = Path(__file__).with_name("code_sample.txt")
BEGUN_TOKENS = 30
OLD_NAME, NEW_NAME = "plan_deliveries", "schedule_deliveries"
GREEDY = SamplingSettings(temperature=0)
DRAWN = SamplingSettings(temperature=0.8, seed=7)
QUESTIONS = {
    "a story": "Write a long story about a lighthouse keeper and a whale.",
    "an essay": "Explain why people should plant trees in cities.",
    "a letter": "Write a letter to a friend about a journey through the mountains.",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, how it goes on, and by how much drafts must (or may) change the speed."""

    name: str
    prompt: Sequence[int]
    sampling: SamplingSettings
    bar: float


@dataclass(frozen=True, slots=True)
class Written:
    """One answer: `drafted` tokens were guessed, of which `accepted` were right."""

    ids: tuple[int, ...]
    rate: float
    drafted: int
    accepted: int

    def __str__(self) -> str:
        return f"{self.rate:.2f} tokens/s, {self.accepted} of {self.drafted} guesses right"


def main() -> None:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--tokens", type=int, default=300, help="length of each answer")
    parser.add_argument("--delay", type=float, default=25, metavar="MS", help="one way, each link")
    parser.add_argument("--links-only", action="store_true", help="leave loopback out")
    parser.add_argument(
        "--draft-model",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FOLDER",
        help="let a small model guess as well (default: the starter itself)",
    )
    wanted = parser.parse_args()
    starter = starter_folder(wanted.data)
    if wanted.draft_model == Path():
        wanted.draft_model = starter
    report = Report(f"Tokens guessed ahead, {SERVERS} servers, {wanted.tokens} tokens")
    if not wanted.links_only:
        asyncio.run(measure(report, "loopback", starter, wanted))
    if lacking := lacks():
        report.findings.append(f"links cannot be emulated here: {lacking}")
    else:
        with ring() as links:
            links.delay(wanted.delay)
            where = f"{wanted.delay:g} ms one way"
            asyncio.run(measure(report, where, starter, wanted, links=links))
    finish(report, wanted.json)


async def measure(
    report: Report,
    where: str,
    starter: Path,
    wanted: Namespace,
    *,
    links: Ring | None = None,
) -> None:
    """Every case with drafts and without, in turn; on loopback if there are no `links`."""
    async with swarm(starter, wanted, links.client if links else LOOPBACK) as made:
        await made.add_equal(SERVERS, links.servers if links else ())
        with (
            baselines(starter, wanted, llama=False) as others,
            small_model(made, wanted.draft_model) as small,
        ):
            for case in cases(made.client.tokenizer):
                name = f"{case.name}, {where}"
                variants = {
                    f"{name}, plain": writing(made, case, wanted.tokens, drafts=False),
                    f"{name}, drafts": writing(made, case, wanted.tokens, drafts=True),
                }
                if small is not None:
                    variants[f"{name}, {SMALL}"] = writing(
                        made, case, wanted.tokens, drafts=True, small=small
                    )
                if case.sampling is GREEDY:
                    variants[f"{name}, {ALONE}"] = by_other(others[ALONE], case, wanted.tokens)
                found = await in_turn(variants, wanted.runs)
                judge(report, case, found)
                if small is not None:
                    judge_small(report, case, found, small, far=links is not None)


@contextlib.contextmanager
def small_model(made: Swarm, folder: Path | None) -> Iterator[SmallModel | None]:
    """The one in the folder, if there is one."""
    if folder is None:
        yield None
        return
    small = SmallModel(folder, made.client.vocabulary)
    try:
        yield small
    finally:
        small.close()


def judge_small(
    report: Report,
    case: Case,
    found: dict[str, list[Written]],
    small: SmallModel,
    *,
    far: bool,
) -> None:
    name = next(name for name in found if name.endswith(SMALL))
    plain, *_ = found
    share = report.series[name].median / report.series[plain].median
    bar = case.bar
    if far and case.sampling is GREEDY:
        bar = max(bar, GUESSED_BAR)
    report.findings.append(at_least(bar, share, f"{name}, of plain"))
    last = found[name][-1]
    guesses = f"{last.accepted} of {last.drafted} guesses right, {len(last.ids)} tokens"
    report.findings.append(f"{name}: {guesses}; {small}, {small.failures} failures")


def judge(report: Report, case: Case, found: dict[str, list[Written]]) -> None:
    report.series |= series("tokens/s", found, lambda written: written.rate)
    plain, drafts, *_ = found
    share = report.series[drafts].median / report.series[plain].median
    report.findings.append(at_least(case.bar, share, f"{drafts}, of plain"))
    written = [answer.ids for answers in found.values() for answer in answers]
    same = "the same token ids" if len(set(written)) == 1 else "OTHER token ids"
    last = found[drafts][-1]
    guesses = f"{last.accepted} of {last.drafted} guesses right, {len(last.ids)} tokens"
    report.findings.append(f"{drafts}: {same}; {guesses}")


def writing(
    made: Swarm, case: Case, tokens: int, *, drafts: bool, small: SmallModel | None = None
) -> Variant[Written]:
    """Through the chain."""
    model = made.client.another_model(drafts=drafts, guesses=small)

    async def write(_: int) -> Written:
        asked = made.client.ask(case.prompt, tokens, sampling=case.sampling, model=model)
        answer = await answered(asked)
        assert asked.end
        return Written(answer.ids, answer.rate, asked.end.drafted, asked.end.accepted)

    return write


def by_other(answer: Answer, case: Case, tokens: int) -> Variant[Written]:
    """By another program, which guesses nothing."""

    async def write(_: int) -> Written:
        answered = await answer(case.prompt, tokens)
        return Written(answered.ids, answered.rate, drafted=0, accepted=0)

    return write


def cases(tokenizer: ChatTokenizer) -> list[Case]:
    prose = [
        Case(
            f"{name}, {words}", tokenizer.render([ChatTurn(Role.USER, asked)]), sampling, PROSE_BAR
        )
        for name, asked in QUESTIONS.items()
        for words, sampling in (("greedy", GREEDY), ("at 0.8", DRAWN))
    ]
    return [Case("code again", code_prompt(tokenizer), GREEDY, CODE_BAR), *prose]


def code_prompt(tokenizer: ChatTokenizer) -> list[int]:
    """A function twice, and its beginning with a new name.

    So the little model writes it out once more; it would not if it were only asked to.
    """
    code = CODE.read_text(encoding="utf-8")
    before = f"{code}\n\n{code}\n\n"
    whole = tokenizer.encode(before + code.replace(OLD_NAME, NEW_NAME))
    return whole[: len(tokenizer.encode(before)) + BEGUN_TOKENS]


if __name__ == "__main__":
    main()
