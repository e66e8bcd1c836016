"""Keys that scroll the talk, whichever part of it has the focus."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent

_KEYS = (
    Qt.Key.Key_Up,
    Qt.Key.Key_Down,
    Qt.Key.Key_PageUp,
    Qt.Key.Key_PageDown,
    Qt.Key.Key_Home,
    Qt.Key.Key_End,
)


def scrolls_talk(event: QKeyEvent) -> bool:
    """Whether a part of the talk leaves this key to the view that holds it."""
    held = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
    return event.key() in _KEYS and held == Qt.KeyboardModifier.NoModifier
