"""The peak memory of loading a span, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

BLOCKS = 8
LOAD = """
import sys
from pathlib import Path
import torch
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.inference.stage import Stage

def resident(which):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024

def load(folder, span):
    return Stage.load(
        Path(folder), span, precision=Precision(sys.argv[3]), device=torch.device("cpu")
    )

load(sys.argv[2], Span(0, 1))  # what is loaded once: code, buffers, thread pools
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = resident("VmRSS")
stage = load(sys.argv[1], Span(2, 8))
print(stage.weight_bytes, resident("VmHWM") - before)
"""


def save(folder: Path, hidden: int) -> None:
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=BLOCKS,
        num_attention_heads=8,
        vocab_size=256,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="50MB")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_loading_a_span_needs_little_more_than_its_weights(tmp_path: Path, precision: str) -> None:
    save(tmp_path / "large", 896)
    save(tmp_path / "small", 64)
    arguments = [str(tmp_path / "large"), str(tmp_path / "small"), precision]
    app = Path(__file__).parents[3] / "app"
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        env={"PYTHONPATH": str(app), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    weights, peak = map(int, done.stdout.split())
    assert weights > 140_000_000
    assert peak <= 1.3 * weights
