"""transformers alone, as it computes when left alone, as a `Baseline`."""

from __future__ import annotations

import argparse
import time
from typing import Any

from tests.benchmarks.baseline import Answered, answer_requests


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="so many times the same prompt")
    wanted = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(wanted.threads)
    model = AutoModelForCausalLM.from_pretrained(wanted.folder, dtype=getattr(torch, wanted.dtype))
    model.generation_config.eos_token_id = None

    def answer(prompt: list[int], tokens: int) -> Answered:
        with torch.inference_mode():
            return ask(model, torch.tensor([prompt] * wanted.batch), tokens)

    answer_requests(answer)


def ask(model: Any, prompt: Any, tokens: int) -> Answered:
    """Continue the rows of `prompt`; the ids are the first one's, the rate is that of all."""
    watch = TokenTimes()
    whole = model.generate(
        prompt,
        attention_mask=prompt.new_ones(prompt.shape),
        max_new_tokens=tokens,
        do_sample=False,
        streamer=watch,
    )
    ids = whole[0, prompt.shape[1] :].tolist()
    return Answered(
        ids=tuple(ids),
        first_seconds=watch.first_seconds,
        prompt_seconds=watch.first_seconds,
        rate=watch.rate * prompt.shape[0],
    )


class TokenTimes:
    """A streamer that only looks at the clock; it is made when the request begins."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._times: list[float] = []

    def put(self, _: object) -> None:
        self._times.append(time.perf_counter())

    def end(self) -> None:
        pass

    @property
    def first_seconds(self) -> float:
        """The first `put` is the prompt's, the second the first token's."""
        return self._times[1] - self._began

    @property
    def rate(self) -> float:
        """Tokens per second between the first and the last; 0 for a single one."""
        first, *_, last = self._times[1:] * 2
        tokens = len(self._times) - 2
        return tokens / (last - first) if tokens else 0.0


if __name__ == "__main__":
    main()
