"""Attention by hand against a plain formula, and the memory that it takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from superbloom.inference import packed_attention
from superbloom.inference.packed_attention import _attend_by_hand

MIB = 1024 * 1024


def plainly(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    mask: Tensor | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """All at once, in fp64."""
    heads, tokens, _ = query.shape
    groups = heads // keys.shape[0]
    keys, values = (part.double().repeat_interleave(groups, 0) for part in (keys, values))
    scores = query.double() @ keys.transpose(1, 2) * 0.3
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        mask = torch.ones(tokens, keys.shape[1], dtype=torch.bool).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        column = sinks.double()[:, None, None].expand(heads, tokens, 1)
        scores = torch.cat([scores, column], dim=-1)
    return torch.softmax(scores, dim=-1)[..., : keys.shape[1]] @ values


@pytest.mark.parametrize("most_bytes", [1, 3000, 20_000, 64 * MIB])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize(("tokens", "seen"), [(1, 30), (9, 9), (9, 30)])
def test_attention_by_hand_is_exact_in_any_division(
    monkeypatch: pytest.MonkeyPatch,
    *,
    most_bytes: int,
    softcap: float | None,
    with_sinks: bool,
    tokens: int,
    seen: int,
) -> None:
    monkeypatch.setattr(packed_attention, "SCORE_BYTES", most_bytes)
    torch.manual_seed(0)
    query, keys, values = (
        torch.randn(6, tokens, 8),
        torch.randn(3, seen, 8),
        torch.randn(3, seen, 4),
    )
    sinks = torch.randn(6) if with_sinks else None
    mask = None
    if tokens != seen:
        mask = torch.arange(seen) <= torch.arange(seen - tokens, seen)[:, None]
    given = None if tokens == 1 else mask
    found = _attend_by_hand(
        query, keys, values, mask=given, scaling=0.3, softcap=softcap, sinks=sinks
    )
    expected = plainly(query, keys, values, mask=mask, softcap=softcap, sinks=sinks)
    assert torch.allclose(found.double(), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seen", [1024, 4096])
def test_scores_stay_within_their_bound(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, seen: int
) -> None:
    monkeypatch.setattr(packed_attention, "SCORE_BYTES", MIB)
    query = torch.randn(16, 128, 8, dtype=dtype)
    keys = torch.randn(2, seen, 8, dtype=dtype)
    mask = torch.arange(seen) <= torch.arange(seen - 128, seen)[:, None]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        _attend_by_hand(
            query, keys, keys, mask=mask, scaling=None, softcap=3.0, sinks=torch.zeros(16)
        )
    held = most = 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    results = 16 * 128 * 8 * dtype.itemsize
    assert most <= MIB + results + 64 * 1024
