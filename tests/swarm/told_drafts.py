"""Drafts that a test chooses, sent as eagerly as can be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from superbloom.domain.draft_policy import DraftPolicy
from superbloom.domain.drafting import Draft


class ToldDrafts:
    """Proposes how the text goes on, but for the answer's tokens `wrong_at`."""

    growing = False
    at_work = False

    def __init__(self, prompt: int, answer: Sequence[int], wrong_at: Iterable[int]) -> None:
        wrong = frozenset(wrong_at)
        guessed = [(t + 1) % 49 + 1 if n in wrong else t for n, t in enumerate(answer)]
        self._drafts = [Draft(token, 20) for token in guessed]
        self._known = -prompt

    def extend(self, token_ids: Sequence[int]) -> None:
        self._known += len(token_ids)

    def propose(self, assumed: Sequence[int], most: int) -> list[Draft]:
        begin = self._known + len(assumed)
        return self._drafts[begin : begin + most]


class EagerPolicy(DraftPolicy):
    """Sends all drafts there are."""

    def width(self, drafts: Sequence[Draft]) -> int:
        return len(drafts)

    def sends_ahead(self, assumed: Sequence[Draft]) -> bool:
        return True


class NarrowPolicy(EagerPolicy):
    """Sends windows of at most three tokens."""

    def width(self, drafts: Sequence[Draft]) -> int:
        return min(2, len(drafts))


def tell(
    monkeypatch: pytest.MonkeyPatch,
    prompt: Sequence[int],
    answer: Sequence[int],
    wrong_at: Iterable[int] = (),
    policy: type[DraftPolicy] = EagerPolicy,
) -> None:
    """From now on answers to prompts of that length get these drafts."""
    wrong = frozenset(wrong_at)
    monkeypatch.setattr(
        "superbloom.pipeline.answer.EarlierText", lambda: ToldDrafts(len(prompt), answer, wrong)
    )
    monkeypatch.setattr("superbloom.domain.speculation.DraftPolicy", policy)
