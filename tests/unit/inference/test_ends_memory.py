"""The memory that the ends of a model with a very large vocabulary take, seen in a process."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

HIDDEN = 2048
MARKED = 123_456
MEBIBYTE = 1024 * 1024
LOAD = f"""
import sys
from pathlib import Path
import torch
from superbloom.domain.model_card import Precision
from superbloom.inference.ends import ClientEnds

def resident(which):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024

def load(folder):
    return ClientEnds.load(
        Path(folder), precision=Precision(sys.argv[3]), device=torch.device("cpu")
    )

small = load(sys.argv[2])  # what is loaded once: code, thread pools
small.logits(small.embed([1, 2], 0))
whole, own = resident("VmRSS"), resident("RssAnon")
ends = load(sys.argv[1])
rows = ends.embed([{MARKED}, 5, 249_999], 0)
assert rows[0].eq(1).all() and rows[1:].eq(0).all()
print(resident("VmRSS") - whole)
scores = ends.logits(rows)
assert scores[0].argmax() == {MARKED} and scores.shape == (3, 250_000)
print(resident("RssAnon") - own)
"""


def save(folder: Path, words: int) -> None:
    """A llama whose embeddings, which are its head too, are zeros but for one row: a hole."""
    folder.mkdir()
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=16,
        vocab_size=words,
        tie_word_embeddings=True,
    )
    config.save_pretrained(folder)
    table, norm = words * HIDDEN * 2, HIDDEN * 2
    header = json.dumps(
        {
            "model.embed_tokens.weight": entry([words, HIDDEN], 0, table),
            "model.norm.weight": entry([HIDDEN], table, table + norm),
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    ones = torch.ones(HIDDEN, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        start = file.tell()
        file.seek(start + MARKED * HIDDEN * 2 if words > MARKED else start)
        file.write(ones)
        file.seek(start + table)
        file.write(ones)


def entry(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_large_vocabulary_is_not_held(tmp_path: Path, precision: str) -> None:
    save(tmp_path / "large", 250_000)
    save(tmp_path / "small", 1000)
    arguments = [str(tmp_path / "large"), str(tmp_path / "small"), precision]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={"PYTHONPATH": str(Path(__file__).parents[3] / "app"), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    after_embedding, own_after_scoring = (int(line) for line in done.stdout.split())
    assert after_embedding < 64 * MEBIBYTE
    assert own_after_scoring < 128 * MEBIBYTE
