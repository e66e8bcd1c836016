"""Attention of a chunk against a plain formula, and the memory that it takes by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from superbloom.domain.span import Span
from superbloom.inference import packed_attention
from superbloom.inference.kv_cache import SessionCache
from superbloom.inference.packed_attention import PackedPart, _attend_by_hand, _attend_many

MIB = 1024 * 1024

SEEN = torch.arange(30) <= torch.arange(21, 30)[:, None]
"""What the last 9 tokens of 30 see."""


def added(mask: Tensor, like: Tensor) -> Tensor:
    """`mask` as it is added to scores."""
    return like.new_zeros(mask.shape).masked_fill(~mask, float("-inf"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 5])
def test_a_mask_is_made_once_for_all_layers(dtype: torch.dtype, window: int | None) -> None:
    part = PackedPart(SessionCache(Span(0, 2)), start=0, tokens=9, position=21)
    like = torch.empty(1, dtype=dtype)
    mask = part.mask(window, 30, like)
    assert mask is not None
    assert mask.dtype == dtype
    visible = SEEN if window is None else SEEN.triu(22 - window)
    assert torch.equal(mask, added(visible, like))
    assert part.mask(window, 30, like) is mask


def test_a_chunk_that_begins_the_text_needs_no_mask() -> None:
    part = PackedPart(SessionCache(Span(0, 2)), start=0, tokens=9, position=0)
    assert part.mask(None, 9, torch.empty(1)) is None
    assert part.mask(9, 9, torch.empty(1)) is None
    assert part.mask(8, 9, torch.empty(1)) is not None


@pytest.mark.parametrize(("heads", "shared"), [(6, 3), (6, 1), (3, 3)])
@pytest.mark.parametrize("width", [8, 4])
@pytest.mark.parametrize("seen", [9, 30])
def test_attention_of_a_chunk_is_exact(heads: int, shared: int, width: int, seen: int) -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(heads, 9, 8), torch.randn(shared, seen, 8)
    values = torch.randn(shared, seen, width)
    mask = None if seen == 9 else SEEN
    given = None if mask is None else added(mask, query)
    found = _attend_many(query, keys, values, given, 0.3)
    expected = plainly(query, keys, values, mask=mask, softcap=None, sinks=None)
    assert torch.allclose(found.double(), expected, atol=1e-5)


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
    given = None if tokens == 1 or mask is None else added(mask, query)
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
    mask = added(torch.arange(seen) <= torch.arange(seen - 128, seen)[:, None], query)
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
