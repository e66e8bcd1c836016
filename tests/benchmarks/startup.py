"""Start to first token: `superbloom chat --once`, and a bare script with transformers.

    python -m tests.benchmarks.startup [--runs 7] [--json FILE]

Both begin with nothing running and the model on disk. The program starts its node, its server
process and the local swarm for it, and ends them afterwards; the time is that of the first text.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.frame import (
    Report,
    Variant,
    at_most,
    finish,
    in_turn,
    options,
    series,
    superbloom,
)
from tests.benchmarks.starter import linked_data, starter_folder

BAR = 2.5
OURS = "superbloom chat --once"
BARE = "bare transformers script"
ANSWER_SECONDS = 180
SCRIPT = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(int(sys.argv[2]))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
turns = [{"role": "user", "content": sys.argv[3]}]
prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
answer = model.generate(**prompt, max_new_tokens=1, do_sample=False)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1]:]), flush=True)
"""
QUESTION = "Say hello."


def main() -> None:
    wanted = options(__doc__ or "", runs=7).parse_args()
    starter = starter_folder(wanted.data)
    with tempfile.TemporaryDirectory(prefix="superbloom-benchmark-") as scratch:
        data = linked_data(starter, Path(scratch) / "data")
        ours = superbloom(
            *("chat", "--once", QUESTION, "--temperature", "0", "--max-tokens", "1"),
            *("--data-dir", str(data)),
        )
        bare = [sys.executable, "-c", SCRIPT, str(starter), str(wanted.threads), QUESTION]
        variants = {OURS: starting(ours), BARE: starting(bare)}
        found = asyncio.run(in_turn(variants, wanted.runs))
    report = Report("Start to first token, model on disk", series("s", found, float))
    share = report.series[OURS].median / report.series[BARE].median
    report.findings.append(at_most(BAR, share, f"{OURS}, times the {BARE}"))
    finish(report, wanted.json)


def starting(command: list[str]) -> Variant[float]:
    return lambda _: asyncio.to_thread(first_output, command)


def first_output(command: list[str]) -> float:
    """Seconds from the start to the first byte on stdout; waits until the command has ended."""
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout
        byte = process.stdout.read(1)
        seconds = time.perf_counter() - began
        _, errors = process.communicate(timeout=ANSWER_SECONDS)
    if process.returncode != 0 or not byte:
        raise SystemExit(f"{' '.join(command[:6])}: {errors.decode(errors='replace')}")
    return seconds


if __name__ == "__main__":
    main()
