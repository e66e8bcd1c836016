"""Where a reader is in a talk, so that the text under the eyes stays where it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from PySide6.QtCore import QPoint, QSize
from PySide6.QtWidgets import QWidget


@dataclass(frozen=True, slots=True)
class ReadingPlace:
    """The card at the top of the view."""

    card: QWidget
    above: int
    """Pixels of the card that are scrolled out of sight; below zero in the gap before it."""

    size: QSize
    """The card's, when the place was noted."""

    def top(self, body: QWidget) -> int:
        """Where in `body` the view has to begin now, in pixels."""
        above = self.above
        if above > 0 and self.card.width() != self.size.width():
            # the text flows anew: the same part of it stays above
            above = round(above * self.card.height() / max(1, self.size.height()))
        return _top(self.card, body) + above


def place_at(cards: Iterable[QWidget], body: QWidget, top: int) -> ReadingPlace | None:
    """The place of a view on `body` that begins at `top`."""
    for card in cards:
        if card.isHidden():
            continue  # not laid out yet
        first = _top(card, body)
        if first + card.height() > top:
            return ReadingPlace(card, top - first, card.size())
    return None


def _top(card: QWidget, body: QWidget) -> int:
    return card.mapTo(body, QPoint(0, 0)).y()
