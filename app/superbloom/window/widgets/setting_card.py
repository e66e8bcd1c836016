"""A setting that is on or off: a switch, and what it does in words."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout

from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.card import Card
from superbloom.window.widgets.labels import label, paragraph
from superbloom.window.widgets.switch import Switch


class SettingCard(Card):
    """Draws a setting of the store, which `value` reads, and has `change` called by a click."""

    def __init__(
        self,
        store: Store,
        theme: Theme,
        words: tuple[str, str],
        *,
        value: Callable[[], bool],
        change: Callable[[bool], None],
    ) -> None:
        """`words` are the title and what it means."""
        super().__init__()
        title, explanation = words
        self._store = store
        self._value = value
        self.switch = Switch(theme, title)
        self.switch.clicked.connect(change)
        text = QVBoxLayout()
        text.setSpacing(2)
        text.addWidget(label(title, bold=True))
        text.addWidget(paragraph(explanation))
        row = QHBoxLayout()
        row.setSpacing(Space.L)
        row.addWidget(self.switch)
        row.addLayout(text, 1)
        self.rows.addLayout(row)
        store.settings_changed.connect(self._draw)
        self._draw()

    def _draw(self) -> None:
        self.switch.setChecked(self._value())
        self.switch.setEnabled(self._store.node is not None)
