from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.errors import ProtocolViolation, SessionRefused
from superbloom.domain.span import Span
from superbloom.inference.kv_cache import (
    PAGE_TOKENS,
    REWIND_TOKENS,
    SLIDE_TOKENS,
    SessionCache,
    held_for,
    pages_for,
)
from superbloom.pipeline.messages import CHUNK_TOKENS
from superbloom.pipeline.windows import CREDIT_CHUNKS


def test_nothing_is_held_before_the_first_step() -> None:
    assert SessionCache(Span(0, 3)).nbytes == 0


def test_a_cache_grows_by_pages_and_writes_in_place() -> None:
    cache = SessionCache(Span(5, 6), first_layer=2)
    keys, values = torch.randn(2, 3, 4), torch.randn(2, 3, 6)
    cache.write(2, keys, values)
    cache.advance(3)
    page = PAGE_TOKENS * 2 * (4 + 6) * 4
    assert (cache.nbytes, cache.token_bytes) == (page, 2 * (4 + 6) * 4)
    first, _ = cache.write(2, keys[:, :1], values[:, :1])
    cache.advance(1)
    second, _ = cache.write(2, keys[:, 1:2], values[:, 1:2])
    assert first.data_ptr() == second.data_ptr()
    assert second.shape == (2, 5, 4)
    cache.advance(1)
    cache.write(2, torch.randn(2, PAGE_TOKENS, 4), torch.randn(2, PAGE_TOKENS, 6))
    assert cache.nbytes == 2 * page


def test_a_step_that_failed_half_way_leaves_the_past_as_it_was() -> None:
    cache = SessionCache(Span(0, 1))
    past = torch.randn(1, 4, 2)
    cache.write(0, past, past)
    cache.advance(4)
    cache.write(0, torch.zeros(1, 3, 2), torch.zeros(1, 3, 2))
    found, _ = cache.write(0, torch.ones(1, 1, 2), torch.ones(1, 1, 2))
    assert torch.equal(found, torch.cat([past, torch.ones(1, 1, 2)], dim=1))


@pytest.mark.parametrize("tokens", [-1, 1])
def test_a_crop_beyond_the_past_is_a_violation(tokens: int) -> None:
    with pytest.raises(ProtocolViolation):
        SessionCache(Span(0, 1)).crop(tokens)


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0, 1)), max_size=12))
def test_a_cache_holds_what_was_written_last(steps: list[tuple[int, float]]) -> None:
    cache = SessionCache(Span(0, 1))
    expected = torch.empty(1, 0, 1)
    number = 0
    for count, keep in steps:
        cache.crop(int(cache.tokens * keep))
        new = torch.arange(number, number + count, dtype=torch.float32).reshape(1, count, 1)
        number += count
        expected = torch.cat([expected[:, : cache.tokens], new], dim=1)
        keys, values = cache.write(0, new, -new)
        cache.advance(count)
        assert torch.equal(keys, expected)
        assert torch.equal(values, -expected)


@given(st.integers(1, 10**6))
def test_pages_are_whole_and_enough(tokens: int) -> None:
    assert pages_for(tokens) % PAGE_TOKENS == 0
    assert tokens <= pages_for(tokens) < tokens + PAGE_TOKENS


def numbered(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float32).reshape(1, count, 1)


def fill(cache: SessionCache, count: int, window: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    new = numbered(cache.tokens, count)
    found = cache.write(0, new, -new, window)
    cache.advance(count)
    return found


@given(
    st.sampled_from([1, 8, 300, 1000]),
    st.lists(
        st.tuples(st.integers(1, SLIDE_TOKENS), st.integers(0, REWIND_TOKENS)),
        min_size=1,
        max_size=12,
    ),
)
def test_a_windowed_block_holds_what_its_tokens_see(
    window: int, steps: list[tuple[int, int]]
) -> None:
    cache = SessionCache(Span(0, 1))
    furthest = 0
    for count, back in steps:
        cache.crop(max(0, min(cache.tokens, furthest - back)))
        keys, values = fill(cache, count, window)
        furthest = max(furthest, cache.tokens)
        seen = min(cache.tokens, window - 1 + count)
        assert torch.equal(keys[:, -seen:], numbered(cache.tokens - seen, seen))
        assert torch.equal(values, -keys)
        assert cache.nbytes <= 2 * 4 * held_for(furthest, window)


def test_a_windowed_block_does_not_grow_with_the_text() -> None:
    cache = SessionCache(Span(0, 1))
    for _ in range(40):
        fill(cache, SLIDE_TOKENS, 8)
    assert cache.windows == (8,)
    assert cache.tokens == 40 * SLIDE_TOKENS
    assert cache.nbytes == 2 * 4 * held_for(10**6, 8) == 2 * 4 * 1792
    assert held_for(10**6, None) == pages_for(10**6)
    assert held_for(3, 8) == PAGE_TOKENS


def test_a_loss_in_the_middle_of_a_prompt_costs_no_healthy_server_its_cache() -> None:
    cache, under_way = SessionCache(Span(0, 1)), CHUNK_TOKENS * CREDIT_CHUNKS
    for _ in range(40):
        fill(cache, CHUNK_TOKENS, 8)
        before = cache.tokens
        cache.crop(max(0, before - under_way))
        while cache.tokens < before:
            fill(cache, CHUNK_TOKENS, 8)


def test_what_a_window_has_forgotten_is_told_and_the_beginning_is_always_open() -> None:
    cache = SessionCache(Span(0, 1))
    for _ in range(6):
        fill(cache, SLIDE_TOKENS, 8)
    cache.crop(cache.tokens - REWIND_TOKENS)
    cache.crop(cache.earliest)
    with pytest.raises(SessionRefused, match="goes back to position"):
        cache.crop(cache.earliest - 1)
    cache.crop(0)
    keys, _ = fill(cache, 5, 8)
    assert torch.equal(keys, numbered(0, 5))
    assert cache.earliest == 0


def test_a_chunk_longer_than_usual_shrinks_back() -> None:
    cache = SessionCache(Span(0, 1))
    fill(cache, 5000, 8)
    fill(cache, 200, 8)
    assert cache.nbytes == 2 * 4 * held_for(10**6, 8)
