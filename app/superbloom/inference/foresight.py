"""What a sampler is going to choose, foreseen from the scores of another model.

The sampler's numbers are those of its seed, and it looks them up in the order of token ids: where
two models give tokens much the same probabilities, the same number finds the same token. So a
small model that draws with the numbers that the sampler will use is right far more often, at a
temperature, than one that guesses what is likeliest.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from superbloom.domain.sampling import SamplingSettings
from superbloom.inference.sampler import COLDEST, drawn


@dataclass(frozen=True, slots=True)
class Guess:
    """A token that may come next, and the probability that the small model gives it."""

    token: int
    belief: float


class Foresight:
    """Chooses as a `Sampler` with these settings and this seed, but for its repetition penalty."""

    def __init__(self, settings: SamplingSettings, seed: int) -> None:
        self._settings = settings
        self._chance = random.Random(seed)
        self._points: list[float] = []
        """One for each token of the answer, as far as they were needed."""

    def choose(self, scores: Tensor, place: int) -> Guess:
        """From scores [vocabulary] float32 for the answer's token `place`, which counts from 0."""
        if self._settings.temperature < COLDEST:
            token = int(scores.argmax())
            return Guess(token, float(torch.exp(scores[token] - torch.logsumexp(scores, 0))))
        while len(self._points) <= place:
            self._points.append(self._chance.random())
        return Guess(*drawn(scores, self._settings, self._points[place]))
