"""The sampler against a slow, plain reference."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.sampling import SamplingSettings
from superbloom.inference.sampler import Sampler

# Steps of 0.01: what is closer may be equal in fp32 and is not in the reference.
scores_lists = st.lists(
    st.integers(-2000, 2000).map(lambda hundredths: hundredths / 100), min_size=1, max_size=40
)


def reference_distribution(scores, seen, wanted):
    """Probabilities by token id, one filter after the other, in plain Python."""
    scores = list(scores)
    for token in seen:
        if token < len(scores):
            penalty = wanted.repetition_penalty
            scores[token] = (
                scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
            )
    highest = max(scores)
    weights = {i: math.exp((s - highest) / wanted.temperature) for i, s in enumerate(scores)}
    if wanted.top_k:
        least = sorted(weights.values(), reverse=True)[: wanted.top_k][-1]
        weights = {i: w for i, w in weights.items() if w >= least}
    total = sum(weights.values())
    running, least = 0.0, 0.0
    for weight in sorted(weights.values(), reverse=True):
        running, least = running + weight, weight
        if running >= wanted.top_p * total:
            break
    if wanted.top_p < 1:
        weights = {i: w for i, w in weights.items() if w >= least}
    weights = {i: w for i, w in weights.items() if w >= wanted.min_p and w > 0}
    return {i: w / sum(weights.values()) for i, w in weights.items()}


@given(
    scores=scores_lists,
    seen=st.sets(st.integers(0, 45), max_size=8),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.9),
    penalty=st.floats(0.5, 2),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=400, deadline=None)
def test_draws_where_the_reference_cumulative_says(
    *, scores, seen, temperature, top_k, top_p, min_p, penalty, seed
):
    wanted = SamplingSettings(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
        seed=seed,
    )
    token = Sampler(wanted, sorted(seen)).next(torch.tensor(scores))
    point = random.Random(seed).random()
    # A filter's border within rounding of a weight may fall either way: accept both neighbours.
    accepted = set()
    for nudge in (0.0, 1e-5, -1e-5):
        near = SamplingSettings(
            temperature=temperature,
            top_k=top_k,
            top_p=min(1.0, top_p * (1 + nudge)),
            min_p=max(0.0, min_p * (1 + nudge)),
            repetition_penalty=penalty,
            seed=seed,
        )
        running = 0.0
        for i, share in sorted(reference_distribution(scores, seen, near).items()):
            if running - 1e-4 <= point <= running + share + 1e-4:
                accepted.add(i)
            running += share
    assert token in accepted


@given(scores=scores_lists, seed=st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_greedy_takes_the_first_of_the_highest(scores, seed):
    wanted = SamplingSettings(temperature=0, seed=seed)
    assert Sampler(wanted, []).next(torch.tensor(scores)) == scores.index(max(scores))


def test_frequencies_follow_the_probabilities():
    probabilities = [0.5, 0.25, 0.15, 0.1]
    sampler = Sampler(SamplingSettings(temperature=1, top_p=1, seed=3), [])
    logits = torch.tensor(probabilities).log()
    counts = Counter(sampler.next(logits) for _ in range(20000))
    for token, probability in enumerate(probabilities):
        assert counts[token] / 20000 == pytest.approx(probability, abs=0.015)


def test_a_seed_repeats_and_survives_noise_in_the_last_bits():
    generator = torch.Generator().manual_seed(1)
    scores = [torch.randn(5000, generator=generator) * 3 for _ in range(200)]
    noisy = [s + torch.randn(5000, generator=generator) * 1e-6 for s in scores]
    wanted = SamplingSettings(temperature=0.8, top_k=100, top_p=0.9, seed=77)
    first, second = Sampler(wanted, [1, 2]), Sampler(wanted, [1, 2])
    assert [first.next(s) for s in scores] == [second.next(s) for s in noisy]


def test_the_sequence_of_a_seed_is_pinned():
    sampler = Sampler(SamplingSettings(temperature=1, top_p=1, seed=42), [])
    flat = torch.zeros(1000)
    assert [sampler.next(flat) for _ in range(5)] == [639, 25, 275, 223, 736]


def test_without_a_seed_a_fresh_one_is_drawn_and_told():
    seeds = {Sampler(SamplingSettings(), []).seed for _ in range(20)}
    assert len(seeds) > 1
    seed = seeds.pop()
    assert Sampler(SamplingSettings(seed=seed), []).seed == seed


def test_the_penalty_grows_with_what_was_drawn():
    sampler = Sampler(SamplingSettings(temperature=0, repetition_penalty=2.0), [0])
    logits = torch.tensor([4.0, 3.0, 2.9, -1.0])
    assert [sampler.next(logits) for _ in range(3)] == [1, 2, 0]
    assert logits.tolist() == pytest.approx([4.0, 3.0, 2.9, -1.0])


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_numbers_are_refused(temperature, bad):
    logits = torch.tensor([1.0, bad, 2.0])
    with pytest.raises(ProtocolViolation):
        Sampler(SamplingSettings(temperature=temperature, seed=1), []).next(logits)


def test_a_forbidden_token_is_never_drawn():
    logits = torch.tensor([-math.inf, 0.0, -math.inf])
    sampler = Sampler(SamplingSettings(temperature=5, top_p=1, seed=1), [])
    assert {sampler.next(logits) for _ in range(50)} == {1}


def test_the_top_p_share_is_of_what_top_k_left():
    logits = torch.from_numpy(np.log([0.4, 0.3, 0.2, 0.1])).float()
    wanted = SamplingSettings(temperature=1, top_k=2, top_p=0.5, seed=5)
    sampler = Sampler(wanted, [])
    assert {sampler.next(logits) for _ in range(100)} == {0}


@pytest.mark.parametrize("temperature", [0.0, 1e-50, 1e-38, 9e-7])
def test_next_to_no_temperature_is_greedy(temperature):
    wanted = SamplingSettings(temperature=temperature, seed=1)
    assert Sampler(wanted, [3]).next(torch.tensor([0.0, 2.0, 2.0 - 1e-6, 1.0])) == 1
