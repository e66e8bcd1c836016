"""The baseline: transformers alone in a process of its own.

As a script it answers requests: `{"ids": [...], "tokens": 100}` on stdin, `{"ids": [...],
"rate": tokens/s}` on stdout. It computes as transformers does when left alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class WholeModel:
    """A running baseline process."""

    def __init__(self, folder: Path, *, dtype: str, threads: int) -> None:
        words = (str(folder), "--dtype", dtype, "--threads", str(threads))
        self._process = subprocess.Popen(
            [sys.executable, __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def generate(self, prompt: Sequence[int], tokens: int) -> tuple[list[int], float]:
        """The greedy ids and the tokens per second after the first one."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"ids": list(prompt), "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["ids"], answer["rate"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


class TokenTimes:
    """A streamer that only looks at the clock."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: object) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass

    @property
    def rate(self) -> float:
        """Tokens per second between the first and the last; the first `put` is the prompt's."""
        tokens = self.times[1:]
        return (len(tokens) - 1) / (tokens[-1] - tokens[0])


def serve() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(wanted.threads)
    model = AutoModelForCausalLM.from_pretrained(wanted.folder, dtype=getattr(torch, wanted.dtype))
    for line in sys.stdin:
        request = json.loads(line)
        prompt = torch.tensor([request["ids"]])
        watch = TokenTimes()
        with torch.inference_mode():
            whole = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=request["tokens"],
                do_sample=False,
                streamer=watch,
            )
        ids = whole[0, prompt.shape[1] :].tolist()
        sys.stdout.write(json.dumps({"ids": ids, "rate": watch.rate}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
