"""A bar beside a text that has the focus, where a frame would lie over the letters."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QFocusEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from superbloom.window.theme import Theme

WIDTH = 3
GAP = 6

BY_KEYBOARD = (
    Qt.FocusReason.TabFocusReason,
    Qt.FocusReason.BacktabFocusReason,
    Qt.FocusReason.ShortcutFocusReason,
)


class FocusBar(QWidget):
    """At the left of `beside`; shown when the keyboard, not the mouse, brought the focus."""

    def __init__(self, theme: Theme, beside: QWidget) -> None:
        super().__init__(beside.parentWidget())
        self._theme = theme
        self._beside = beside
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hide()
        beside.installEventFilter(self)
        beside.destroyed.connect(self.deleteLater)

    def show_focus(self, event: QFocusEvent) -> None:
        """The focus came: show the bar if it came by a key."""
        self._place()
        self.setVisible(event.reason() in BY_KEYBOARD)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.Move, QEvent.Type.Resize):
            self._place()
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._theme.color("accent"))
        painter.drawRoundedRect(self.rect(), WIDTH / 2, WIDTH / 2)

    def _place(self) -> None:
        place = self._beside.geometry()
        self.setGeometry(place.x() - GAP - WIDTH, place.y(), WIDTH, place.height())
