"""The switch for prompts that are never rounded."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout

from superbloom.window.actions import Actions
from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.card import Card
from superbloom.window.widgets.labels import label, paragraph
from superbloom.window.widgets.switch import Switch

TITLE = "Exact, also over slow lines"

EXPLANATION = (
    "Where a slow line holds up a long text, its numbers are rounded to 8 bits on their way, so "
    "that the answer begins up to twice as soon. That can change a word now and then. With this "
    "on, nothing is rounded. What is written as an answer never is."
)


class ExactCard(Card):
    """Draws the setting of the store."""

    def __init__(self, store: Store, actions: Actions, theme: Theme) -> None:
        super().__init__()
        self._store = store
        self.switch = Switch(theme, TITLE)
        self.switch.clicked.connect(actions.exact)
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(label(TITLE, bold=True))
        words.addWidget(paragraph(EXPLANATION))
        row = QHBoxLayout()
        row.setSpacing(Space.L)
        row.addWidget(self.switch)
        row.addLayout(words, 1)
        self.rows.addLayout(row)
        store.settings_changed.connect(self._draw)
        self._draw()

    def _draw(self) -> None:
        self.switch.setChecked(self._store.exact)
        self.switch.setEnabled(self._store.node is not None)
