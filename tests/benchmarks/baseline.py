"""Another program that runs the whole model, in a process of its own, asked in lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.frame import AS_STARTED, ROOT, Variant

ALONE = "transformers alone"
LLAMA = "llama.cpp"
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "bfloat16"}
"""What transformers computes in beside a chain of each precision."""

LLAMA_KINDS = {"fp32": "F32", "bf16": "F16", "int8": "Q8_0"}
"""The weights that llama.cpp has beside a chain of each precision."""

END_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer and how fast it came."""

    ids: tuple[int, ...]
    first_seconds: float
    """From the request to the first token."""
    prompt_seconds: float
    """Of these, what computing the prompt took."""
    rate: float
    """Tokens per second after the first one."""

    def __str__(self) -> str:
        return f"{self.rate:.2f} tokens/s, the first after {self.first_seconds:.2f} s"


Answer = Callable[[Sequence[int], int], Awaitable[Answered]]
"""`(prompt, tokens)`: continues a prompt greedily by so many tokens, whatever they are."""


class Baseline:
    """A running process of `tests.benchmarks.MODULE` that `answer_requests`."""

    def __init__(self, module: str, *words: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.{module}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=AS_STARTED,
        )

    async def answer(self, prompt: Sequence[int], tokens: int) -> Answered:
        """As `Answer` says; the first one waits until the model is loaded."""
        return await asyncio.to_thread(self._ask, prompt, tokens)

    def _ask(self, prompt: Sequence[int], tokens: int) -> Answered:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"prompt": list(prompt), "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._module}: ended without an answer")
        said = json.loads(line)
        return Answered(**{**said, "ids": tuple(said["ids"])})

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=END_SECONDS)


def answer_requests(answer: Callable[[list[int], int], Answered]) -> None:
    """The other end: answer what comes on stdin. What libraries print goes to stderr instead."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            request = json.loads(line)
            answered = answer(request["prompt"], request["tokens"])
            replies.write(json.dumps(asdict(answered)) + "\n")
            replies.flush()


@contextlib.contextmanager
def baselines(
    starter: Path, wanted: Namespace, *, llama: bool = True, batches: Sequence[int] = ()
) -> Iterator[dict[str, Answer]]:
    """transformers, and llama.cpp where it is installed, ready to be asked by name.

    `wanted` says in which precision, with how many threads, and where the data folder is. In each
    of `batches` transformers continues so many texts at once.
    """
    precision = getattr(wanted, "precision", "fp32")
    threads = ("--threads", str(wanted.threads))
    alone = (str(starter), "--dtype", DTYPES[precision], *threads)
    running = {ALONE: Baseline("whole_model", *alone)}
    for batch in batches:
        running[in_batch(batch)] = Baseline("whole_model", *alone, "--batch", str(batch))
    if llama and has_llama():
        words = (str(starter), "--kind", LLAMA_KINDS[precision], "--data", str(wanted.data))
        name = f"{LLAMA} {LLAMA_KINDS[precision]}"
        running[name] = Baseline("llama_cpp", *words, *threads)
    try:
        yield {name: baseline.answer for name, baseline in running.items()}
    finally:
        for baseline in running.values():
            baseline.close()


def in_batch(texts: int) -> str:
    """What transformers is called that continues so many texts at once."""
    return f"{ALONE}, {texts} in one batch"


def asking(
    answer: Answer, tokens: int, prompt: Callable[[int], Sequence[int]]
) -> Variant[Answered]:
    """A variant for `in_turn`: `prompt` gives the prompt of each turn."""
    return lambda turn: answer(prompt(turn), tokens)


def same_ids(answers: Sequence[Answered], expected: Sequence[Answered]) -> str:
    """In words, whether answers have the ids that they should; the first that has not counts."""
    for answer, right in zip(answers, expected, strict=True):
        if answer.ids != right.ids:
            pairs = zip(answer.ids, right.ids, strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            return f"OTHER token ids after the first {same} of {len(right.ids)}"
    return "the same token ids"


def absent() -> list[str]:
    """Findings that say what could not be measured beside the program."""
    return [] if has_llama() else [f"{LLAMA}: not installed (pip install xllamacpp)"]


def has_llama() -> bool:
    """Whether llama.cpp is here: by the package xllamacpp, which nothing else needs."""
    return importlib.util.find_spec("xllamacpp") is not None
