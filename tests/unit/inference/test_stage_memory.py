"""The peak memory of loading a span, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from superbloom.inference.cpu.fast_linears import holds_half
from superbloom.inference.weights import SINGLE_FILE

BLOCKS = 4
HIDDEN = 2048
"""So wide that the system takes back what is freed, as with models that are worth sharing."""
BLOCK_BF16 = 2 * 16 * HIDDEN**2
"""A block's weights in bytes, but for the norms."""
LOAD = """
import sys
from pathlib import Path
import torch
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.inference.stage import Stage
from superbloom.machine.memory import give_back_freed_pages

def resident(which):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024

def load(folder, span):
    return Stage.load(
        Path(folder),
        span,
        precision=Precision(sys.argv[3]),
        device=torch.device("cpu"),
        progress=lambda *_: give_back_freed_pages(),  # as the server does
    )

load(sys.argv[2], Span(0, 1))  # what is loaded once: code, buffers, thread pools
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = resident("VmRSS")
stage = load(sys.argv[1], Span(1, 4))
print(stage.weight_bytes, resident("VmHWM") - before)
"""


def save(folder: Path, hidden: int) -> None:
    """A Llama whose weights are all alike: what they are plays no part."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=BLOCKS,
        num_attention_heads=8,
        vocab_size=256,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(folder)
    tensors = {
        name: torch.full(weight.shape, 0.02, dtype=torch.bfloat16)
        for name, weight in model.state_dict().items()
    }
    save_file(tensors, folder / SINGLE_FILE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The model that is measured, and a small one."""
    large, small = tmp_path_factory.mktemp("large"), tmp_path_factory.mktemp("small")
    save(large, HIDDEN)
    save(small, 64)
    return str(large), str(small)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("precision", "share_of_bf16", "blocks_beside"),
    [
        ("fp32", 1, 3) if holds_half(torch.float32) else ("fp32", 2, 0),
        ("bf16", 1, 0),
        ("int8", 0.5, 1),
        ("nf4", 0.25, 1),
    ],
)
def test_loading_a_span_needs_little_more_than_its_weights(
    folders: tuple[str, str], precision: str, share_of_bf16: float, blocks_beside: int
) -> None:
    app = Path(__file__).parents[3] / "app"
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *folders, precision],
        env={"PYTHONPATH": str(app), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    weights, peak = map(int, done.stdout.split())
    assert weights > 3 * BLOCK_BF16 * share_of_bf16
    assert peak <= 1.3 * weights + blocks_beside * BLOCK_BF16
