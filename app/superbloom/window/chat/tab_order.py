"""The order in which Tab goes through a talk: as it is read, whenever its parts were made."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QAbstractButton, QPlainTextEdit, QTextBrowser, QWidget

_STOPS = (QTextBrowser, QPlainTextEdit, QAbstractButton)
_BY_TAB = Qt.FocusPolicy.TabFocus


def stops(card: QWidget) -> list[QWidget]:
    """What Tab reaches in a card, from its top to its end."""
    found: list[QWidget] = [one for kind in _STOPS for one in card.findChildren(kind)]
    return sorted(
        (one for one in found if not one.isHidden() and one.focusPolicy() & _BY_TAB),
        key=lambda one: one.mapTo(card, QPoint(0, 0)).toTuple()[::-1],
    )


def first_seen(cards: Iterable[QWidget]) -> QWidget | None:
    """The first stop that is not scrolled away."""
    for card in cards:
        if not card.visibleRegion().isEmpty():
            for stop in stops(card):
                if not stop.visibleRegion().isEmpty():
                    return stop
    return None


def put_in_order(view: QWidget, cards: Iterable[QWidget]) -> None:
    """Let Tab go from `view` through its cards, and from the last one to what follows `view`."""
    chain = [view, *(stop for card in cards for stop in stops(card))]
    for before, after in pairwise(chain):
        QWidget.setTabOrder(before, after)
