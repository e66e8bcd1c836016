"""Checking drafts samples what would be sampled without them, and no number more."""

from __future__ import annotations

import pytest
import torch

from superbloom.domain.sampling import SamplingSettings
from superbloom.inference.sampler import Sampler
from superbloom.pipeline.answer import written

SETTINGS = SamplingSettings(temperature=1.0, top_p=1.0, repetition_penalty=1.5, seed=3)


@pytest.mark.parametrize("wrong_at", [*range(5), None])
def test_tokens_are_those_sampled_one_by_one_up_to_the_first_wrong_draft(
    wrong_at: int | None,
) -> None:
    torch.manual_seed(1)
    logits = torch.randn(8, 40)
    plain, drafted = Sampler(SETTINGS, [1, 2]), Sampler(SETTINGS, [1, 2])
    expected = [plain.next(row) for row in logits[:6]]
    drafts = [(t + 1) % 40 if n == wrong_at else t for n, t in enumerate(expected[:5])]
    tokens = written(drafted, logits[:6], drafts)
    assert tokens == expected[: 6 if wrong_at is None else wrong_at + 1]
    again = Sampler(SETTINGS, [1, 2])
    for row in logits[: len(tokens)]:
        again.next(row)
    assert drafted.next(logits[7]) == again.next(logits[7])


def test_without_drafts_one_token_is_sampled() -> None:
    logits = torch.eye(9)[4:5] * 50
    assert written(Sampler(SETTINGS, []), logits, ()) == [4]
