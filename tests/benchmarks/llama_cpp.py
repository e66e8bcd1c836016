"""llama.cpp alone, on the processor, as a `Baseline`: by the package xllamacpp."""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.benchmarks.baseline import Answered, answer_requests
from tests.benchmarks.llama_file import FILE_TYPES, llama_file

CONTEXT = 8192


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=FILE_TYPES, default="F32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, required=True)
    wanted = parser.parse_args()
    server = start(llama_file(wanted.folder, wanted.kind, wanted.data), wanted.threads)

    def answer(prompt: list[int], tokens: int) -> Answered:
        return ask(server, prompt, tokens)

    answer_requests(answer)


def start(file: Path, threads: int) -> Any:
    """One sequence at a time, nothing kept from the one before."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx = CONTEXT
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.cpuparams.n_threads = threads
    settings.cpuparams_batch.n_threads = threads
    settings.cont_batching = False
    settings.cache_prompt = False
    settings.cache_ram_mib = 0
    settings.verbosity = 0
    return xllamacpp.Server(settings)


def ask(server: Any, prompt: list[int], tokens: int) -> Answered:
    """By the server's own HTTP, whose answers carry ids and times."""
    wanted = {
        "prompt": prompt,
        "n_predict": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
        "return_tokens": True,
    }
    request = urllib.request.Request(
        f"{server.listening_address}/completion",
        data=json.dumps(wanted).encode(),
        headers={"Content-Type": "application/json"},
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request) as reply:
        said = json.load(reply)
    took = time.perf_counter() - began
    writing = said["timings"]["predicted_ms"] / 1000  # counted from the first token on
    return Answered(
        ids=tuple(said["tokens"]),
        first_seconds=took - writing,
        prompt_seconds=said["timings"]["prompt_ms"] / 1000,
        rate=(len(said["tokens"]) - 1) / writing if writing else 0.0,
    )


if __name__ == "__main__":
    main()
