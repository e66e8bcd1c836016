"""Which model of this computer may guess ahead for another: small, whole, and of the same tokens.

Importing this module imports torch, which takes seconds: do it in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from superbloom.control.messages import ModelInfo, ModelState
from superbloom.domain.budget import MIB, careful_part
from superbloom.domain.errors import SuperbloomError
from superbloom.domain.model_card import Precision
from superbloom.inference.draft_model import HELD_TOKENS, DraftModel
from superbloom.inference.same_tokens import TokenIds

logger = logging.getLogger(__name__)

SMALLEST_RATIO = 7
"""The model that answers has at least so many times the parameters: about eight times."""

QUICK_PARAMETERS = 1_300_000_000
"""A model with no more guesses quickly on most computers: the largest of these guesses best."""

WORK_BYTES = 256 * MIB
"""What guessing takes beside weights and cache."""


@dataclass(frozen=True, slots=True)
class ChosenDraft:
    """A model that is loaded to guess ahead, and its id."""

    id: str
    model: DraftModel


def load_draft_for(
    answering: str, models: Iterable[ModelInfo], free_bytes: Callable[[], int]
) -> ChosenDraft | None:
    """The best one for the model `answering`, loaded; None if there is none that fits in memory.

    One that cannot be read is passed over, and that is logged.
    """
    known = {model.id: model for model in models}
    target = known.get(answering)
    candidates = list(small_enough(target, known.values())) if target else []
    if target is None or not candidates:
        return None
    tokens = TokenIds.read(Path(target.folder))
    for candidate in candidates:
        try:
            if not tokens.agree_with(TokenIds.read(Path(candidate.folder))):
                continue
            if needed_bytes(candidate) > careful_part(free_bytes(), accelerator=False):
                logger.info("there is no room for %s to guess ahead", candidate.id)
                continue
            return ChosenDraft(candidate.id, DraftModel.load(Path(candidate.folder)))
        except (SuperbloomError, MemoryError, OSError) as error:
            logger.warning("%s cannot guess ahead: %s", candidate.id, error)
    return None


def small_enough(target: ModelInfo, models: Iterable[ModelInfo]) -> Iterator[ModelInfo]:
    """Models that are here as a whole and small beside `target`, the most promising first."""
    found = [
        model
        for model in models
        if model.id != target.id
        and model.state is ModelState.READY
        and 0 < model.parameters * SMALLEST_RATIO <= target.parameters
    ]
    quick = [model for model in found if model.parameters <= QUICK_PARAMETERS]
    slow = [model for model in found if model.parameters > QUICK_PARAMETERS]
    yield from sorted(quick, key=lambda model: -model.parameters)
    yield from sorted(slow, key=lambda model: model.parameters)


def needed_bytes(model: ModelInfo) -> int:
    """The memory that it takes as a whole, with the cache of one text."""
    sizes = model.block_bytes
    block = sizes.get(Precision.INT8) or max(sizes.values(), default=0)
    cache = 2 * model.cache_bytes_per_token * HELD_TOKENS
    return (block + cache) * model.blocks + model.client_bytes + WORK_BYTES
