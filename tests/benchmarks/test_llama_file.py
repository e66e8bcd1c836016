"""What llama.cpp's files have different from transformers' folders."""

from __future__ import annotations

import numpy as np
import pytest
from tests.benchmarks.llama_file import in_pairs, llama_name


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("model.embed_tokens", "token_embd"),
        ("model.layers.12.mlp.up_proj", "blk.12.ffn_up"),
        ("model.layers.0.self_attn.q_proj", "blk.0.attn_q"),
    ],
)
def test_names(name: str, theirs: str):
    assert llama_name(name) == theirs


def test_rows_that_turn_together_become_neighbours():
    two_heads_of_four = np.arange(8, dtype=np.float32)[:, None]
    paired = in_pairs(two_heads_of_four, heads=2)[:, 0].tolist()
    assert paired == [0, 2, 1, 3, 4, 6, 5, 7]
