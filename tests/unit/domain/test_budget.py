"""Dividing a memory budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.budget import (
    GIB,
    LEAST_CACHE_TOKENS,
    MIB,
    SCORE_BYTES,
    blocks_that_fit,
    careful_part,
    in_words,
    parse_size,
    plan_memory,
)
from superbloom.domain.errors import BudgetTooSmall, ModelUnsupported
from superbloom.domain.model_card import ModelShape, Precision
from superbloom.domain.span import Span

SHAPE = ModelShape(
    family="llama",
    blocks=30,
    hidden_size=576,
    vocabulary=49152,
    context_tokens=8192,
    parameters=134_515_008,
    block_bytes={
        Precision.FP32: 14 * MIB,
        Precision.BF16: 7 * MIB,
        Precision.INT8: 7 * MIB // 2,
    },
    client_bytes=56 * MIB,
    cache_bytes_per_token=768,
)


def test_all_blocks_fit_where_there_is_plenty() -> None:
    assert blocks_that_fit(SHAPE, Precision.BF16, 8 * GIB) == 30


def test_a_precision_twice_as_wide_holds_about_half() -> None:
    narrow = blocks_that_fit(SHAPE, Precision.BF16, 150 * MIB)
    wide = blocks_that_fit(SHAPE, Precision.FP32, 150 * MIB)
    assert 0 < wide < narrow < 30


def test_nothing_fits_into_nothing() -> None:
    assert blocks_that_fit(SHAPE, Precision.BF16, 10 * MIB) == 0
    with pytest.raises(BudgetTooSmall, match="holds 0 of 30 blocks"):
        plan_memory(SHAPE, Precision.BF16, Span(0, 1), 10 * MIB)


@given(st.integers(30 * MIB, 4 * GIB), st.sampled_from(list(SHAPE.block_bytes)))
def test_what_is_planned_stays_within_the_budget(memory: int, precision: Precision) -> None:
    fitting = blocks_that_fit(SHAPE, precision, memory)
    if fitting == 0:
        return
    plan = plan_memory(SHAPE, precision, Span(0, fitting), memory)
    assert plan.total_bytes <= memory
    a_token = SHAPE.cache_bytes_per_token * fitting * (2 if precision is Precision.FP32 else 1)
    assert plan.cache_bytes >= LEAST_CACHE_TOKENS * a_token


def test_a_quantized_block_needs_room_for_its_plain_form_while_it_is_loaded() -> None:
    large = replace(
        SHAPE, block_bytes={Precision.BF16: 4 * GIB, Precision.INT8: 2 * GIB, Precision.NF4: GIB}
    )
    for precision, size in ((Precision.INT8, 2 * GIB), (Precision.NF4, GIB)):
        assert blocks_that_fit(large, precision, 4 * GIB) == 0
        memory = 12 * GIB + 512 * MIB
        fitting = blocks_that_fit(large, precision, memory)
        assert fitting > 1
        assert (fitting - 1) * size + 4 * GIB <= memory
        plan = plan_memory(large, precision, Span(0, fitting), memory)
        assert plan.weight_bytes == fitting * size
        small = plan_memory(large, precision, Span(0, 1), memory)
        assert small.cache_bytes == 16 * 8192 * 768, "later that room is the cache's"


def test_a_block_held_in_16_bits_needs_room_for_32_while_it_is_loaded() -> None:
    sizes = {Precision.FP32: GIB, Precision.BF16: GIB}
    assert blocks_that_fit(replace(SHAPE, block_bytes=sizes), Precision.FP32, 2 * GIB) == 0
    assert blocks_that_fit(replace(SHAPE, block_bytes=sizes), Precision.BF16, 2 * GIB) == 1
    assert blocks_that_fit(replace(SHAPE, block_bytes=sizes), Precision.FP32, 3 * GIB) == 1


def test_attention_scores_are_counted() -> None:
    plan = plan_memory(SHAPE, Precision.BF16, Span(0, 1), GIB)
    assert plan.activation_bytes >= SCORE_BYTES
    assert blocks_that_fit(SHAPE, Precision.BF16, SCORE_BYTES) == 0


def test_a_precision_that_the_model_cannot_be_held_in_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match="held in nf4"):
        blocks_that_fit(SHAPE, Precision.NF4, GIB)
    with pytest.raises(ModelUnsupported, match="held in nf4"):
        plan_memory(SHAPE, Precision.NF4, Span(0, 1), GIB)


def test_the_cache_of_a_small_model_does_not_take_everything() -> None:
    plan = plan_memory(SHAPE, Precision.BF16, Span(0, 1), 64 * GIB)
    assert plan.cache_bytes == 16 * 8192 * 768


@given(st.integers(0, 1 << 45), st.booleans())
def test_the_default_budget_leaves_something(free: int, accelerator: bool) -> None:
    part = careful_part(free, accelerator=accelerator)
    assert 0 <= part <= free * 9 // 10
    if not accelerator and part:
        assert free - part >= 2 * GIB


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * GIB),
        ("800 MB", 800 * MIB),
        ("1.5g", 3 * GIB // 2),
        ("2GiB", 2 * GIB),
        ("123456", 123456),
        ("64k", 65536),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "four", "-1GB", "0", "1XB", "nan", "inf", "1e400g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        parse_size(text)


def test_sizes_are_said_as_people_say_them() -> None:
    assert in_words(800 * MIB) == "800 MB"
    assert in_words(3 * GIB // 2) == "1.5 GB"
