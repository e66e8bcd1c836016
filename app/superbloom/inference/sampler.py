"""How the client chooses the next token from the model's scores.

The filters run in this order, each on what the one before it left: repetition penalty,
temperature, top-k, top-p, min-p. One uniform number a token is then looked up in the cumulative
distribution *in the order of token ids*: rounding noise in the scores moves the borders between
tokens a little but never swaps two of them, so a seed gives the same text on any chain.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.sampling import SamplingSettings

Floats = npt.NDArray[np.float32]

COLDEST = 1e-6
"""A temperature below this is greedy decoding: its division would leave the range of fp32."""


class Sampler:
    """Chooses the tokens of one answer; `seed` repeats them.

    Python's `random.Random(seed).random()` is the source of chance: its sequence for a seed is
    promised to stay the same on every platform and version.
    """

    def __init__(self, settings: SamplingSettings, prompt_ids: Sequence[int]) -> None:
        self.seed = secrets.randbelow(2**31) if settings.seed is None else settings.seed
        self._settings = settings
        self._chance = random.Random(self.seed)
        self._seen = np.unique(np.asarray(prompt_ids, dtype=np.int64))

    def next(self, logits: torch.Tensor) -> int:
        """The next token's id, from `logits` [vocabulary] float32. Records it as seen.

        Raises ProtocolViolation when the scores are not numbers.
        """
        if self._settings.repetition_penalty != 1.0:
            logits = self._penalised(logits)
        greedy = self._settings.temperature < COLDEST
        if greedy:
            token = self._greedy(logits)
        else:
            token, _ = drawn(logits, self._settings, self._chance.random())
        if token not in self._seen:
            self._seen = np.append(self._seen, token)
        return token

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        """Seen tokens lose: a positive score is divided, a negative one multiplied.

        Keskar et al. 2019, "CTRL: A Conditional Transformer Language Model", section 4.1.
        """
        known = self._seen[self._seen < logits.numel()]
        seen = torch.from_numpy(known).to(logits.device)
        scores = logits[seen]
        penalty = self._settings.repetition_penalty
        return logits.index_put(
            (seen,), torch.where(scores > 0, scores / penalty, scores * penalty)
        )

    def _greedy(self, logits: torch.Tensor) -> int:
        token = int(logits.argmax())
        if not torch.isfinite(logits[token]):
            raise _not_numbers()
        return token


def drawn(logits: torch.Tensor, settings: SamplingSettings, point: float) -> tuple[int, float]:
    """The token at `point` (0 to 1) of what the filters leave of the distribution, and its share.

    Raises ProtocolViolation when the scores are not numbers.
    """
    scores = logits.detach().to(device="cpu", dtype=torch.float32).numpy()
    highest = scores.max()
    if not np.isfinite(highest):
        raise _not_numbers()
    weights = np.exp((scores - highest) / np.float32(settings.temperature))
    kept = np.flatnonzero(weights >= _floor(weights, settings))
    cumulative = np.cumsum(weights[kept], dtype=np.float64)
    place = np.searchsorted(cumulative, point * cumulative[-1], side="right")
    token = int(kept[min(place, kept.size - 1)])
    return token, float(weights[token] / cumulative[-1])


def _floor(weights: Floats, settings: SamplingSettings) -> np.float32:
    """The least weight that passes every filter; the largest weight is 1 and always does.

    A border that falls between equals lets all of them pass, so that their order never matters.
    top-p: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"; min-p: Nguyen et
    al. 2024, "Turning Up the Heat".
    """
    floor = np.finfo(np.float32).tiny
    if 0 < settings.top_k < weights.size:
        kth = torch.from_numpy(weights).topk(settings.top_k).values[-1]
        floor = max(floor, np.float32(kth.item()))
    if settings.top_p < 1:
        floor = max(floor, _top_p_floor(weights, floor, settings.top_p))
    return max(floor, np.float32(settings.min_p))


def _top_p_floor(weights: Floats, floor: np.float32, share: float) -> np.float32:
    """The least weight among the fewest likeliest that hold `share` of what `floor` left."""
    left = np.where(weights >= floor, weights, np.float32(0))
    total = left.sum(dtype=np.float64)
    # All tokens below this line together hold less than 1 - share: only those above need sorting.
    left = left[left >= (1 - share) * total / weights.size]
    left = np.sort(left)[::-1]
    cumulative = np.cumsum(left, dtype=np.float64)
    last = np.searchsorted(cumulative, share * total, side="left")
    return np.float32(left[min(last, left.size - 1)])


def _not_numbers() -> ProtocolViolation:
    return ProtocolViolation("The model's scores are not numbers: a server computed nonsense.")
