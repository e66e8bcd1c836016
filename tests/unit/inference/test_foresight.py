"""What a sampler will choose is foreseen from scores like those that it will see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from superbloom.domain.sampling import SamplingSettings
from superbloom.inference.foresight import Foresight
from superbloom.inference.sampler import Sampler

SEED = 11
PLACES = 300
WARM = SamplingSettings(temperature=0.8, top_k=50, top_p=0.95, min_p=0.01, seed=SEED)


def scores(spread: float = 0.0) -> list[Tensor]:
    """Of every place; `spread`: how far those of the other model are from the sampler's."""
    exact = torch.randn(PLACES, 200, generator=torch.Generator().manual_seed(1)) * 3
    other = torch.randn(PLACES, 200, generator=torch.Generator().manual_seed(2)) * spread
    return list(exact + other)


def right(settings: SamplingSettings, spread: float) -> float:
    """The part of the tokens that is foreseen from scores so far off."""
    sampler, foresight = Sampler(settings, ()), Foresight(settings, SEED)
    chosen = [sampler.next(row) for row in scores()]
    foreseen = [foresight.choose(row, place) for place, row in enumerate(scores(spread))]
    pairs = zip(foreseen, chosen, strict=True)
    return sum(guess.token == token for guess, token in pairs) / PLACES


@pytest.mark.parametrize("settings", [WARM, SamplingSettings(temperature=0)])
def test_from_the_same_scores_every_token_is_foreseen(settings: SamplingSettings) -> None:
    assert right(settings, spread=0.0) == 1.0


def test_from_scores_nearby_most_are_and_more_than_by_likelihood() -> None:
    sampler = Sampler(WARM, ())
    chosen = [sampler.next(row) for row in scores()]
    likeliest = sum(int(row.argmax()) == token for row, token in zip(scores(), chosen, strict=True))
    assert right(WARM, spread=0.3) > 1.2 * likeliest / PLACES


def test_places_may_come_in_any_order_and_again() -> None:
    foresight, rows = Foresight(WARM, SEED), scores()
    late = foresight.choose(rows[7], 7)
    early = foresight.choose(rows[2], 2)
    assert foresight.choose(rows[7], 7) == late
    assert foresight.choose(rows[2], 2) == early


def test_beliefs_are_the_probabilities_after_the_filters() -> None:
    row = torch.tensor([1.0, 1.0, -9.0, -9.0])
    assert Foresight(SamplingSettings(temperature=0), SEED).choose(row, 0).belief == pytest.approx(
        0.5, abs=0.01
    )
    two = SamplingSettings(temperature=1.0, top_k=2)
    assert Foresight(two, SEED).choose(row, 0).belief == pytest.approx(0.5)
