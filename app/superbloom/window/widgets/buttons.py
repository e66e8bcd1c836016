"""Buttons that keep their icon in the theme's colours and always have a name to be read out."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QPushButton, QToolButton

from superbloom.window.theme import Theme
from superbloom.window.widgets.tips import plain_tip


class IconButton(QToolButton):
    """A button that is an icon; `name` is its tooltip and what a screen reader says."""

    def __init__(
        self,
        theme: Theme,
        icon: str,
        name: str,
        *,
        size: int = 20,
        color: str = "text",
        kind: str = "",
    ) -> None:
        super().__init__()
        self._theme = theme
        self._drawing = icon
        self._color = color
        self.setIconSize(QSize(size, size))
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setProperty("kind", kind)
        self.rename(name)
        theme.changed.connect(self._paint)
        self._paint()

    def rename(self, name: str) -> None:
        """Say something else."""
        self.setToolTip(plain_tip(name))
        self.setAccessibleName(name)

    def show_icon(self, icon: str, color: str | None = None) -> None:
        """Show another drawing."""
        self._drawing = icon
        self._color = color or self._color
        self._paint()

    def _paint(self) -> None:
        self.setIcon(self._theme.icon(self._drawing, self._color))


def button(text: str, *, kind: str = "", name: str = "") -> QPushButton:
    """A button with words; `kind` is primary, prompt or nothing."""
    made = QPushButton(text)
    made.setProperty("kind", kind)
    made.setCursor(Qt.CursorShape.PointingHandCursor)
    made.setAccessibleName(name or text)
    made.setAutoDefault(False)
    return made
